"""Ground floor: a table's column of the time: its name, its unit, and its values in milliseconds.

May import the reader of cells and the standard library. Pure. The unit comes from the heading, or,
in a file, from the values: gas-sensor boards send between one reading in 15 s and 50 a second, and
within that range the step between two rows tells seconds from milliseconds from microseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from hardware.cells import Comma, cell_text, parse_cell
from hardware.units import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MS = 2.0**53
"""Integers above it are not exact in the float they arrive as."""

_FACTORS_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "min": 60_000.0, "h": 3_600_000.0}
_DAY_MS = 86_400_000.0
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "\u03bcs", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), "ns"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
}
_NAMES = frozenset(
    [
        *("timestamp", "time", "time_stamp", "ts", "date", "datetime", "date_time", "timestamps"),
        *("elapsed", "elapsed_time", "time_elapsed", "uptime", "epoch", "epoch_time", "unix"),
        *("unixtime", "unix_time", "unix_timestamp", "clock", "device_time", "board_time"),
        *("local_time", "localtime", "utc", "utc_time", "time_utc", "created_at", "recorded_at"),
        *("since_start", "time_since_start", "runtime", "run_time", "device", "t"),
        *("timestamp_since_poweron", "time_since_poweron", "sample_time", "received", "datum"),
        *("zeit", "uhrzeit", "zeitstempel"),
    ]
)
_ONLY_WITH_UNIT = frozenset({"t", "device", "received", "clock"})
_DATE_NAMES = frozenset({"date", "datum"})

SHORTEST_MS, LONGEST_MS = 20.0, 15_000.0
"""Time between two readings of a board; see the module's first paragraph."""
IMPOSSIBLE_MS = 5.0
"""A board that sent a reading this often would send 200 a second: the unit is another one."""
_CONTRADICTING_STEPS = 8
"""Steps of whole numbers that are needed to contradict a unit that the heading states."""
_AGREE = 0.9
"""Share of the values that must be numbers, or dates."""
_COARSE_ROWS = 1.5
"""Mean number of rows with one time from which on the column is coarser than the readings."""
_COARSE_MS = 100.0
"""Least step of such a column: clocks are written in tenths of a second, or more coarsely."""
_COARSE_LEAST_ROWS = 16

_EPOCHS = (
    # 1985 to 2128; a day counts from 1900 in spreadsheets.
    (5e8, 5e9, "s", 1000.0),
    (5e11, 5e12, "ms", 1.0),
    (5e14, 5e15, "us", 1e-3),
    (5e17, 5e18, "ns", 1e-6),
)
_SPREADSHEET_DAYS = (31_000.0, 84_000.0)
_SPREADSHEET_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)

_DATE = re.compile(
    r"(?:(?P<ymd>\d{4}[-/.]\d{1,2}[-/.]\d{1,2})|(?P<other>\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}))?"
    r"[T,; ]*"
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,:](?P<fraction>\d+))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?\s*(?:Z|UTC|GMT)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED_MONTHS = (
    "%d-%b-%Y %H:%M:%S",
    "%d %b %Y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S.%f",
    "%b %d, %Y %H:%M:%S",
    "%b %d %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",  # as C and Arduino's libraries print it
)
_MINUTES = re.compile(r"(\d{1,3}):(\d{2})[.,](\d+)")


@dataclass(frozen=True, slots=True)
class ClockName:
    """A heading that names a time.

    Attributes
    ----------
    unit: "s", "ms", "us", "ns", "min" or "h", None where the heading does not say.
    date: whether it names a date, which another column completes by the time of day.
    """

    unit: str | None
    date: bool = False


def clock_name(heading: str) -> ClockName | None:
    """Return what a heading says of the time, None if it names none."""
    if normalised(heading) == "t":  # an upper-case T is a temperature
        return ClockName(None)
    text = normalised(heading).casefold().replace("(", " ").replace(")", " ")
    text = text.replace("[", " ").replace("]", " ").replace("/", " ").replace(",", " ")
    words = re.sub(r"[\s_.:-]+", "_", text.strip()).strip("_")
    if words in _NAMES - _ONLY_WITH_UNIT:
        return ClockName(None, words in _DATE_NAMES)
    if words in _UNITS and len(words) > 1:  # "millis", "ms", "seconds"
        return ClockName(_UNITS[words])
    base, _, last = words.rpartition("_")
    base = base.removesuffix("_in")
    if base in _NAMES and last in _UNITS:
        return ClockName(_UNITS[last])
    first = words.partition("_")[0]
    if first in {"timestamp", "time", "datetime", "date"} and last not in _UNITS:
        # "Time (hh:mm:ss)", "timestamp (UTC)"; not "time_constant".
        known = {"hh", "mm", "ss", "utc", "iso", "iso8601", "local", "gmt", "yyyy", "dd", "unix"}
        rest = words.split("_")[1:]
        if all(word in known | _NAMES for word in rest):
            return ClockName(None)
    return None


def time_unit(text: str) -> str | None:
    """Return the unit of time that a text names, None if it names none."""
    return _UNITS.get(normalised(text).casefold())


@dataclass(frozen=True, slots=True)
class Clock:
    """How the values of a column become milliseconds.

    Attributes
    ----------
    factor_ms: milliseconds in one unit of a number; None for dates and times of day.
    days: whether numbers are a spreadsheet's days since 1900.
    spread_ms: time between the rows that carry one value, where the column is coarser than the
        readings; 0 otherwise.
    resolution_ms: step of such a column.
    missing_rows: rows that the first value lacks, because the recording began between two values.
    trusted: False for a unit known from the heading alone, which values may contradict.
    words: the unit, for messages.
    """

    factor_ms: float | None
    days: bool = False
    spread_ms: float = 0.0
    resolution_ms: float = 0.0
    missing_rows: int = 0
    trusted: bool = True
    words: str = ""

    @property
    def dated(self) -> bool:
        """Whether the values are dates in text."""
        return self.factor_ms is None


def stated_clock(unit: str, *, trusted: bool = False) -> Clock:
    """Return the clock of a unit that a heading or a mapping states; "iso" stands for dates."""
    if unit == "iso":
        return Clock(None, words="dates", trusted=trusted)
    return Clock(_FACTORS_MS[unit], words=unit, trusted=trusted)


def clock_ms(text: str, clock: Clock, comma: Comma = Comma.LIKELY) -> float | None:
    """Return one value in milliseconds, None where it is none."""
    if clock.factor_ms is None:
        return _date_ms(text)
    cell = parse_cell(text.encode("utf-8", "replace"), comma)
    if cell is None or cell.unit or not abs(cell.number) < math.inf:
        return None
    milliseconds = cell.number * clock.factor_ms
    if clock.days:
        milliseconds += _SPREADSHEET_EPOCH.timestamp() * 1000.0
    return milliseconds if abs(milliseconds) <= MAX_MS else None


def _number(text: str) -> float | None:
    cell = parse_cell(text.encode("utf-8", "replace"), Comma.LIKELY)
    return None if cell is None or cell.unit or not math.isfinite(cell.number) else cell.number


def infer_clock(texts: Sequence[str], stated: Clock | None) -> Clock | None:
    """Return the clock of a column from its first values, None where they leave it unclear.

    A unit that the heading states holds unless it makes the board faster than any.
    """
    texts = [text for text in texts if text.strip()]
    if stated is not None and stated.trusted:
        times = [value for text in texts if (value := clock_ms(text, stated)) is not None]
        fits = len(times) >= _AGREE * len(texts)
        return _with_resolution(stated, times) if fits and times else None
    dates = Clock(None, words="dates and times of day")
    numbers = [number for text in texts if (number := _number(text)) is not None]
    days = [value for text in texts if (value := clock_ms(text, dates)) is not None]
    if numbers and len(numbers) >= _AGREE * len(texts):
        clock = _numeric_clock(numbers, stated)
    else:
        clock = dates if days and len(days) >= _AGREE * len(texts) else None
    if clock is None:
        return None
    times = [value for text in texts if (value := clock_ms(text, clock)) is not None]
    return _with_resolution(replace(clock, trusted=True), times)


def _numeric_clock(values: list[float], stated: Clock | None) -> Clock | None:
    steps = [after - before for before, after in pairwise(values)]
    forward = [step for step in steps if step > 0]
    step = median(forward) if forward else None
    if stated is not None and stated.factor_ms is not None:
        doubtful = step is not None and step * stated.factor_ms < IMPOSSIBLE_MS
        whole = all(value.is_integer() for value in values)
        if step is None or not doubtful or (whole and len(forward) < _CONTRADICTING_STEPS):
            return stated
        return _clock_of_step(step) or stated
    middle = abs(median(values))
    for low, high, words, factor_ms in _EPOCHS:
        if low <= middle <= high:
            return Clock(factor_ms, words=f"{words} since 1970")
    low, high = _SPREADSHEET_DAYS
    if low <= middle <= high and step is not None and step < LONGEST_MS / _DAY_MS:
        return Clock(_DAY_MS, days=True, words="days of a spreadsheet")
    if middle <= 1 and step is not None and SHORTEST_MS <= step * _DAY_MS <= LONGEST_MS / 10:
        return Clock(_DAY_MS, words="fractions of a day")
    return None if step is None else _clock_of_step(step)


def _clock_of_step(step: float) -> Clock | None:
    for unit in ("s", "ms", "us", "ns"):
        if SHORTEST_MS <= step * _FACTORS_MS[unit] <= LONGEST_MS:
            return Clock(_FACTORS_MS[unit], words=unit)
    return None


def _with_resolution(clock: Clock, times: list[float]) -> Clock:
    """Return the clock with the time between rows that share one value."""
    changes = [
        number for number, _ in enumerate(times) if number and times[number] != times[number - 1]
    ]
    few = len(times) < _COARSE_LEAST_ROWS or not changes
    if few or len(times) / (len(changes) + 1) < _COARSE_ROWS:
        return clock
    forward = [times[at] - times[at - 1] for at in changes if times[at] > times[at - 1]]
    resolution = median(forward) if forward else 0.0
    if resolution < _COARSE_MS:
        return clock
    runs = [after - before for before, after in pairwise(changes)]
    rows = median(runs) if runs else float(changes[0])
    return replace(
        clock,
        spread_ms=resolution / max(rows, 1.0),
        resolution_ms=resolution,
        missing_rows=max(0, round(rows) - changes[0]),
    )


class ClockReader:
    """Reads one column's values in order.

    A unit that only the heading states is given up where the values contradict it; the rows have
    no time then, so that a live board's arrivals count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: float | None = None
        self._repeats = 0
        self._past_midnight_ms = 0.0
        self.distrusted = False

    def read(self, field: bytes, comma: Comma) -> float | None:
        """Return the time of a row in milliseconds, None where the row tells none."""
        clock = self._clock
        value = self._plain_ms(field, comma)
        if value is None:
            value = clock_ms(field.decode("utf-8", "replace"), clock, comma)
        if value is None:
            return None
        if clock.dated:
            value = self._unwrapped(value)
        latest, self._latest = self._latest, value
        if not clock.trusted and self._impossible(value, latest):
            self.distrusted = True
        if not clock.spread_ms:
            return value
        self._repeats = self._repeats + 1 if value == latest else 0
        if latest is None:
            self._repeats = clock.missing_rows
        return value + min(self._repeats * clock.spread_ms, clock.resolution_ms - 1.0)

    def _plain_ms(self, field: bytes, comma: Comma) -> float | None:
        """Return the time of a number without peculiarities: nearly every row has one."""
        clock = self._clock
        if clock.factor_ms is None or clock.days or comma is Comma.DECIMAL or b"_" in field:
            return None
        try:
            value = float(field) * clock.factor_ms
        except ValueError:
            return None
        return value if -MAX_MS <= value <= MAX_MS else None

    def _impossible(self, value: float, latest: float | None) -> bool:
        """Tell whether the values contradict a unit of milliseconds or less."""
        factor_ms = self._clock.factor_ms
        if factor_ms is None or factor_ms > 1.0:
            return False
        if factor_ms == 1.0 and not value.is_integer():
            return True
        return latest is not None and 0 < value - latest < IMPOSSIBLE_MS

    def _unwrapped(self, value: float) -> float:
        """Return a time of day that goes on after midnight."""
        value += self._past_midnight_ms
        if value < _DAY_MS * 2 and self._latest is not None and self._latest - value > _DAY_MS / 2:
            self._past_midnight_ms += _DAY_MS
            value += _DAY_MS
        return value


def _date_ms(text: str) -> float | None:
    """Return a date, a date with time or a time of day in milliseconds; of a date, since 1970.

    A date without a zone counts as UTC: only differences matter, and they must not jump where a
    clock is set to summer time.
    """
    text = cell_text(text.encode("utf-8", "replace"))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _other_date_ms(text)
    if len(text) <= len("20250101") or ("-" not in text and ":" not in text):
        return None  # "20250101" is a number
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment.timestamp() * 1000.0


def _other_date_ms(text: str) -> float | None:
    minutes = _MINUTES.fullmatch(text)  # a spreadsheet shows 00:01.2 for a minute and a second
    if minutes is not None:
        return (int(minutes[1]) * 60 + int(minutes[2]) + float(f"0.{minutes[3]}")) * 1000.0
    if any(month in text.casefold() for month in _MONTHS):
        return _named_month_ms(text)
    match = _DATE.fullmatch(text)
    if match is None or (match["hour"] is None and match["ymd"] is None and match["other"] is None):
        return None
    seconds = 0.0
    if match["hour"] is not None:
        hour = int(match["hour"])
        if match["half"]:
            hour = hour % 12 + 12 * (match["half"][0] in "pP")
        seconds = hour * 3600 + int(match["minute"]) * 60 + int(match["second"] or 0)
        seconds += float(f"0.{match['fraction'] or 0}")
    day = _day(match["ymd"], match["other"])
    if day is None:
        return None
    return (day + timedelta(seconds=seconds)).timestamp() * 1000.0


def _named_month_ms(text: str) -> float | None:
    for form in _NAMED_MONTHS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() * 1000.0
        except ValueError:
            continue
    return None


def _day(ymd: str | None, other: str | None) -> datetime | None:
    try:
        if ymd is not None:
            year, month, day = map(int, re.split(r"[-/.]", ymd))
            return datetime(year, month, day, tzinfo=UTC)
        if other is None:
            return datetime(1970, 1, 1, tzinfo=UTC)
        day, month, year = map(int, re.split(r"[-/.]", other))
        if month > 12:  # noqa: PLR2004 - months; American order
            day, month = month, day
        return datetime(year + 2000 if year < 100 else year, month, day, tzinfo=UTC)  # noqa: PLR2004
    except ValueError:
        return None
