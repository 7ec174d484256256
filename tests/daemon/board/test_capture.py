"""Captures: so many seconds of a live board, kept whole and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.board.capture import (
    CaptureEndedError,
    CaptureProgress,
    capture_from_history,
    capture_from_port,
)
from daemon.board.history import History, ReadingSpan
from daemon.calibrate.captures import INDEX, MAX_CAPTURES, Captures, CapturesError
from daemon.config.settings import SourceConfig
from daemon.system.signals import StopEvent
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import Board, Odours


def readings(seconds: int) -> ReadingSpan:
    t_ms = np.arange(seconds, dtype=np.int64) * 1000
    return ReadingSpan(np.full((seconds, 12), 5, np.float32), t_ms)


def test_the_next_seconds_of_the_board_are_taken_from_a_port(tmp_path: Path) -> None:
    shown: list[CaptureProgress] = []
    link = tmp_path / "ttySIM"
    with SimulatedBoard(Odours(((None, 300),)), link=link, speed=50, wait_for_listener=True):
        stretch = capture_from_port(
            SourceConfig(port=str(link)), 90.0, StopEvent(after_s=60), shown.append
        )
    assert stretch.seconds == pytest.approx(90.0, abs=1.5)
    assert stretch.rate_hz == pytest.approx(1.0, rel=0.02)
    assert [item.seconds for item in shown] == sorted(item.seconds for item in shown)


def test_a_silent_port_is_no_capture(board: Board) -> None:
    source = SourceConfig(port=str(board.link))
    with pytest.raises(CaptureEndedError, match="the board sent nothing"):
        capture_from_port(source, 90.0, StopEvent(after_s=0.5), lambda _taken: None)


def test_a_board_that_goes_away_takes_its_capture_along(tmp_path: Path) -> None:
    link = tmp_path / "ttySIM"
    with (
        SimulatedBoard(
            Odours(((None, 30),)),
            link=link,
            speed=50,
            wait_for_listener=True,
            faults="unplug@20:900",
        ),
        pytest.raises(CaptureEndedError, match=r"went away after \d+ s of the 90 s asked for"),
    ):
        capture_from_port(
            SourceConfig(port=str(link)), 90.0, StopEvent(after_s=60), lambda _taken: None
        )


def test_a_board_that_falls_silent_at_the_port_ends_the_capture(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.board.capture.CAPTURE_TIMEOUT_S", 1.0)
    stop = StopEvent(after_s=60)
    with pytest.raises(CaptureEndedError, match="the board sent nothing"):
        capture_from_port(SourceConfig(port=str(board.link)), 90.0, stop, lambda _taken: None)
    assert not stop.is_set()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_next_seconds_of_a_running_service_begin_with_the_question() -> None:
    history, clock = History(), Clock()
    for second in range(50):
        history.push(second * 1000, np.full(12, second, np.float32))
    steps = capture_from_history(history, 20.0, clock)
    told = []
    stretch = None
    for second in range(50, 90):
        try:
            told.append(next(steps).seconds)
        except StopIteration as end:
            stretch = end.value
            break
        clock.now_s += 1.0
        history.push(second * 1000, np.full(12, second, np.float32))
    assert stretch is not None
    assert stretch.t_ms.tolist() == [second * 1000 for second in range(50, 70)]
    assert told == [float(second) for second in range(20)]


def test_a_board_that_falls_silent_ends_the_capture() -> None:
    history, clock = History(), Clock()
    steps = capture_from_history(history, 20.0, clock)
    next(steps)
    clock.now_s = 31.0
    with pytest.raises(CaptureEndedError, match="sent nothing for 30 s"):
        next(steps)


def test_captures_are_found_again_and_the_oldest_clean_air_gives_way(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "calibration")
    assert captures.all() == ()
    for seconds in range(61, 61 + MAX_CAPTURES["baseline"]):
        captures.keep(readings(seconds).write, "baseline", None, seconds)
    captures.keep(readings(90).write, "reference", "mint", 89.0)
    captures.keep(readings(91).write, "reference", "mint", 90.0)
    newest = captures.keep(readings(70).write, "baseline", None, 69.0)
    found = Captures(tmp_path / "calibration")
    kept = found.baselines()
    assert kept[-1] == newest
    assert [item.seconds for item in kept[:-1]] == [*range(62, 61 + MAX_CAPTURES["baseline"])]
    assert [(item.label, item.seconds) for item in found.references()] == [
        ("mint", 89.0),
        ("mint", 90.0),
    ]
    assert len(found.recording(found.references()[1])) == 91
    assert len(list((tmp_path / "calibration").glob("*.csv"))) == MAX_CAPTURES["baseline"] + 2


def test_references_are_forgotten_by_label_and_all_together(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    for label in ("mint", "lemon", "mint"):
        captures.keep(readings(60).write, "reference", label, 59.0)
    with pytest.raises(CapturesError, match=r"no reference of 'tea'\. There are: lemon, mint"):
        captures.forget("tea")
    assert len(captures.forget("mint")) == 2
    assert [item.label for item in captures.all()] == ["lemon"]
    captures.forget()
    assert captures.all() == ()
    assert list(tmp_path.glob("*.csv")) == []


@pytest.mark.parametrize("text", ["captures: [", "captures: {}", "format: 9\ncaptures: []"])
def test_a_damaged_index_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(CapturesError, match="Move it away"):
        Captures(tmp_path).all()
