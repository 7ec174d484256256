"""Daemon: the segments of a continuous recording: names, order, repair, compression, removal.

Knows files, but no board, thread or clock. Each segment is a recording of its own
(`hardware.recording`); those of one run of the service, in order, are the parts of one recording.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.encoding import encode_csv_header
from hardware.files import remove, sync_folder
from hardware.recording import COMPRESSED_SUFFIX, whole_lines_bytes
from hardware.recording_labels import labels_path
from hardware.segment_names import LIVE_SUFFIX, parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_PART_SUFFIX = ".part"
_COPY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a run.

    Attributes
    ----------
    run: of the service, counted in this folder; orders segments even on a rig without a clock.
    number: from 1 within the run; the first begins with the service.
    compressed: only closed segments are.
    size: bytes on the disk.
    """

    path: Path
    run: int
    number: int
    compressed: bool
    size: int

    @property
    def name(self) -> str:
        """The file's name before compression, as in events."""
        return self.path.name.removesuffix(COMPRESSED_SUFFIX)


def list_segments(folder: Path) -> list[Segment]:
    """Return a folder's segments, the oldest first; other files are ignored."""
    found = []
    for path in folder.glob(f"r*{LIVE_SUFFIX}*"):
        place = parse_segment_name(path)
        if place is None:
            continue
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue  # replaced by a compressed one just now
        compressed = path.suffix == COMPRESSED_SUFFIX
        found.append(Segment(path, *place, compressed, size))
    return sorted(found, key=lambda item: (item.run, item.number, item.compressed))


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Bytes of incomplete last lines, and number of incomplete files, removed after a power cut."""

    bytes_cut: int = 0
    removed: int = 0


def repair_segments(folder: Path) -> RepairReport:
    """Remove incomplete last lines and files, as a power cut leaves them."""
    bytes_cut = removed = 0
    for part in folder.glob(f"r*{COMPRESSED_SUFFIX}{_PART_SUFFIX}"):
        part.unlink()
        removed += 1
    segments = list_segments(folder)
    compressed = {segment.name for segment in segments if segment.compressed}
    for segment in segments:
        if segment.compressed:
            continue
        whole = whole_lines_bytes(segment.path)
        if segment.name in compressed or whole <= len(encode_csv_header(timestamps=True)):
            segment.path.unlink()
            removed += 1
        elif whole < segment.size:
            os.truncate(segment.path, whole)
            bytes_cut += segment.size - whole
    return RepairReport(bytes_cut, removed)


def compress_segment(path: Path, is_cancelled: Callable[[], bool]) -> bool:
    """Replace a closed segment by a compressed one; return False if cancelled.

    At every instant one of the two files is complete, also after an `OSError`. `is_cancelled` is
    called repeatedly.
    """
    target = path.with_name(path.name + COMPRESSED_SUFFIX)
    part = target.with_name(target.name + _PART_SUFFIX)
    try:
        with path.open("rb") as plain, part.open("wb") as raw:
            with gzip.GzipFile(filename=path.name, fileobj=raw, mode="wb", compresslevel=6) as out:
                while data := plain.read(_COPY_BYTES):
                    out.write(data)
                    if is_cancelled():
                        return False
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    path.unlink()
    return True


def remove_oldest(segments: Iterable[Segment], limit_bytes: int) -> list[Segment]:
    """Remove the oldest segments until the others fit; return those removed."""
    kept = list(segments)
    removed = []
    while kept and sum(segment.size for segment in kept) > limit_bytes:
        oldest = kept.pop(0)
        oldest.path.unlink(missing_ok=True)
        remove(labels_path(oldest.path))
        removed.append(oldest)
    return removed
