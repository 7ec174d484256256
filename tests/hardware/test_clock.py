"""Columns of the time: their unit from the heading or the values, and what stays unclear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.cells import Comma
from hardware.clock import Clock, ClockReader, clock_name, infer_clock, stated_clock

ROWS = 60


@pytest.mark.parametrize(
    ("heading", "unit"),
    [
        ("t", None),
        ("timestamp_ms", "ms"),
        ("time(ms)", "ms"),
        ("timestamp (ms)", "ms"),
        ("millis", "ms"),
        ("Time [s]", "s"),
        ("elapsed_s", "s"),
        ("micros", "us"),
        ("Elapsed Time (seconds)", "s"),
        ("timestamp", None),
        ("Date", None),
        ("Time (hh:mm:ss)", None),
    ],
)
def test_a_heading_names_a_time_and_perhaps_its_unit(heading: str, unit: str | None) -> None:
    found = clock_name(heading)
    assert found is not None
    assert found.unit == unit


@pytest.mark.parametrize(
    "heading", ["Temperature", "T", "s", "NO2", "time_constant", "label", "ms2"]
)
def test_other_headings_name_no_time(heading: str) -> None:
    assert clock_name(heading) is None


def times(texts: list[str], heading_unit: str | None = None) -> list[int]:
    """Return the milliseconds of a column since its first row, as a file's reader takes them."""
    clock = infer_clock(texts, None if heading_unit is None else stated_clock(heading_unit))
    assert clock is not None
    reader = ClockReader(clock)
    found = [reader.read(text.encode(), Comma.LIKELY) for text in texts]
    assert None not in found
    return [
        round(value - found[0]) for value in found if value is not None and found[0] is not None
    ]


TENTHS = [f"{number / 10:.1f}" for number in range(ROWS)]


@pytest.mark.parametrize(
    ("texts", "heading_unit"),
    [
        ([str(number * 100) for number in range(ROWS)], None),
        ([str(number * 100_000) for number in range(ROWS)], None),
        (TENTHS, None),
        (TENTHS, "s"),
        (TENTHS, "ms"),
        ([text.replace(".", ",") for text in TENTHS], None),
        ([f"{1_735_732_800 + number / 10:.1f}" for number in range(ROWS)], None),
        ([f"{1_735_732_800_000 + number * 100}" for number in range(ROWS)], None),
        ([f"{45_000 + number / 864_000:.12f}" for number in range(ROWS)], None),
        ([f"2025-01-01T12:00:{number / 10:06.3f}Z" for number in range(ROWS)], None),
        ([f"01.02.2025 12:00:{number / 10:04.1f}" for number in range(ROWS)], None),
        ([f"1/2/2025 3:59:{number / 10:04.1f} PM" for number in range(ROWS)], None),
        ([str(1_735_732_800_000_000_000 + n * 100_000_000) for n in range(ROWS)], None),
        ([f"{0.5 + number / 864_000:.12f}" for number in range(ROWS)], None),
        ([f"12:00:{n // 10:02d}:{n % 10}00" for n in range(ROWS)], None),
        ([f"01-Jan-2025 12:00:{n // 10:02d}.{n % 10}" for n in range(ROWS)], None),
        ([f"Wed Jan  1 12:00:{n // 10:02d} 2025" for n in range(ROWS)], None),
        ([f"00:{number / 10:04.1f}" for number in range(ROWS)], None),
        ([str(number // 10) for number in range(ROWS)], None),
        ([str(1_735_732_800 + (number + 6) // 10) for number in range(ROWS)], None),
        ([f"2025-01-01 12:00:{number // 10:02d}" for number in range(ROWS)], None),
    ],
)
def test_ten_readings_a_second_stay_ten_in_every_notation(
    texts: list[str], heading_unit: str | None
) -> None:
    assert times(texts, heading_unit) == [number * 100 for number in range(ROWS)]


def test_a_time_of_day_goes_on_after_midnight() -> None:
    assert times(["23:59:58", "23:59:59", "00:00:00", "00:00:01"]) == [0, 1000, 2000, 3000]


def test_whole_seconds_under_a_heading_of_milliseconds_are_seconds() -> None:
    assert times([str(number) for number in range(20)], "ms")[:3] == [0, 1000, 2000]


def test_a_slow_recording_keeps_the_unit_of_its_heading() -> None:
    assert times(["0", "60", "120"], "s") == [0, 60_000, 120_000]


@pytest.mark.parametrize("texts", [["a", "b"], ["5", "5", "5"], ["20250101", "apple"], []])
def test_values_that_tell_no_time_are_unclear(texts: list[str]) -> None:
    assert infer_clock(texts, None) is None


def test_a_live_board_whose_values_contradict_its_heading_is_distrusted() -> None:
    reader = ClockReader(stated_clock("ms"))
    reader.read(b"0", Comma.UNKNOWN)
    assert not reader.distrusted
    reader.read(b"0.1", Comma.UNKNOWN)
    assert reader.distrusted


@given(st.lists(st.text(max_size=30), max_size=20), st.sampled_from([None, "s", "ms", "iso"]))
def test_any_texts_are_a_clock_or_unclear(texts: list[str], unit: str | None) -> None:
    clock = infer_clock(texts, None if unit is None else stated_clock(unit))
    reader = ClockReader(clock or Clock(1.0))
    for text in texts:
        reader.read(text.encode("utf-8", "replace"), Comma.LIKELY)
