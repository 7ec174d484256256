"""The course of a training: on disk beside the checkpoint, in the report, and in TensorBoard."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.training.tiny import periodic, with_optimiser
from training.progress import (
    PROGRESS,
    TrackerError,
    learning_rate,
    make_tracker,
    read_courses,
)
from training.reports.run import ReportError, write_run_report

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.fit import train_network  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.dataset import Dataset

torch.set_num_threads(1)
STEPS = 12
CONFIG = dataclasses.replace(with_optimiser(steps=STEPS), seed=3)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic(rows=120)


class Steps:
    """A tracker that keeps what it receives."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float, float]] = []

    def add(self, part: str, step: int, loss: float, learning_rate: float) -> None:
        self.rows.append((part, step, loss, learning_rate))

    def close(self) -> None:
        """Nothing is left."""


def test_every_step_is_tracked_and_written_and_shown(data: Dataset, tmp_path: Path) -> None:
    tracker = Steps()
    train_network(CONFIG, data, folder=tmp_path / "final", tracker=tracker)
    assert [row[:2] for row in tracker.rows] == [("network", step + 1) for step in range(STEPS)]
    (course,) = read_courses(tmp_path).values()
    assert course.step == tuple(range(1, STEPS + 1))
    assert course.loss == pytest.approx([row[2] for row in tracker.rows], rel=1e-5)
    assert course.learning_rate == pytest.approx([row[3] for row in tracker.rows], rel=1e-5)
    rates = [learning_rate(step, STEPS, CONFIG.optimiser) for step in range(STEPS)]
    assert course.learning_rate == pytest.approx(rates, rel=1e-5)
    _, page = write_run_report(tmp_path, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "final: loss" in text
    assert "final: learning rate" in text


def test_a_damaged_course_is_left_out(tmp_path: Path) -> None:
    for name, text in (("a", "step,loss\n1,x\n"), ("b", ""), ("c", "step,loss,learning_rate\n1,2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / PROGRESS).write_text(text)
    assert read_courses(tmp_path) == {}
    with pytest.raises(ReportError):
        write_run_report(tmp_path, tmp_path)


def test_tensorboard_reads_what_is_tracked(data: Dataset, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed: pip install 'scentd[track]'",
    )
    tracker = make_tracker("tensorboard", tmp_path)
    train_network(CONFIG, data, tracker=tracker)
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [item.step for item in events.Scalars("loss/network")] == list(range(1, STEPS + 1))
    assert len(events.Scalars("learning_rate/network")) == STEPS


def test_a_missing_tensorboard_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("training.progress.import_module", missing)
    with pytest.raises(TrackerError, match=r"scentd\[track\]"):
        make_tracker("tensorboard", tmp_path)
