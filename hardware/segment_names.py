"""Ground floor: names of the files that the service's continuous recording consists of.

`rRUN-NUMBER-UTC.live.csv`, with `.gz` once compressed. Knows names only; the service writes the
files, `replay` and the trainer read them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIVE_SUFFIX = ".live.csv"
"""`scentd replay` recognises a recording of the service by it: such a recording begins with the
sensors' warm-up and perhaps clean air, unlike a recording made of one smell."""

_NAME = re.compile(r"r(\d{6,})-(\d{4,})-(\d{4})(\d{2})(\d{2})T\d{6}Z\.live\.csv(\.gz)?")

_STAMPED = re.compile(r"-(\d{4})(\d{2})(\d{2})T\d{6}Z(-\d+)*\.csv(\.gz)?$")


def parse_segment_name(path: Path) -> tuple[int, int] | None:
    """Return run and number of a segment, None for any other file."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else (int(match[1]), int(match[2]))


def segment_date(path: Path) -> str | None:
    """Return the UTC date in a segment's name as 2026-01-31, None for any other file."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else f"{match[3]}-{match[4]}-{match[5]}"


def recording_date(path: Path) -> str | None:
    """Return the UTC date of a segment, or of a recording named LABEL-20260131T120000Z.csv."""
    match = _STAMPED.search(path.name)
    return segment_date(path) or (f"{match[1]}-{match[2]}-{match[3]}" if match else None)


def segment_name(run: int, number: int, utc: str) -> str:
    """Return a segment's file name; `utc` as 20260131T120000Z.

    The run comes first so that names sort by age: without a clock chip the date may be years off.
    """
    return f"r{run:06d}-{number:04d}-{utc}{LIVE_SUFFIX}"
