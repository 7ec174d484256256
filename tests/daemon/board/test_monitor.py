"""The board monitor: each trouble is returned once, with its reason, and its end."""

from __future__ import annotations

from dataclasses import replace

from daemon.board.monitor import (
    NONSENSE_AFTER_S,
    SILENT_AFTER_S,
    BoardMonitor,
    BoardState,
    Recovery,
    Trouble,
)
from hardware.protocol import LineCounts, LineDecoder

NOTHING = LineCounts()
ONE = LineCounts(lines=1, frames=1)


def monitored_board() -> BoardMonitor:
    """Return the monitor of a board at 1 Hz whose first reading was at 1 s."""
    monitor = BoardMonitor(115200)
    monitor.port_opened(0.0, NOTHING)
    monitor.add_bytes(90)
    assert monitor.add_reading(1.0, ONE) is None
    return monitor


def test_a_reading_makes_the_board_online() -> None:
    monitor = BoardMonitor(115200)
    assert (monitor.state, monitor.present) == (BoardState.ABSENT, False)
    monitor.port_opened(0.0, NOTHING)
    assert (monitor.state, monitor.present) == (BoardState.SILENT, False)
    monitor.add_reading(1.0, ONE)
    assert (monitor.state, monitor.present, monitor.losses) == (BoardState.ONLINE, True, 0)


def test_an_unplugged_board_is_reported_at_once_and_once() -> None:
    monitor = monitored_board()
    assert monitor.port_closed(2.0, "went away") == Trouble("went away", is_new=True)
    assert monitor.port_closed(3.0, "went away") is None
    assert monitor.port_closed(4.0, "busy") == Trouble("busy", is_new=False)
    assert (monitor.state, monitor.why, monitor.losses) == (BoardState.ABSENT, "busy", 1)


def test_the_first_reading_after_trouble_is_the_recovery() -> None:
    monitor = monitored_board()
    monitor.port_closed(2.0, "went away")
    monitor.port_opened(4.0, ONE)
    assert not monitor.present
    assert monitor.add_reading(5.0, LineCounts(lines=2, frames=2)) == Recovery(3.0)
    assert monitor.add_reading(6.0, LineCounts(lines=3, frames=3)) is None
    assert (monitor.present, monitor.why, monitor.openings) == (True, None, 2)


def test_silence_is_reported_after_some_periods_and_once() -> None:
    monitor = monitored_board()
    assert monitor.check_silence(1.0 + SILENT_AFTER_S - 0.1, ONE, 1.0) is None
    trouble = monitor.check_silence(1.0 + SILENT_AFTER_S, ONE, 1.0)
    assert isinstance(trouble, Trouble)
    assert trouble.is_new
    assert "sent nothing in 5 s" in trouble.why
    assert monitor.check_silence(20.0, ONE, 1.0) is None
    assert monitor.state is BoardState.SILENT


def test_the_limit_of_silence_follows_the_boards_rate() -> None:
    monitor = monitored_board()
    assert monitor.check_silence(30.0, ONE, 0.1) is None
    assert monitor.check_silence(36.0, ONE, 0.1) is not None


def test_nonsense_is_described_by_the_bytes_since_the_last_reading() -> None:
    monitor = monitored_board()
    monitor.add_bytes(500)
    trouble = monitor.check_silence(7.0, LineCounts(lines=9, frames=1, binary=8), 1.0)
    assert trouble is not None
    assert "500 bytes in 6 s" in trouble.why
    assert "8 binary" in trouble.why
    assert monitor.state is BoardState.NONSENSE


def test_a_header_that_cannot_be_used_is_given_as_the_reason() -> None:
    decoder = LineDecoder()
    decoder.feed(b"NO2 (ppm),C2H5OH,VOC,CO\n1,2,3,4\n5,6,7,8\n")
    monitor = monitored_board()
    monitor.add_bytes(500)
    counts = replace(decoder.counts, frames=1)  # the reading before
    trouble = monitor.check_silence(7.0, counts, 1.0, decoder.problem)
    assert trouble is not None
    assert "column 'NO2 (ppm)' has the unit 'ppm'" in trouble.why


def test_a_board_has_more_time_for_its_first_reading() -> None:
    monitor = BoardMonitor(115200)
    monitor.port_opened(0.0, NOTHING)
    assert monitor.check_silence(NONSENSE_AFTER_S - 0.1, NOTHING, None) is None
    assert monitor.check_silence(NONSENSE_AFTER_S, NOTHING, None) is not None


def test_a_board_that_returns_silent_is_reported_again() -> None:
    monitor = monitored_board()
    monitor.port_closed(2.0, "went away")
    monitor.port_opened(3.0, ONE)
    trouble = monitor.check_silence(3.0 + NONSENSE_AFTER_S, ONE, 1.0)
    assert trouble is not None
    assert not trouble.is_new
    assert "sent nothing in 15 s" in trouble.why
    assert monitor.losses == 1
