"""Ground floor: foreign files as labelled recordings, and writing them as recordings of ours.

May import the mapping, its layout, the channel table and recordings.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from hardware.foreign.layout import foreign_layout
from hardware.recording import RecordingError, RecordingWriter, read_recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.foreign.mapping import ForeignFormat
    from hardware.recording import Recording
    from hardware.recording_stream import Layout

UNKNOWN_SESSION = "unknown"
"""Session of a recording whose name has none and whose times are no dates."""
_OLDEST_DATE_MS = 5e11
"""Times above it, 1985, are dates; a board's own clock would need 15 years to get there."""


class ForeignFileError(ScentdError):
    """A foreign file cannot be read as the mapping says."""


@dataclass(frozen=True, slots=True, eq=False)
class ForeignRecording:
    """One recording of another project.

    Attributes
    ----------
    paths: the files that it comes from, more than one if slices were joined.
    label: of the smell.
    session: the sitting; what the name says, or the day of its first reading.
    time_ms: float64[rows], increasing; of an unknown origin unless the times are dates.
    values: float64[rows, 12] in the channel table's order and units, NaN where absent.
    notes: clauses on what its columns were taken for, and on what was left out.
    """

    paths: tuple[Path, ...]
    label: str
    session: str
    time_ms: NDArray[np.float64]
    values: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write a recording with `timestamp_ms` from 0 on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with RecordingWriter(path) as writer:
            for t_ms, row in zip(self.time_ms - self.time_ms[0], self.values, strict=True):
                writer.write(round(float(t_ms)), row.astype(np.float32))


def read_foreign(
    paths: Sequence[Path], form: ForeignFormat, *, session: str | None = None
) -> Iterator[ForeignRecording]:
    """Yield the recordings of files, slices joined, in the order of label, session and time.

    Parameters
    ----------
    session: of the files whose names and times tell none.

    Raises
    ------
    ForeignFileError: a file cannot be read as the mapping says.
    MappingError: the mapping does not fit a file's name.
    """
    layout = foreign_layout(form)
    pieces = sorted(
        (_read(path, form, layout, session) for path in paths),
        key=lambda piece: (piece.label, piece.session, piece.time_ms[0]),
    )
    groups = itertools.groupby(pieces, key=lambda piece: (piece.label, piece.session))
    for _, group in groups:
        joined: list[ForeignRecording] = []
        for piece in group:
            if joined and 0 < piece.time_ms[0] - joined[-1].time_ms[-1] <= 1000 * form.join_gap_s:
                joined[-1] = _join(joined[-1], piece)
            else:
                joined.append(piece)
        yield from joined


def _join(first: ForeignRecording, second: ForeignRecording) -> ForeignRecording:
    return ForeignRecording(
        (*first.paths, *second.paths),
        first.label,
        first.session,
        np.concatenate([first.time_ms, second.time_ms]),
        np.concatenate([first.values, second.values]),
        tuple(dict.fromkeys([*first.notes, *second.notes])),
    )


def _read(
    path: Path, form: ForeignFormat, layout: Layout, default_session: str | None
) -> ForeignRecording:
    label, session = form.label_and_session(path)
    try:
        recording = read_recording(path, layout)
    except RecordingError as error:
        raise ForeignFileError(str(error)) from error
    if recording.timestamp_ms is None:
        raise ForeignFileError(
            f"{path} tells no time for its readings. Name the column of the time in the mapping, "
            "or interval_ms."
        )
    times_ms = recording.timestamp_ms.astype(np.float64)
    # A clock that stood still or went back gives no order; such readings are left out, and counted.
    kept = np.flatnonzero(times_ms > np.maximum.accumulate(np.r_[-np.inf, times_ms[:-1]]))
    if session is None:
        session = _date(float(times_ms[0])) or default_session or UNKNOWN_SESSION
    notes = (*recording.notes, *_left_out(recording, len(times_ms) - len(kept)))
    values = recording.values[kept].astype(np.float64)
    return ForeignRecording((path,), label, session, times_ms[kept], values, notes)


def _date(first_ms: float) -> str | None:
    """Return the day of a time since 1970, as the file has it; None for another time."""
    if first_ms < _OLDEST_DATE_MS:
        return None
    return datetime.fromtimestamp(first_ms / 1000.0, UTC).date().isoformat()


def _left_out(recording: Recording, repeated: int) -> list[str]:
    counts = recording.counts
    notes = [f"{counts.damaged} rows cannot be read and were left out"] if counts.damaged else []
    if repeated:
        notes.append(f"{repeated} rows whose time did not advance were left out")
    return notes


def write_recordings(recordings: Sequence[ForeignRecording], folder: Path) -> list[Path]:
    """Write recordings to `folder`/LABEL/SESSION/NAME.csv, named after their first file.

    Raises
    ------
    ForeignFileError: two recordings would get one name, or a file is there already.
    """
    paths = [
        folder / recording.label / recording.session / f"{_stem(recording.paths[0])}.csv"
        for recording in recordings
    ]
    often = Counter(paths)
    taken = [path for path in paths if path.exists() or often[path] > 1]
    if taken:
        raise ForeignFileError(
            f"{taken[0]} is there already, and recordings are never overwritten. Name an empty "
            "folder, or files of different names."
        )
    for recording, path in zip(recordings, paths, strict=True):
        recording.write(path)
    return paths


def _stem(path: Path) -> str:
    """Return a file's name without the suffixes of its format and of a compression."""
    name = path.name
    for suffix in (".gz", ".bz2", ".xz", ".zip"):
        name = name.removesuffix(suffix)
    stem = name.rpartition(".")[0]
    return stem or name
