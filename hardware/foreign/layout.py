"""Ground floor: a mapping as the layout of a recording, read by the one reader of recordings.

May import the mapping, the containers, columns and `hardware.recording_stream`. Guesses nothing: a
column that the mapping names and the file lacks is an error.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES, CHANNELS, Part, channel_index
from hardware.clock import Clock, clock_name, stated_clock
from hardware.columns import Columns, ColumnSource, HeaderProblem, find_columns, split_heading
from hardware.foreign.containers import bme_lines, edge_impulse_lines, json_lines
from hardware.foreign.mapping import AS_STATED, Column, ForeignFormat
from hardware.recording_stream import Layout
from hardware.table_text import text_pieces
from hardware.units import heading_scale, mapping_scale, normalised

if TYPE_CHECKING:
    from hardware.recording_stream import TextReader

_MEND = "Name the right columns in the mapping (docs/recordings.md), or choose another format."
_AS_SENT = "as sent"


def foreign_layout(form: ForeignFormat) -> Layout:
    """Return how the files of a format become readings."""
    readers: dict[str, TextReader] = {
        "csv": text_pieces,
        "json": partial(json_lines, form),
        "edge-impulse": partial(edge_impulse_lines, form),
        "bmerawdata": partial(bme_lines, form),
    }
    return Layout(partial(_find, form), readers[form.kind], form.interval_ms, _MEND)


def _find(form: ForeignFormat, names: tuple[str, ...]) -> Columns | HeaderProblem:
    """Return the columns that a mapping names, or which of them a header lacks."""
    if not form.channels:
        return _find_of_board(form, names)
    found: dict[str, int | None] = {
        channel: _field(names, form.prefix, column.spellings)
        for channel, column in form.columns.items()
    }
    if all(field is None for field in found.values()):
        return HeaderProblem(names, _lacks(form, found, certain=False))
    for channel, field in found.items():
        if field is None and not form.columns[channel].optional:
            return HeaderProblem(names, _lacks(form, found, certain=True), certain=True)
    clocks = _clock_fields(form, names)
    if isinstance(clocks, HeaderProblem):
        return clocks
    sources = []
    for channel, field in found.items():
        if field is not None:
            index = channel_index(channel)
            source = _source(names[field], field, index, form.columns[channel])
            if isinstance(source, ColumnSource):
                sources.append(source)
            elif not form.columns[channel].optional or CHANNELS[index].part is not Part.ENVIRONMENT:
                return HeaderProblem(names, source, certain=True)
    return Columns(
        names, tuple(sources), clock_fields=clocks, clock=_clock(form, names, clocks), mapped=True
    )


def _find_of_board(form: ForeignFormat, names: tuple[str, ...]) -> Columns | HeaderProblem:
    """Return the columns of one of several boards, whose names are the channel table's."""
    prefix = form.prefix
    # The columns of the other boards must not count as unknown ones of this board.
    taken = [
        (field, name.removeprefix(prefix))
        for field, name in enumerate(names)
        if name.startswith(prefix) or clock_name(name)
    ]
    if not any(name.startswith(prefix) for name in names):
        reason = f"no column begins with {prefix!r}"
        return HeaderProblem(names, reason, certain=len(names) >= len(CHANNEL_NAMES))
    result = find_columns(tuple(name for _, name in taken))
    if isinstance(result, HeaderProblem):
        return HeaderProblem(names, result.reason, certain=True)
    place = [field for field, _ in taken]
    clocks = _clock_fields(form, names)
    if isinstance(clocks, HeaderProblem):
        return clocks
    clocks = clocks or tuple(place[at] for at in result.clock_fields)
    return Columns(
        names,
        tuple(replace(source, field=place[source.field]) for source in result.sources),
        clock_fields=clocks,
        clock=_clock(form, names, clocks),
        mapped=True,
    )


def _clock_fields(form: ForeignFormat, names: tuple[str, ...]) -> tuple[int, ...] | HeaderProblem:
    """Return the fields of the time that a mapping names, or which one is not there."""
    fields = [(name, _field(names, "", (name,))) for name in form.time_columns]
    for name, field in fields:
        if field is None:
            reason = f"the mapping's column of the time, {name!r}, is not in it"
            return HeaderProblem(names, reason, certain=True)
    return tuple(field for _, field in fields if field is not None)


def _field(names: tuple[str, ...], prefix: str, spellings: tuple[str, ...]) -> int | None:
    """Return the column of the first spelling that is there, with or without a unit behind it."""
    bare = [split_heading(name)[0] for name in names]
    for spelling in spellings:
        wanted = normalised(f"{prefix}{spelling}")
        for candidates in (list(names), bare):
            if wanted in candidates:
                return candidates.index(wanted)
        for candidates in (list(names), bare):
            folded = [name.casefold() for name in candidates]
            if folded.count(wanted.casefold()) == 1:
                return folded.index(wanted.casefold())
    return None


def _lacks(form: ForeignFormat, found: dict[str, int | None], *, certain: bool) -> str:
    missing = [
        f"{form.prefix}{' or '.join(form.columns[channel].spellings)}"
        for channel, field in found.items()
        if field is None and not (certain and form.columns[channel].optional)
    ]
    names = ", ".join(map(repr, missing))
    if len(missing) == 1:
        return f"the mapping's column {names} is not in it"
    return f"the mapping's columns {names} are not in it"


def _source(heading: str, field: int, channel: int, column: Column) -> ColumnSource | str:
    """Return a channel's source, or why its unit cannot be used."""
    unit = column.unit
    if unit != AS_STATED:
        scale = mapping_scale(channel, unit)
    else:
        unit = split_heading(heading)[1]
        scale = heading_scale(channel, unit)
    if scale is None:
        return (
            f"column {heading!r} has the unit {unit!r}, but {CHANNEL_NAMES[channel]} is in "
            f"{CHANNELS[channel].unit}; state its unit in a mapping of your own (volt of 3.3, "
            "count / 1000, ...)"
        )
    return ColumnSource(field, channel, scale, "" if unit == _AS_SENT else unit)


def _clock(form: ForeignFormat, names: tuple[str, ...], fields: tuple[int, ...]) -> Clock | None:
    """Return what mapping or heading state of the time, None where the values must tell."""
    if not fields:
        return None
    unit = form.stated_time_unit
    if unit is not None:
        return stated_clock(unit, trusted=True)
    named = clock_name(names[fields[0]])
    return None if named is None or named.unit is None else stated_clock(named.unit)
