"""Ground floor: the rows of recordings that scentd wrote, one after the other, without numpy.

May import the standard library and the channel table alone: the page's process, which has little
memory, reads recordings by it. Only scentd's own layout is read: `timestamp_ms` and the twelve
columns. Other files are read by `hardware.recording`.
"""

from __future__ import annotations

import gzip
import os
import zlib
from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES
from hardware.errors import ScentdError
from hardware.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

OWN_HEADER = (",".join(("timestamp_ms", *CHANNEL_NAMES)) + "\n").encode()

_COMPRESSED_SUFFIX = ".gz"
_MOST_LINE_BYTES = 4096
"""Longest row that is read; the longest that scentd writes has 200."""

_DAMAGES = (OSError, EOFError, zlib.error)


class RowsError(ScentdError):
    """A recording cannot be read row by row."""


def read_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the time in milliseconds and the line of every whole row of a recording.

    A row without an end, as a power cut leaves it, is left out.

    Raises
    ------
    RowsError: the file cannot be read, or is no recording of scentd.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if path.suffix == _COMPRESSED_SUFFIX else raw
            if stream.readline(_MOST_LINE_BYTES) != OWN_HEADER:
                raise RowsError(
                    f"Expected a recording that scentd wrote, with the columns timestamp_ms, "
                    f"{', '.join(CHANNEL_NAMES)}; {path.name} has others. "
                    "`scent-train data import` converts recordings of other projects."
                )
            while (line := stream.readline(_MOST_LINE_BYTES)).endswith(b"\n"):
                yield _time_of(line, path), line
    except _DAMAGES as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is damaged"
        raise RowsError(f"The recording {path.name} cannot be read: {reason}.") from error


def _time_of(line: bytes, path: Path) -> int:
    try:
        return int(line.partition(b",")[0])
    except ValueError:
        raise RowsError(
            f"The recording {path.name} is damaged: a row begins with {line[:20]!r} instead of a "
            "time in whole milliseconds."
        ) from None


def rows_between(paths: Iterable[Path], first_ms: int, last_ms: int) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of successive recordings from `first_ms` to `last_ms`, both included.

    Raises
    ------
    RowsError: a recording cannot be read, or is none of scentd.
    """
    for path in paths:
        for t_ms, line in read_rows(path):
            if t_ms > last_ms:
                return
            if t_ms >= first_ms:
                yield t_ms, line


def values_of(line: bytes) -> list[float | None]:
    """Return the twelve values of a row, None where one is absent or no number.

    Raises
    ------
    RowsError: it has not twelve.
    """
    fields = line.rstrip(b"\r\n").split(b",")[1:]
    if len(fields) != len(CHANNEL_NAMES):
        raise RowsError(f"Expected {len(CHANNEL_NAMES)} values in a row, got {len(fields)}.")
    return [_value(field) for field in fields]


def _value(field: bytes) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
