"""What ails a board: each trouble told once, with its reason, and its end."""

from __future__ import annotations

from daemon.board.monitor import (
    NONSENSE_AFTER_S,
    SILENT_AFTER_S,
    BoardMonitor,
    BoardState,
    Recovery,
    Trouble,
)
from hardware.protocol import LineCounts

NOTHING = LineCounts()
ONE = LineCounts(lines=1, frames=1)


def watching() -> BoardMonitor:
    """Return the watch over a board at 1 Hz whose first reading came at 1 s."""
    watch = BoardMonitor(115200)
    watch.port_opened(0.0, NOTHING)
    watch.add_bytes(90)
    assert watch.add_reading(1.0, ONE) is None
    return watch


def test_readings_make_it_online() -> None:
    watch = BoardMonitor(115200)
    assert (watch.state, watch.present) == (BoardState.ABSENT, False)
    watch.port_opened(0.0, NOTHING)
    assert (watch.state, watch.present) == (BoardState.SILENT, False)
    watch.add_reading(1.0, ONE)
    assert (watch.state, watch.present, watch.losses) == (BoardState.ONLINE, True, 0)


def test_an_unplugging_is_trouble_at_once_and_told_once() -> None:
    watch = watching()
    assert watch.port_closed(2.0, "went away") == Trouble("went away", is_new=True)
    assert watch.port_closed(3.0, "went away") is None
    assert watch.port_closed(4.0, "busy") == Trouble("busy", is_new=False)
    assert (watch.state, watch.why, watch.losses) == (BoardState.ABSENT, "busy", 1)


def test_the_first_reading_after_trouble_is_the_recovery() -> None:
    watch = watching()
    watch.port_closed(2.0, "went away")
    watch.port_opened(4.0, ONE)
    assert not watch.present
    assert watch.add_reading(5.0, LineCounts(lines=2, frames=2)) == Recovery(3.0)
    assert watch.add_reading(6.0, LineCounts(lines=3, frames=3)) is None
    assert (watch.present, watch.why, watch.openings) == (True, None, 2)


def test_silence_is_trouble_after_some_periods_and_told_once() -> None:
    watch = watching()
    assert watch.check_silence(1.0 + SILENT_AFTER_S - 0.1, ONE, 1.0) is None
    told = watch.check_silence(1.0 + SILENT_AFTER_S, ONE, 1.0)
    assert isinstance(told, Trouble)
    assert told.is_new
    assert "sent nothing in 5 s" in told.why
    assert watch.check_silence(20.0, ONE, 1.0) is None
    assert watch.state is BoardState.SILENT


def test_a_slow_board_is_given_its_time() -> None:
    watch = watching()
    assert watch.check_silence(30.0, ONE, 0.1) is None
    assert watch.check_silence(36.0, ONE, 0.1) is not None


def test_nonsense_after_readings_is_told_by_what_came_since() -> None:
    watch = watching()
    watch.add_bytes(500)
    told = watch.check_silence(7.0, LineCounts(lines=9, frames=1, binary=8), 1.0)
    assert told is not None
    assert "500 bytes in 6 s" in told.why
    assert "8 binary" in told.why
    assert watch.state is BoardState.NONSENSE


def test_a_board_that_never_spoke_is_given_longer() -> None:
    watch = BoardMonitor(115200)
    watch.port_opened(0.0, NOTHING)
    assert watch.check_silence(NONSENSE_AFTER_S - 0.1, NOTHING, None) is None
    assert watch.check_silence(NONSENSE_AFTER_S, NOTHING, None) is not None


def test_a_board_that_comes_back_mute_is_told_as_the_new_trouble_that_it_is() -> None:
    watch = watching()
    watch.port_closed(2.0, "went away")
    watch.port_opened(3.0, ONE)
    told = watch.check_silence(3.0 + NONSENSE_AFTER_S, ONE, 1.0)
    assert told is not None
    assert not told.is_new
    assert "sent nothing in 15 s" in told.why
    assert watch.losses == 1
