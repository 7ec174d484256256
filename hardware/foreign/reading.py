"""Ground floor: reading foreign files by a mapping, and writing them as recordings of ours.

May import `hardware.foreign.mapping`, the channel table and the recording's writer. Guesses
nothing: a column that the mapping names and the file lacks is an error.
"""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.channels import CHANNEL_NAMES, N_CHANNELS, channel_index
from hardware.errors import ScentdError
from hardware.recording import RecordingWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.foreign.mapping import ForeignFormat

_TIME_TO_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3}


class ForeignFileError(ScentdError):
    """A foreign file cannot be read as the mapping says."""


@dataclass(frozen=True, slots=True, eq=False)
class ForeignRecording:
    """One recording of another project.

    Attributes
    ----------
    paths: the files that it comes from, more than one if slices were joined.
    label: of the smell.
    session: the sitting; the day of its first reading, or what the name says.
    time_ms: float64[rows], increasing; of an unknown origin unless the times are dates.
    values: float64[rows, 12] in the channel table's order and units, NaN where absent.
    """

    paths: tuple[Path, ...]
    label: str
    session: str
    time_ms: NDArray[np.float64]
    values: NDArray[np.float64]

    def write(self, path: Path) -> None:
        """Write a recording with `timestamp_ms` from 0 on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with RecordingWriter(path) as writer:
            for t_ms, row in zip(self.time_ms - self.time_ms[0], self.values, strict=True):
                writer.write(round(float(t_ms)), row.astype(np.float32))


def read_foreign(paths: Sequence[Path], form: ForeignFormat) -> Iterator[ForeignRecording]:
    """Yield the recordings of files, slices joined, in the order of label, session and time.

    Raises
    ------
    ForeignFileError: a file cannot be read as the mapping says.
    MappingError: the mapping does not fit a file's name.
    """
    pieces = sorted(
        (_read(path, form) for path in paths),
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
    )


def _read(path: Path, form: ForeignFormat) -> ForeignRecording:
    rows = _json_rows(path) if form.kind == "json" else _csv_rows(path)
    if not rows:
        raise ForeignFileError(f"{path} holds no reading. Leave it out, or name its format.")
    label, session = form.label_and_session(path)
    values = np.full((len(rows), N_CHANNELS), np.nan)
    for channel, column in form.channels.items():
        _require(column.column, rows, path)
        numbers = np.array([_number(row.get(column.column), path) for row in rows])
        values[:, channel_index(channel)] = column.convert(numbers)
    times_ms = _times_ms(rows, form, path)
    order = np.flatnonzero(np.diff(times_ms, prepend=-np.inf) > 0)
    if session is None:
        first_s = float(times_ms[0]) / 1000.0
        dated = form.time_unit == "iso"
        session = datetime.fromtimestamp(first_s).date().isoformat() if dated else "unknown"  # noqa: DTZ006
    return ForeignRecording((path,), label, session, times_ms[order], values[order])


def _require(column: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    if not any(column in row for row in rows):
        raise ForeignFileError(
            f"{path} has no column {column!r}; it has {', '.join(rows[0])}. Name the right one in "
            "the mapping."
        )


def _times_ms(
    rows: Sequence[dict[str, Any]], form: ForeignFormat, path: Path
) -> NDArray[np.float64]:
    if form.time is None:
        return np.arange(len(rows), dtype=np.float64) * (form.interval_ms or 0.0)
    _require(form.time, rows, path)
    texts = [row.get(form.time) for row in rows]
    try:
        if form.time_unit == "iso":
            return np.array([datetime.fromisoformat(str(text)).timestamp() * 1e3 for text in texts])
        return np.array([float(str(text)) * _TIME_TO_MS[form.time_unit] for text in texts])
    except ValueError as error:
        raise ForeignFileError(
            f"The times of {path} in column {form.time!r} are not {form.time_unit}: {error}. "
            "Correct time_unit in the mapping."
        ) from error


def _number(text: object, path: Path) -> float:
    if text is None or str(text).strip() in {"", "-", "NA", "NULL", "None", "null", "nan"}:
        return float("nan")
    try:
        return float(str(text))
    except ValueError:
        raise ForeignFileError(
            f"{path} holds {str(text)[:40]!r} where a number should be. Correct the file or the "
            "mapping."
        ) from None


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ForeignFileError(f"{path} cannot be read as a table: {error}.") from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ForeignFileError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ForeignFileError(f"{path} should hold a JSON list of one object per reading.")
    return [_flatten(item) for item in content]


def _flatten(item: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested object with the keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in item.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def write_recordings(recordings: Sequence[ForeignRecording], folder: Path) -> list[Path]:
    """Write recordings to `folder`/LABEL/SESSION/NAME.csv, named after their first file.

    Raises
    ------
    ForeignFileError: two recordings would get one name, or a file is there already.
    """
    paths = [
        folder / recording.label / recording.session / f"{recording.paths[0].stem}.csv"
        for recording in recordings
    ]
    taken = [path for path in paths if path.exists() or paths.count(path) > 1]
    if taken:
        raise ForeignFileError(
            f"{taken[0]} is there already, and recordings are never overwritten. Name an empty "
            "folder, or files of different names."
        )
    for recording, path in zip(recordings, paths, strict=True):
        recording.write(path)
    return paths


def describe(form: ForeignFormat) -> list[str]:
    """Return lines that say which column is taken for which channel."""
    absent = [name for name in CHANNEL_NAMES if name not in form.channels]
    taken = [
        f"{name} from column {column.column} ({column.unit})"
        for name, column in form.channels.items()
    ]
    clock = (
        f"time from column {form.time} ({form.time_unit})"
        if form.time
        else f"one reading every {form.interval_ms:g} ms"
    )
    return [*taken, clock, f"absent: {', '.join(absent)}"]
