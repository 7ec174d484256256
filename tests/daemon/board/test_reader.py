"""The reader's queue: what waits is given out at once, and not for ever."""

from __future__ import annotations

from daemon.board.port import Chunk
from daemon.board.reader import Reader

LINES = [Chunk(b"%d\n" % number, float(number)) for number in range(5)]


def reader_with_waiting_lines() -> Reader:
    reader = Reader()
    for chunk in LINES:
        reader._queue.put(chunk)
    return reader


def test_everything_that_waits_is_given_out_at_once() -> None:
    assert list(reader_with_waiting_lines().arrivals(0.0, 60.0)) == LINES


def test_other_work_gets_its_turn_after_a_while() -> None:
    reader = reader_with_waiting_lines()
    assert list(reader.arrivals(0.0, 0.0)) == LINES[:1]
    assert list(reader.arrivals(0.0, 60.0)) == LINES[1:]
