"""The history: the newest readings, as sent, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.board.history import History, NoHistoryError
from hardware.recording import read_recording


def filled(readings: int, step_ms: int, seconds: float = 60.0) -> History:
    history = History(seconds)
    for number in range(readings):
        history.push(number * step_ms, np.full(12, number, np.float32))
    return history


@pytest.mark.parametrize("step_ms", [50, 100, 1000, 10_000])
def test_it_keeps_the_newest_minute_at_any_rate(step_ms: int) -> None:
    readings = 200_000 // step_ms + 7
    kept = filled(readings, step_ms).since(-1)
    expected = np.arange(readings)[
        np.arange(readings) * step_ms >= (readings - 1) * step_ms - 60_000
    ]
    # The fastest board fills the ring: one reading less than a minute holds with both its ends.
    expected = expected[-1200:]
    np.testing.assert_array_equal(kept.t_ms, expected * step_ms)
    np.testing.assert_array_equal(kept.values[:, 5], expected)
    assert kept.rate_hz == pytest.approx(1000 / step_ms)


def test_the_last_seconds_are_counted_in_the_boards_time() -> None:
    kept = filled(50, 1000).last(20.0)
    assert kept.t_ms.tolist() == [second * 1000 for second in range(30, 50)]


def test_later_readings_do_not_change_a_span() -> None:
    history = filled(50, 1000)
    kept = history.last(20.0)
    before = kept.values.copy()
    for number in range(50, 200):
        history.push(number * 1000, np.full(12, -1, np.float32))
    np.testing.assert_array_equal(kept.values, before)


def test_a_span_is_written_as_a_recording_of_the_same_readings(tmp_path: Path) -> None:
    kept = filled(50, 1000).last(20.0)
    kept.write(tmp_path / "kept.csv")
    recording = read_recording(tmp_path / "kept.csv")
    np.testing.assert_array_equal(recording.values, kept.values)
    assert recording.timestamp_ms is not None
    np.testing.assert_array_equal(recording.timestamp_ms, kept.t_ms)


def test_the_error_for_missing_readings_says_how_many_there_are() -> None:
    with pytest.raises(NoHistoryError, match="only 9 s of readings"):
        filled(10, 1000).last(30.0)
    with pytest.raises(NoHistoryError, match="only 0 s of readings"):
        History().last(30.0)
    with pytest.raises(NoHistoryError, match="remembers 60 s"):
        filled(100, 1000).last(90.0)
