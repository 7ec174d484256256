"""Daemon: the segments of a continuous recording: their names, order, mending and bound.

Knows files and nothing of boards, threads or clocks. Each segment is a recording of its own
(`hardware.recording`), and those of one run of the service, in order, are one recording cut.
"""

from __future__ import annotations

import gzip
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.encoding import encode_csv_header
from hardware.files import sync_folder
from hardware.recording import COMPRESSED_SUFFIX, whole_lines_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LIVE_SUFFIX = ".live.csv"
"""Tells `scentd replay` that the service kept this, beginning with the sensors' warm-up and
perhaps with clean air, unlike a recording that somebody made of one smell."""

_NAME = re.compile(r"r(\d{6,})-(\d{4,})-\d{8}T\d{6}Z\.live\.csv(\.gz)?")
_PART_SUFFIX = ".part"
_COPY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a run.

    Attributes
    ----------
    path: where it lies.
    run: of the service, counted in this folder; a rig without a clock orders by it alone.
    number: from 1 within the run; the first begins as the service did.
    compressed: closed, and packed since.
    size: bytes on the disk.
    """

    path: Path
    run: int
    number: int
    compressed: bool
    size: int

    @property
    def name(self) -> str:
        """What events call it: the file's name before it was compressed."""
        return self.path.name.removesuffix(COMPRESSED_SUFFIX)


def place_of(path: Path) -> tuple[int, int] | None:
    """Return run and number of a segment by its name, None of any other file."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else (int(match[1]), int(match[2]))


def segment_name(run: int, number: int, utc: str) -> str:
    """Return a segment's file name; `utc` as 20260131T120000Z, for people.

    The run comes first because the clock of a rig without a clock chip may be years off: names
    must sort by age whatever it says.
    """
    return f"r{run:06d}-{number:04d}-{utc}{LIVE_SUFFIX}"


def segments_in(folder: Path) -> list[Segment]:
    """Return a folder's segments, the oldest first; other files are nobody's business here."""
    found = []
    for path in folder.glob(f"r*{LIVE_SUFFIX}*"):
        place = place_of(path)
        if place is None:
            continue
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue  # compressed just now
        compressed = path.suffix == COMPRESSED_SUFFIX
        found.append(Segment(path, *place, compressed, size))
    return sorted(found, key=lambda item: (item.run, item.number, item.compressed))


@dataclass(frozen=True, slots=True)
class Mended:
    """What a power cut had left behind.

    Attributes
    ----------
    bytes_cut: of torn last lines.
    removed: files without a reading, and half-written compressed ones.
    """

    bytes_cut: int = 0
    removed: int = 0


def mend(folder: Path) -> Mended:
    """Bring a folder into order after a power cut: whole lines only, no half-written files.

    Raises
    ------
    OSError
        If the disk does not let it.
    """
    bytes_cut = removed = 0
    for part in folder.glob(f"r*{COMPRESSED_SUFFIX}{_PART_SUFFIX}"):
        part.unlink()
        removed += 1
    segments = segments_in(folder)
    packed = {segment.name for segment in segments if segment.compressed}
    for segment in segments:
        if segment.compressed:
            continue
        whole = whole_lines_bytes(segment.path)
        if segment.name in packed or whole <= len(encode_csv_header(timestamps=True)):
            segment.path.unlink()
            removed += 1
        elif whole < segment.size:
            os.truncate(segment.path, whole)
            bytes_cut += segment.size - whole
    return Mended(bytes_cut, removed)


def compress(path: Path, given_up: Callable[[], bool]) -> bool:
    """Replace a closed segment by its compressed self; return False if given up half-way.

    At every instant either the plain or the compressed file is there, whole.

    Parameters
    ----------
    path : Path
        The segment.
    given_up : callable
        Asked now and then whether there is no time left.

    Raises
    ------
    OSError
        If the disk refuses; the segment stays as it was.
    """
    target = path.with_name(path.name + COMPRESSED_SUFFIX)
    part = target.with_name(target.name + _PART_SUFFIX)
    try:
        with path.open("rb") as plain, part.open("wb") as raw:
            with gzip.GzipFile(filename=path.name, fileobj=raw, mode="wb", compresslevel=6) as out:
                while data := plain.read(_COPY_BYTES):
                    out.write(data)
                    if given_up():
                        return False
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    path.unlink()
    return True


def make_room(segments: Iterable[Segment], limit_bytes: int) -> list[Segment]:
    """Remove the oldest segments until the rest fit; return those that went.

    Raises
    ------
    OSError
        If the disk does not let it.
    """
    kept = list(segments)
    gone = []
    while kept and sum(segment.size for segment in kept) > limit_bytes:
        oldest = kept.pop(0)
        oldest.path.unlink(missing_ok=True)
        gone.append(oldest)
    return gone
