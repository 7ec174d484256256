"""training/: the recordings that are scored anew, of an archive of Parquet files or of a folder.

Reads names only, never a recording.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from hardware.archive import SUFFIX, UNDATED, day_of, recording_name
from hardware.archived_recording import ArchivedRecording
from hardware.errors import UsageError
from hardware.recording_labels import RecordingLabels, read_labels
from hardware.recording_stream import RecordingStream
from hardware.segment_names import parse_segment_name, recording_date
from training.data.recording_files import (
    is_recording_name,
    join_segments,
    visible_files,
    without_compressed_copies,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PARTITION = re.compile(r"(rig|day)=(.+)")


@dataclass(frozen=True, slots=True)
class Source:
    """One recording, in one file or in consecutive segments of one run.

    Attributes
    ----------
    name: of the first file without its suffix; in a folder the path below it.
    rig: whose it is.
    day: the UTC day of its first file, or `UNDATED`.
    session: the folders between label and file, else the day; of an archive empty, since its files
        know.
    label: the first folder below the data folder, None without one.
    paths: the files in order.
    archived: whether they are of an archive.
    """

    name: str
    rig: str
    day: str
    session: str
    label: str | None
    paths: tuple[Path, ...]
    archived: bool


def find_sources(folder: Path, rig: str | None = None) -> list[Source]:
    """Return the recordings below a folder, sorted by rig, day and name.

    Parameters
    ----------
    folder: an archive, `rig=RIG/day=DAY/*.parquet`, or a folder of recordings.
    rig: whose recordings they are; the folder's name without one. An archive says that itself.

    Raises
    ------
    UsageError: there is no such folder, or no recording in it, or two have one name.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Name the one that holds the recordings.")
    if any(folder.glob("rig=*")):
        if rig is not None:
            raise UsageError(f"{folder} is an archive, which knows its rigs; leave --rig out.")
        found = _archived(folder)
    else:
        found = _loose(folder, rig or folder.resolve().name)
    if not found:
        raise UsageError(
            f"There are no recordings in {folder}: neither *.csv or *.csv.gz, nor an archive "
            "(scentd recordings export --format parquet)."
        )
    names = Counter((one.rig, one.day, one.name) for one in found)
    twice = [name for (_, _, name), count in names.items() if count > 1]
    if twice:
        raise UsageError(f"Two recordings in {folder} are called {twice[0]}; rename one of them.")
    return sorted(found, key=lambda one: (one.rig, one.day, one.name))


def open_source(source: Source) -> tuple[ArchivedRecording | RecordingStream, RecordingLabels]:
    """Return a recording and its labelled stretches.

    Raises
    ------
    RecordingError, LabelsError: it is damaged, or its labels are.
    """
    if source.archived:
        archived = ArchivedRecording(source.paths)
        return archived, archived.labels
    stretches = (read_labels(path.absolute()).stretches for path in source.paths)
    return RecordingStream(source.paths), RecordingLabels.of(chain.from_iterable(stretches))


def _archived(folder: Path) -> list[Source]:
    files = [path for path in visible_files(folder) if path.name.endswith(SUFFIX)]
    found = []
    for paths in join_segments(files, _archived_run):
        parts: dict[str, str] = {}
        for part in paths[0].relative_to(folder).parts:
            if (match := _PARTITION.fullmatch(part)) is not None:
                parts[match[1]] = match[2]
        name = recording_name(paths[0]).removesuffix(".csv")
        found.append(
            Source(name, parts.get("rig", ""), parts.get("day", UNDATED), "", None, paths, True)
        )
    return found


def _archived_run(path: Path) -> tuple[object, int, int] | None:
    """Return rig, run and number of an archived segment, whose run may go on on another day."""
    place = parse_segment_name(path.with_name(recording_name(path)))
    return None if place is None else (path.parents[1], *place)


def _loose(folder: Path, rig: str) -> list[Source]:
    files, _ = without_compressed_copies(list(_recordings(folder)))
    found = []
    for paths in join_segments(files):
        below = paths[0].relative_to(folder)
        label, *folders = below.parts[:-1] or (None,)
        session = "/".join(map(str, folders)) or recording_date(paths[0]) or ""
        name = below.with_name(recording_name(paths[0])).as_posix().removesuffix(".csv")
        day = day_of(paths[0])
        found.append(Source(name.replace("/", "__"), rig, day, session, label, paths, False))
    return found


def _recordings(folder: Path) -> Iterable[Path]:
    return filter(is_recording_name, visible_files(folder))
