"""training/: the course of a training: its learning rate, its losses on disk, its trackers.

Imports no torch: a report reads the files of a run.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from hardware.errors import ScentdError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.config import OptimiserConfig

PROGRESS = "progress.csv"
"""Beside every checkpoint: one row per step."""

_COLUMNS = ("step", "loss", "learning_rate")

TENSORBOARD = "tensorboard"
TRACKERS = (TENSORBOARD,)


class Tracker(Protocol):
    """Receives every step of a training while it runs."""

    def add(self, part: str, step: int, loss: float, learning_rate: float) -> None:
        """Add a step of a part of the training: a teacher, an expert, or the whole."""

    def close(self) -> None:
        """Write what is left."""


class TrackerError(ScentdError):
    """A tracker cannot be used."""


def learning_rate(step: int, steps: int, settings: OptimiserConfig) -> float:
    """Return the rate at a step: a linear rise, then constant or a cosine to zero."""
    warmup, peak = settings.warmup, settings.learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def write_progress(
    folder: Path, losses: Sequence[float], steps: int, settings: OptimiserConfig
) -> None:
    """Write the losses of the steps from 1 on, with the rate of each; whole or not at all."""
    partial = folder / f"{PROGRESS}.partial"
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for step, loss in enumerate(losses):
            rate = learning_rate(step, steps, settings)
            writer.writerow((step + 1, f"{loss:.6g}", f"{rate:.6g}"))
    partial.replace(folder / PROGRESS)


@dataclass(frozen=True, slots=True)
class Course:
    """The steps of one training: numbers from 1, losses and learning rates."""

    step: tuple[int, ...]
    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]


def read_courses(run: Path) -> dict[str, Course]:
    """Return the course of every training below a run folder, by its path there.

    Files that are no course of a training are left out.
    """
    courses = {}
    for path in sorted(run.glob(f"**/{PROGRESS}")):
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [
                    (int(row["step"]), float(row["loss"]), float(row["learning_rate"]))
                    for row in csv.DictReader(stream)
                ]
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            continue
        if rows:
            step, loss, rate = zip(*rows, strict=True)
            courses[path.parent.relative_to(run).as_posix()] = Course(step, loss, rate)
    return courses


def make_tracker(name: str, folder: Path) -> Tracker:
    """Return a tracker by its name; it writes below a run folder.

    Raises
    ------
    TrackerError: its package is not installed.
    """
    if name != TENSORBOARD:
        raise UsageError(f"--track is one of {', '.join(TRACKERS)}, and {name!r} came.")
    return TensorBoardTracker(folder / TENSORBOARD)


class TensorBoardTracker:
    """Writes the loss and the learning rate of every step for TensorBoard.

    Parameters
    ----------
    folder: of the event files, as `tensorboard --logdir` reads them.
    """

    def __init__(self, folder: Path) -> None:
        try:
            module = import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise TrackerError(
                "TensorBoard is not installed. Install it (pip install 'scentd[track]'), or leave "
                "--track out: the report shows the losses too."
            ) from error
        self._writer = module.SummaryWriter(str(folder))

    def add(self, part: str, step: int, loss: float, learning_rate: float) -> None:
        """Write the two numbers of a step."""
        self._writer.add_scalar(f"loss/{part}", loss, step)
        self._writer.add_scalar(f"learning_rate/{part}", learning_rate, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
