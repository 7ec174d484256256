"""Captures of so many seconds of a live board, from the port and from the history."""

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
from daemon.board.history import History
from daemon.config.settings import SourceConfig
from daemon.system.signals import StopEvent
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import Board, Odours


def test_the_next_seconds_are_captured_from_a_port(tmp_path: Path) -> None:
    shown: list[CaptureProgress] = []
    link = tmp_path / "ttySIM"
    with SimulatedBoard(Odours(((None, 300),)), link=link, speed=50, wait_for_listener=True):
        span = capture_from_port(
            SourceConfig(port=str(link)), 90.0, StopEvent(after_s=60), shown.append
        )
    assert span.seconds == pytest.approx(90.0, abs=1.5)
    assert span.rate_hz == pytest.approx(1.0, rel=0.02)
    assert [item.seconds for item in shown] == sorted(item.seconds for item in shown)


def test_a_capture_from_a_silent_port_fails(board: Board) -> None:
    source = SourceConfig(port=str(board.link))
    with pytest.raises(CaptureEndedError, match="the board sent nothing"):
        capture_from_port(source, 90.0, StopEvent(after_s=0.5), lambda _taken: None)


def test_a_capture_fails_when_the_board_is_unplugged(tmp_path: Path) -> None:
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


def test_a_capture_from_a_port_ends_when_the_board_falls_silent(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.board.capture.CAPTURE_TIMEOUT_S", 1.0)
    stop = StopEvent(after_s=60)
    with pytest.raises(CaptureEndedError, match="the board sent nothing"):
        capture_from_port(SourceConfig(port=str(board.link)), 90.0, stop, lambda _taken: None)
    assert not stop.is_set()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_capture_from_the_history_begins_with_the_request() -> None:
    history, clock = History(), Clock()
    for second in range(50):
        history.push(second * 1000, np.full(12, second, np.float32))
    steps = capture_from_history(history, 20.0, clock)
    progress = []
    span = None
    for second in range(50, 90):
        try:
            progress.append(next(steps).seconds)
        except StopIteration as end:
            span = end.value
            break
        clock.now_s += 1.0
        history.push(second * 1000, np.full(12, second, np.float32))
    assert span is not None
    assert span.t_ms.tolist() == [second * 1000 for second in range(50, 70)]
    assert progress == [float(second) for second in range(20)]


def test_a_capture_from_the_history_ends_when_the_board_falls_silent() -> None:
    history, clock = History(), Clock()
    steps = capture_from_history(history, 20.0, clock)
    next(steps)
    clock.now_s = 31.0
    with pytest.raises(CaptureEndedError, match="sent nothing for 30 s"):
        next(steps)
