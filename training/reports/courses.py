"""training/: the losses and learning rates of a run's trainings, as a section of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.progress import read_courses
from training.reports import plots
from training.reports.html_page import Section, html_figure

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from training.progress import Course

MOST_TRAININGS = 12
"""Trainings that are shown: a page with all folds of a large run would not be read."""

POINTS = 200
"""Of a curve; each is the mean of successive steps."""


def courses_section(run: Path) -> list[Section]:
    """Return the section of a run's trainings, or none where no progress was kept."""
    courses = read_courses(run)
    if not courses:
        return []
    figures = [_figures(name, course) for name, course in list(courses.items())[:MOST_TRAININGS]]
    left = len(courses) - len(figures)
    more = f" {left} more trainings are not shown." if left else ""
    text = f"Loss and learning rate by step; a point is the mean of successive steps.{more}"
    return [Section("How it was trained", text, "".join(figures))]


def _figures(name: str, course: Course) -> str:
    """Return the loss and the learning rate of one training, each in its own unit."""
    step = _means(np.array(course.step, np.float64))
    found = ""
    for what, values in (("loss", course.loss), ("learning rate", course.learning_rate)):
        means = _means(np.array(values, np.float64))
        bounds = (min(0.0, float(means.min())), 1.05 * float(means.max()) or 1.0)
        svg = plots.lines_plot({what: (step, means)}, "step", what, bounds)
        found += html_figure(svg, f"{name}: {what}")
    return found


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = np.array_split(values, min(POINTS, len(values)))
    return np.array([part.mean() for part in parts])
