"""Ground floor: which columns of a CSV are which channels, by its header.

May import the channel table and the parsing of numbers. Must know nothing of frames or files.
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware.channels import N_CHANNELS, find_channel
from hardware.readings import parse_number

TIMESTAMP_MS_COLUMN = "timestamp_ms"
_CLOCK_COLUMNS = frozenset({TIMESTAMP_MS_COLUMN, "timestamp"})


@dataclass(frozen=True, slots=True)
class Columns:
    """A CSV header: which field of a row is which channel.

    Attributes
    ----------
    channels: channel index per field, None for a field to be ignored.
    clock_field: index of a field that names a time (with or without unit), None without one.
    clock_is_ms: whether that field is in milliseconds and can be read.
    """

    channels: tuple[int | None, ...]
    clock_field: int | None = None
    clock_is_ms: bool = False

    def without_clock(self) -> Columns:
        """Return the columns of rows that lack the time column of their header."""
        if self.clock_field is None:
            return self
        kept = self.channels[: self.clock_field] + self.channels[self.clock_field + 1 :]
        return Columns(kept)


TABLE_COLUMNS = Columns(tuple(range(N_CHANNELS)))
"""Columns of rows without a header: the channel table's order."""


def column_names(text: str) -> tuple[str, ...] | None:
    """Return the fields of a line if all could be names of columns, else None."""
    # Spreadsheets write a byte order mark first, statistics packages quote their headers.
    names = tuple(name.strip().strip('"') for name in text.removeprefix("\ufeff").split(","))
    if len(names) == 1 or any(parse_number(name.encode()) is not None for name in names if name):
        return None
    return names


def find_columns(names: tuple[str, ...]) -> Columns | None:
    """Return the named columns, None if they are not those of a board.

    At least half must be channels or a time, no channel may come twice.
    """
    channels = tuple(find_channel(name) for name in names)
    clocks = [i for i, name in enumerate(names) if name.casefold() in _CLOCK_COLUMNS]
    known = [channel for channel in channels if channel is not None]
    if (
        not known
        or len(set(known)) < len(known)
        or len(clocks) > 1
        or 2 * (len(known) + len(clocks)) < len(names)
    ):
        return None
    clock_field = clocks[0] if clocks else None
    clock_is_ms = clock_field is not None and names[clock_field].casefold() == TIMESTAMP_MS_COLUMN
    return Columns(channels, clock_field, clock_is_ms)
