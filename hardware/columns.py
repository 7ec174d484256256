"""Ground floor: which columns of a table are which channels, by its header.

May import the channel table, units and the column of the time. Must know nothing of rows or files.
A header is understood, or refused with the reason; it is never taken for no header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from hardware.cells import MISSING
from hardware.channels import (
    CHANNEL_NAMES,
    CHANNELS,
    GROVE_INDICES,
    N_CHANNELS,
    Part,
    channel_index,
    find_channel,
)
from hardware.clock import Clock, ClockName, clock_name, stated_clock
from hardware.readings import parse_number
from hardware.units import AS_SENT, Scale, heading_scale, normalised

if TYPE_CHECKING:
    from collections.abc import Callable

TIMESTAMP_MS_COLUMN = "timestamp_ms"
_UPSTREAM_TIMESTAMP = "timestamp"

_WITH_UNIT = (
    re.compile(r"(?P<name>.*?)\s*[(\[{](?P<unit>[^()\[\]{}]*)[)\]}]"),
    re.compile(r"(?P<name>.*?)\s*[/,]\s*(?P<unit>[^/,]+)"),
    re.compile(r"(?P<name>.*?)[ _](?P<unit>[^ _]+)"),
)
_OTHER_INSTRUMENTS = frozenset(
    [
        *(
            "pm1",
            "pm10",
            "pm25",
            "pm4",
            "pm03",
            "pm05",
            "pm100",
            "co2",
            "eco2",
            "tvoc",
            "o3",
            "so2",
        ),
        *("nox", "no", "hcho", "ch2o", "nh3", "h2s", "ch4", "aqi", "iaq", "radon", "noise", "lux"),
    ]
)
"""What air quality instruments measure and this board does not; they have NO2, CO and VOC in ppb,
but no channel of ethanol."""
_ETHANOL = channel_index("C2H5OH")
_COMMENT = re.compile(r"^\s*(#|%|//)\s*")


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """One channel of a table.

    Attributes
    ----------
    field: position in a row.
    channel: index in the channel table.
    scale: to the channel table's unit.
    unit: as the heading or the mapping states it, empty where the values are taken as sent.
    """

    field: int
    channel: int
    scale: Scale = AS_SENT
    unit: str = ""


@dataclass(frozen=True)  # without slots, for the cached property
class Columns:
    """A header: which field of a row is what.

    Attributes
    ----------
    names: of all fields, without blank ones at the end.
    sources: the channels, the first of any that comes twice.
    repeated: further columns of a channel; a row is read where they agree with the first.
    clock_fields: fields of the time, two where date and time of day are apart; none without one.
    clock: what the heading states of the time, None where only the values can tell.
    rows_may_lack_clock: whether rows may come without the time column, as upstream's do.
    mapped: whether a mapping named the columns, so that each is described.
    """

    names: tuple[str, ...]
    sources: tuple[ColumnSource, ...]
    repeated: tuple[ColumnSource, ...] = ()
    clock_fields: tuple[int, ...] = ()
    clock: Clock | None = None
    rows_may_lack_clock: bool = False
    mapped: bool = False

    @cached_property
    def is_whole_table(self) -> bool:
        """Whether the sources are all channels in the table's order, as sent."""
        plain = [(source.channel, source.scale) for source in self.sources]
        return plain == [(index, AS_SENT) for index in range(N_CHANNELS)]

    @property
    def is_published_mixture(self) -> bool:
        """Whether the columns are the time and the Grove channels: recordings of mixtures."""
        plain = [(source.channel, source.scale) for source in self.sources]
        grove = [(index, AS_SENT) for index in GROVE_INDICES]
        return plain == grove and bool(self.clock_fields) and not (self.mapped or self.ignored)

    @cached_property
    def take(self) -> Callable[[list[bytes]], tuple[bytes, ...]]:
        """Returns the fields of a row that are channels, in the order of `sources`."""
        positions = [source.field for source in self.sources]
        if len(positions) == 1:
            return lambda fields: (fields[positions[0]],)
        return itemgetter(*positions)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the columns that are neither a channel nor the time."""
        used = {source.field for source in (*self.sources, *self.repeated)} | {*self.clock_fields}
        return tuple(name for field, name in enumerate(self.names) if field not in used)

    def without_clock(self) -> Columns:
        """Return the columns of rows that lack the time column, which comes first."""
        sources = tuple(
            ColumnSource(source.field - 1, source.channel, source.scale, source.unit)
            for source in self.sources
        )
        return Columns(self.names[1:], sources)

    def describe(self) -> list[str]:
        """Return clauses on what the columns were taken for, where the names alone do not say it.

        Of columns that a mapping names, on all of them.
        """
        lines = [
            f"{CHANNEL_NAMES[source.channel]} from column {self.names[source.field]!r}"
            + (f" ({source.unit or 'as sent'})" if source.unit or self.mapped else "")
            for source in self.sources
            if self.mapped or source.unit or find_channel(self.names[source.field]) is None
        ]
        lines += [
            f"column {source.field + 1}, {self.names[source.field]!r}, repeats "
            f"{CHANNEL_NAMES[source.channel]}"
            for source in self.repeated
        ]
        there = {source.channel for source in self.sources}
        absent = [name for index, name in enumerate(CHANNEL_NAMES) if index not in there]
        if self.mapped and absent:
            lines.append(f"absent: {', '.join(absent)}")
        ignored = [name or "(no name)" for name in self.ignored]
        return lines + ([f"ignored: {', '.join(ignored)}"] if ignored else [])


@dataclass(frozen=True, slots=True)
class HeaderProblem:
    """A line that names columns, but not so that its rows can be read.

    Attributes
    ----------
    names: of the columns.
    reason: a clause that says what is wrong with them.
    certain: whether the line is a header beyond doubt, rather than a message with commas.
    """

    names: tuple[str, ...]
    reason: str
    certain: bool = False


def heading_names(fields: list[str]) -> tuple[str, ...] | None:
    """Return the fields of a line as names of columns, None if it cannot be a header.

    Blank fields at the end and a comment's mark before the first name are left out.
    """
    names = [normalised(field).strip("\"'").strip() for field in fields]
    names[0] = _COMMENT.sub("", names[0])
    while names and not names[-1]:
        names.pop()
    words = [name for name in names if name.casefold() not in MISSING]
    numbers = [name for name in words if _is_number(name)]
    if len(names) < 2 or 2 * len(words) < len(names):  # noqa: PLR2004 - columns
        return None
    known = sum(find_channel(name) is not None for name in names)
    if numbers and known < 3:  # noqa: PLR2004 - a row with words in it
        return None
    return tuple(names)


def _is_number(name: str) -> bool:
    return parse_number(name.encode("utf-8", "replace")) is not None


def find_columns(names: tuple[str, ...]) -> Columns | HeaderProblem:
    """Return the columns that the names stand for, or why they are not those of a board.

    Besides the names of the channel table, a heading may state a unit. More than half of the
    columns must be channels or a time, or all four channels of the Grove board be there: other
    instruments have a VOC and a humidity too.
    """
    numbers = [name for name in names if name.casefold() not in MISSING and _is_number(name)]
    if len(numbers) > 1:
        reason = f"{' and '.join(numbers[:2])} are no names; the line is damaged"
        return HeaderProblem(names, reason, certain=True)
    sources: list[ColumnSource] = []
    repeated: list[ColumnSource] = []
    for field, name in enumerate(names):
        match = _channel_of(name)
        if match is None:
            continue
        channel, unit = match
        scale = heading_scale(channel, unit)
        if scale is None and CHANNELS[channel].part is Part.ENVIRONMENT:
            continue  # no model needs it: ignored, and named as such
        if scale is None:
            return HeaderProblem(
                names,
                f"column {name!r} has the unit {unit!r}, but {CHANNEL_NAMES[channel]} is in "
                f"{CHANNELS[channel].unit}; a mapping file (--map) can convert it",
                certain=True,
            )
        taken = any(source.channel == channel for source in sources)
        unit = unit if scale != AS_SENT else ""
        (repeated if taken else sources).append(ColumnSource(field, channel, scale, unit))
    clocks = {field: found for field, name in enumerate(names) if (found := clock_name(name))}
    for source in (*sources, *repeated):
        clocks.pop(source.field, None)
    if not sources:
        # A message may have commas; twelve names are the header of the twelve numbers below them.
        certain = len(names) >= N_CHANNELS
        return HeaderProblem(names, f"no column is a channel of the board{_boards(names)}", certain)
    known = {source.channel for source in sources}
    used = len(sources) + len(repeated) + len(clocks)
    others = [name for name in names if _plain_name(name) in _OTHER_INSTRUMENTS]
    if others and _ETHANOL not in known:
        reason = f"{', '.join(others[:4])} belong to another instrument"
        return HeaderProblem(names, reason, certain=True)
    if 2 * used <= len(names) and not known.issuperset(GROVE_INDICES):
        return HeaderProblem(
            names,
            f"only {used} of {len(names)} columns are channels of the board or a time",
            certain=True,
        )
    fields, clock = _choose_clock(clocks)
    upstream = names[0].casefold() == _UPSTREAM_TIMESTAMP and len(names) == N_CHANNELS + 1
    return Columns(
        names,
        tuple(sources),
        tuple(repeated),
        fields,
        clock,
        rows_may_lack_clock=upstream and len(known) == N_CHANNELS,
    )


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", split_heading(name)[0].casefold())


def _boards(names: tuple[str, ...]) -> str:
    """Return a hint where the channels of several boards have prefixes."""
    parts = [re.fullmatch(r"(.+?[_.: -])(.+)", name) for name in names]
    prefixes = {part[1] for part in parts if part is not None and find_channel(part[2]) is not None}
    if not prefixes:
        return ""
    return f" (columns of one board begin with {' or '.join(sorted(prefixes)[:4])}: see `prefix`)"


def _channel_of(name: str) -> tuple[int, str] | None:
    """Return the channel that a heading names, and the unit that it states; None for none."""
    channel = find_channel(name)
    if channel is not None:
        return channel, ""
    for number, pattern in enumerate(_WITH_UNIT):
        match = pattern.fullmatch(name)
        channel = None if match is None else find_channel(match["name"])
        if match is None or channel is None:
            continue
        # Without brackets only a known unit is one: "VOC index" is another quantity.
        if number == 0 or heading_scale(channel, match["unit"]) is not None:
            return channel, match["unit"].strip()
    return None


def split_heading(name: str) -> tuple[str, str]:
    """Return a heading without the unit that it states between brackets, and that unit."""
    match = _WITH_UNIT[0].fullmatch(name)
    return (name, "") if match is None else (match["name"], match["unit"].strip())


def _choose_clock(clocks: dict[int, ClockName]) -> tuple[tuple[int, ...], Clock | None]:
    """Return the fields of the time, and what their headings state."""
    if not clocks:
        return (), None
    for field, found in clocks.items():
        if found.unit is not None:
            return (field,), stated_clock(found.unit)
    dates = [field for field, found in clocks.items() if found.date]
    times = [field for field, found in clocks.items() if not found.date]
    if dates and times:
        return (dates[0], times[0]), None
    return ((dates or times)[0],), None
