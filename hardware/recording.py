"""Ground floor: recordings of the board, read and written as CSV.

May import the line protocol, frames, the channel table and numpy. Reading goes through
`LineDecoder`, so that training, replay and a live port share one parser. Must know nothing of
models or labels.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.encoding import encode_csv, encode_csv_header
from hardware.frames import Quality, SensorFrame
from hardware.recording_stream import (
    OWN_LAYOUT,
    Layout,
    RecordingError,
    RecordingStream,
    frame_arrivals,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from hardware.protocol import LineCounts

__all__ = [
    "COMPRESSED_SUFFIX",
    "DiskRefusedError",
    "Recording",
    "RecordingError",
    "RecordingWriter",
    "present_channels",
    "read_recording",
    "read_recordings",
    "whole_lines_bytes",
    "whole_recording",
]

COMPRESSED_SUFFIX = ".gz"

_LOSS_UNKNOWN = -1
_READ_BYTES = 1 << 16
_OWN_HEADER = encode_csv_header(timestamps=True)


class DiskRefusedError(RecordingError):
    """The disk refused a row; `reason` is the operating system's."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A whole recording.

    Attributes
    ----------
    path: the file it came from.
    values: float32[n, 12] in the channel table's order, exactly as sent; NaN where absent.
    quality: uint8[n, 12] of `Quality`, as the decoder set it.
    timestamp_ms: int64[n], the recording's own clock, or None where any row lacks it.
    nominal_rate_hz: from the median step of the timestamps, else 1 Hz (the published layout).
    counts: of the decoder.
    frame_seq: int64[n], the board's counter in a capture of our own dialect, else from 0.
    lost_before: int64[n], frames lost before each, -1 where the dialect cannot tell.
    restarted: bool[n], whether the board restarted just before this frame.
    published: whether this is one of the published layouts, which lie within one exposure.
    torn: whether the last line is incomplete, as after a power cut, and left out.
    notes: sentences on what is not as in a recording of scentd: what columns were taken for.
    """

    path: Path
    values: NDArray[np.float32]
    quality: NDArray[np.uint8]
    timestamp_ms: NDArray[np.int64] | None
    nominal_rate_hz: float
    counts: LineCounts
    frame_seq: NDArray[np.int64]
    lost_before: NDArray[np.int64]
    restarted: NDArray[np.bool_]
    published: bool = False
    torn: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def assumed_rate_hz(self) -> float | None:
        """The nominal rate if there are no timestamps from which to measure one, else None."""
        return self.nominal_rate_hz if self.timestamp_ms is None else None

    def arrivals(self) -> Iterator[tuple[SensorFrame, float]]:
        """Yield the frames with their times of arrival in milliseconds, at the nominal rate."""
        timed = self.timestamp_ms is not None
        return frame_arrivals(self.frames(), self.nominal_rate_hz, timestamped=timed)

    def frames(self) -> Iterator[SensorFrame]:
        """Yield the recording's frames, equal to those that a live decoder gave."""
        for row in range(len(self.values)):
            lost = int(self.lost_before[row])
            yield SensorFrame(
                frame_seq=int(self.frame_seq[row]),
                device_ms=None if self.timestamp_ms is None else int(self.timestamp_ms[row]),
                values=self.values[row],
                quality=self.quality[row],
                lost_before=None if lost == _LOSS_UNKNOWN else lost,
                restarted=bool(self.restarted[row]),
            )


def read_recording(path: Path, layout: Layout = OWN_LAYOUT) -> Recording:
    """Read a recording in any layout that the decoder knows, however it is packed.

    If the last line of a recording that `RecordingWriter` wrote has no end, its last number may
    lack digits, so that line is left out.

    Raises
    ------
    RecordingError
        The file is missing, unreadable or empty, has no known columns, or has no data rows.
    """
    return read_recordings([path], layout)


def read_recordings(paths: Sequence[Path], layout: Layout = OWN_LAYOUT) -> Recording:
    """Read the segments of one recording, in order, as one recording.

    Raises
    ------
    RecordingError
        As `read_recording` does, of the first that cannot be read, or of all together.
    """
    return whole_recording(RecordingStream(paths, layout))


def whole_recording(stream: RecordingStream) -> Recording:
    """Return all frames of a recording as arrays."""
    count = len(stream)
    values = np.empty((count, N_CHANNELS), np.float32)
    quality = np.empty((count, N_CHANNELS), np.uint8)
    clock = np.empty(count, np.int64)
    frame_seq = np.empty(count, np.int64)
    lost_before = np.empty(count, np.int64)
    restarted = np.empty(count, np.bool_)
    for row, frame in enumerate(stream.frames()):
        values[row], quality[row] = frame.values, frame.quality
        clock[row] = 0 if frame.device_ms is None else frame.device_ms
        frame_seq[row] = frame.frame_seq
        lost_before[row] = _LOSS_UNKNOWN if frame.lost_before is None else frame.lost_before
        restarted[row] = frame.restarted
    for array in (values, quality, clock):
        array.flags.writeable = False
    return Recording(
        path=stream.path,
        values=values,
        quality=quality,
        timestamp_ms=clock if stream.timestamped else None,
        nominal_rate_hz=stream.nominal_rate_hz,
        counts=stream.counts,
        frame_seq=frame_seq,
        lost_before=lost_before,
        restarted=restarted,
        published=stream.published,
        torn=stream.torn,
        notes=stream.notes,
    )


def whole_lines_bytes(path: Path) -> int:
    """Return how many bytes of a file are whole lines.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _READ_BYTES)
            stream.seek(start)
            last_newline = stream.read(end - start).rfind(b"\n")
            if last_newline >= 0:
                return start + last_newline + 1
            end = start
    return 0


class RecordingWriter:
    """Write a recording: `timestamp_ms` and the twelve columns, whole lines only.

    Each row is one write of the operating system, so a killed process leaves no incomplete line; a
    row for which the disk has too little room is removed again.

    Parameters
    ----------
    target: a path, which must not exist yet, or an open binary stream, which is not closed.

    Raises
    ------
    RecordingError
        On entering: the file exists or cannot be made. On writing: the disk refused.

    Examples
    --------
    >>> import io
    >>> stream = io.BytesIO()
    >>> with RecordingWriter(stream) as recording:
    ...     recording.write(0, [216, 305, 494, 830, 2, 38, 3, 25.5, 1022.75, 28, 69.5, -48])
    >>> stream.getvalue().splitlines()[1]
    b'0,216,305,494,830,2,38,3,25.5,1022.75,28,69.5,-48'
    """

    def __init__(self, target: Path | str | BinaryIO) -> None:
        self._path = Path(target) if isinstance(target, (str, Path)) else None
        self._stream = target if not isinstance(target, (str, Path)) else None
        self._fd = -1
        self._whole_bytes = 0

    def __enter__(self) -> Self:
        if self._path is not None:
            self._fd = self._create(self._path)
        try:
            self._append(_OWN_HEADER)
        except RecordingError:
            # Without entering the block, `__exit__` is not called.
            self._close()
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def whole_bytes(self) -> int:
        """Size of the file so far; every byte of it belongs to a whole line."""
        return self._whole_bytes

    @property
    def name(self) -> str | None:
        """The file's name; None of a stream."""
        return None if self._path is None else self._path.name

    def fileno(self) -> int:
        """Return the open file's descriptor, to flush it to the disk."""
        return self._fd

    def write_all(self, t_ms: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Append readings float32[n, 12] with their times int64[n], as `write` does."""
        for row_ms, row in zip(t_ms.tolist(), values, strict=True):
            self.write(row_ms, row)

    def write(self, t_ms: int, values: Sequence[float] | NDArray[np.float32]) -> None:
        """Append one row: integer milliseconds and the 12 values as the board sent them."""
        self._append(encode_csv(values, t_ms))

    @staticmethod
    def _create(path: Path) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError as error:
            raise RecordingError(
                f"{path} exists already and a recording is never overwritten. "
                "Choose another name, or move the old one away."
            ) from error
        except OSError as error:
            raise RecordingError(
                f"Cannot make the recording {path}: {error.strerror}. "
                "Check that its folder exists and may be written to."
            ) from error

    def _append(self, line: bytes) -> None:
        if self._path is None:
            if self._stream is not None:
                self._stream.write(line)
            return
        if self._fd < 0:
            raise RecordingError(
                f"The recording {self._path} is not open; write inside its `with` block."
            )
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise self._refused(self._path, error.strerror or str(error)) from error
        if written < len(line):
            os.ftruncate(self._fd, self._whole_bytes)
            os.lseek(self._fd, self._whole_bytes, os.SEEK_SET)
            raise self._refused(self._path, "no space left for a whole line")
        self._whole_bytes += written

    def _refused(self, path: Path, reason: str) -> DiskRefusedError:
        return DiskRefusedError(
            f"Writing to the recording {path} failed: {reason}. "
            f"The rows up to here are whole ({self._whole_bytes} bytes). "
            "Free some space and start a new recording.",
            reason,
        )


def present_channels(recording: Recording | RecordingStream) -> tuple[str, ...]:
    """Return the channels of which a recording has any number."""
    if isinstance(recording, RecordingStream):
        return recording.present
    ever = (recording.quality != Quality.MISSING).any(axis=0)
    return tuple(name for name, there in zip(CHANNEL_NAMES, ever, strict=True) if there)
