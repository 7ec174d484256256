"""Readings against lines: every loss that no fault explains is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daemon.soak.observed import Boot, MadeMessage, Opening
from daemon.soak.readings import ReadingReport, compare_readings
from hardware.encoding import encode_scent
from hardware.simulator.board import SentLine
from hardware.simulator.faults import FaultKind
from tests.sandbox import QUIET_ROW

STEP_S = 0.1


def line(number: int, *faults: FaultKind, data: bytes | None = None, plugged: int = 1) -> SentLine:
    """Return the `number`th line, sent that many steps after 100 s."""
    values = np.array(QUIET_ROW, dtype=np.float32)
    sent = encode_scent(number, number * 1000, values) if data is None else data
    return SentLine(100 + STEP_S * number, plugged, number, sent, True, frozenset(faults))


def boot(*numbers: int, until_s: float = 200.0, opened_s: float = 99.9) -> Boot:
    """Return a boot that decoded these lines, each at once."""
    made = [
        MadeMessage("sample", seq, 100 + STEP_S * number + 0.01, number)
        for seq, number in enumerate(numbers)
    ]
    return Boot("a" * 16, made, [Opening(0, opened_s)], ended_s=(until_s, until_s))


def compare(lines: list[SentLine], *boots: Boot) -> ReadingReport:
    report, _ = compare_readings(boots, lines)
    return report


def test_lines_that_all_became_readings_are_no_complaint() -> None:
    report = compare([line(n) for n in range(50)], boot(*range(50)))
    assert (report.sent, report.decoded, report.missing, report.unread) == (50, 50, 0, 0)
    assert report.complaints == []


def test_every_third_reading_that_is_dropped_is_missing() -> None:
    kept = [n for n in range(51) if n % 3]
    report = compare([line(n) for n in range(50)], boot(*[n for n in kept if n < 50]))
    assert report.missing >= 15
    assert "readings that the board sent were not decoded" in report.complaints[0]


def test_what_a_fault_destroyed_is_no_complaint() -> None:
    lines = [line(n) for n in range(50)]
    lines[20] = line(20, FaultKind.TRUNCATE, data=lines[20].data[:30])
    lines[30] = line(30, FaultKind.DROP, data=lines[30].data.replace(b"5", b""))
    report = compare(lines, boot(*[n for n in range(50) if n not in {20, 30}]))
    assert report.destroyed == {"truncate": 1, "drop": 1}
    assert report.complaints == []


def test_the_line_after_too_many_without_an_end_is_destroyed_with_them() -> None:
    cut = [line(n, FaultKind.TRUNCATE, data=line(n).data[:60]) for n in range(10, 110)]
    lines = [*(line(n) for n in range(10)), *cut, *(line(n) for n in range(110, 130))]
    report = compare(lines, boot(*range(10), *range(111, 130)))
    assert report.destroyed == {"truncate": 101}
    assert report.complaints == []


def test_numbers_that_two_reboots_give_again_are_taken_for_repeats() -> None:
    sent = [*range(20), *range(5), *range(30)]  # it reboots after 20 lines, and after 5 more
    lines = [replace(line(n), sent_s=100 + STEP_S * place) for place, n in enumerate(sent)]
    decoded = [*range(25), *range(30, 55)]
    made = [
        MadeMessage("sample", seq, lines[place].sent_s + 0.01, lines[place].frame_seq)
        for seq, place in enumerate(decoded)
    ]
    report = compare(lines, Boot("a" * 16, made, [Opening(0, 99.9)], ended_s=(200.0, 200.0)))
    assert (report.missing, report.destroyed) == (0, {"two reboots": 5})


def test_a_damaged_line_that_can_be_read_must_be_read() -> None:
    lines = [line(n) for n in range(50)]
    lines[20] = line(20, FaultKind.GARBAGE, data=b"\x00\xff" + lines[20].data)
    assert compare(lines, boot(*range(50))).complaints == []
    assert compare(lines, boot(*[n for n in range(50) if n != 20])).missing == 1


def test_only_lines_at_the_edge_of_a_connection_may_be_unread() -> None:
    lines = [line(n) for n in range(100)]
    report = compare(lines, boot(*range(40), until_s=104.2))
    assert report.missing > 40
    report = compare(lines[:43], boot(*range(2, 40), until_s=104.2))
    assert (report.unread, report.missing) == (5, 0)


def test_a_reading_that_was_never_sent_is_invented() -> None:
    lines = [line(n) for n in range(50)]
    report = compare(lines, boot(*range(30), 1000, *range(30, 50)))
    assert report.invented == 1


def test_readings_of_a_board_that_was_replugged_are_matched_with_its_lines() -> None:
    lines = [line(n) for n in range(50)]
    values = np.array(QUIET_ROW, dtype=np.float32)
    lines += [
        SentLine(107 + STEP_S * n, 2, n, encode_scent(n, n * 1000, values), True, frozenset())
        for n in range(50)
    ]
    once = boot(*range(50))
    again = [MadeMessage("sample", 50 + n, 107 + STEP_S * n + 0.01, n) for n in range(50)]
    both = Boot("a" * 16, [*once.made, *again], [Opening(0, 99.9), Opening(50, 106.9)])
    report, (readings,) = compare_readings([both], lines)
    assert report.complaints == []
    assert [reading.place for reading in readings] == list(range(100))
    assert readings[50].frame.restarted
