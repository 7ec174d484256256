"""Ground floor: recordings of an archive (`hardware/archive.py`), read back.

May import the archive, frames and numpy; pyarrow is imported where a file is read. One file lies in
memory at a time, however long the recording.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.archive import (
    LOST,
    QUALITY,
    RESTARTED,
    SEQUENCE,
    TIME,
    ArchiveEntry,
    read_entry,
    require_pyarrow,
)
from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.frames import Quality, SensorFrame
from hardware.recording_labels import LabelledStretch, RecordingLabels
from hardware.recording_stream import RecordingError, frame_arrivals, nominal_rate_hz

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class ArchivedRecording:
    """One recording of an archive, in one file or in several segments of one run.

    Its frames, rate and times are those of `RecordingStream` for the same CSV files.

    Parameters
    ----------
    paths: the segments in order.

    Attributes
    ----------
    entries: what is known of each segment.
    labels: the labelled stretches of all segments.
    present: channels of which there is any number.
    timestamped: whether every reading has a time.
    first_ms: time of the first reading, 0 without times.
    nominal_rate_hz: from the median step of the times, else that of the published recordings.
    published: whether its layout is one of the published ones, which lie within one exposure.

    Raises
    ------
    RecordingError: a file is damaged, or is no file of an archive.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        require_pyarrow()
        self._paths = tuple(paths)
        self.entries = tuple(_entry(path) for path in self._paths)
        self.published = all(entry.published for entry in self.entries)
        self.labels = RecordingLabels.of(
            LabelledStretch(**stretch) for entry in self.entries for stretch in entry.labels
        )
        times, present = [], np.zeros(N_CHANNELS, np.bool_)
        timestamped = True
        for path in self._paths:
            columns = _read(path, [TIME, QUALITY])
            timestamped &= columns[TIME].null_count == 0
            times.append(columns[TIME].drop_null().to_numpy())
            present |= (_quality(columns[QUALITY]) != Quality.MISSING).any(axis=0)
        self._count = sum(entry.readings for entry in self.entries)
        self.present = tuple(
            name for name, there in zip(CHANNEL_NAMES, present, strict=True) if there
        )
        self.timestamped = timestamped
        every = np.concatenate(times) if timestamped else None
        self.first_ms = 0 if every is None else int(every[0])
        self.nominal_rate_hz = nominal_rate_hz(every)

    def __len__(self) -> int:
        return self._count

    @property
    def assumed_rate_hz(self) -> float | None:
        """The nominal rate if there are no times from which to measure one, else None."""
        return None if self.timestamped else self.nominal_rate_hz

    def frames(self) -> Iterator[SensorFrame]:
        """Yield the frames, bit for bit as they were decoded."""
        number = 0
        for path, entry in zip(self._paths, self.entries, strict=True):
            yield from _frames(_read(path), number)
            number += entry.next_number

    def arrivals(self) -> Iterator[tuple[SensorFrame, float]]:
        """Yield the frames with their times of arrival in milliseconds, at the nominal rate."""
        return frame_arrivals(self.frames(), self.nominal_rate_hz, timestamped=self.timestamped)


def _entry(path: Path) -> ArchiveEntry:
    entry = read_entry(path)
    if entry is None:
        raise RecordingError(
            f"{path} is no recording of an archive, or is damaged: its metadata cannot be read. "
            "Write it again (scentd recordings export --format parquet), or remove it."
        )
    return entry


def _read(path: Path, columns: list[str] | None = None) -> Any:
    """Return the table of a file, or some of its columns."""
    parquet = import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns, use_threads=False)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise RecordingError(
            f"{path} is damaged: {str(error).splitlines()[0]}. Write it again (scentd recordings "
            "export --format parquet), or remove it."
        ) from error


def _quality(column: Any) -> NDArray[np.uint8]:
    """Return the column of qualities as uint8[n, 12]."""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, N_CHANNELS)


def _frames(table: Any, number: int) -> Iterator[SensorFrame]:
    """Yield the frames of a table; those that no board numbered are counted on from `number`."""
    values = np.column_stack([table[name].to_numpy() for name in CHANNEL_NAMES])
    lost = table[LOST].to_pylist()
    rows = zip(
        table[SEQUENCE].to_pylist(),
        table[TIME].to_pylist(),
        values,
        _quality(table[QUALITY]),
        lost,
        table[RESTARTED].to_pylist(),
        strict=True,
    )
    for sequence, time, row, quality, lost_before, restarted in rows:
        own = sequence if lost_before is not None else sequence + number
        yield SensorFrame(own, time, row, quality, lost_before, restarted)
