"""Daemon: the continuous recording of a running service, in segments of bounded total size.

Runs in the thread of `daemon.recording.live`; `daemon.recording.maintenance` does slow work in its
own. A disk error pauses the recording, never the service, and the recording resumes by itself.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from daemon.recording.maintenance import SegmentMaintenance
from daemon.recording.segments import list_segments, remove_oldest, repair_segments
from daemon.system.backoff import Backoff
from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.recording import DiskRefusedError, RecordingError, RecordingWriter
from hardware.segment_names import segment_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from daemon.config.settings import RecordingConfig

MEGABYTE = 1_000_000

SEGMENT_SHARE = 8
"""A segment holds at most 1/8 of the bound, so that few bytes are removed at once; 2/8 are kept
free, for the segment being written and the one being compressed."""

SYNC_EVERY_S = 30.0
"""A power cut loses at most this much; a shorter interval would wear out an SD card."""

CHECK_EVERY_S = 5.0
"""Interval at which the free space of the disk is checked."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
"""The recording resumes within this time after the disk has room again."""

RESUME_MARGIN = 1.1
RESUME_BYTES = 1 << 16
"""The recording resumes at this factor of the reserve, and at least RESUME_BYTES of free space.
Otherwise a disk at the limit would pause it every minute."""

CLOSED_KEPT = 4
"""Closed segments whose times are kept, for events that are slightly older."""


class RecorderState(StrEnum):
    """What the recorder does, as published."""

    OFF = "off"
    WAITING = "waiting"
    RECORDING = "recording"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class RecorderReport:
    """The recorder's part of `health`; counts are since the start of the process.

    Attributes
    ----------
    why: reason of a pause, None otherwise.
    segment: the file being written, None if there is none.
    rows_skipped: readings received during pauses.
    segments_removed: the oldest ones, to stay within the bound.
    kept_mb: size of all segments, measured when the latest one was opened, and of that one.
    """

    state: RecorderState
    why: str | None
    segment: str | None
    rows: int
    rows_skipped: int
    pauses: int
    segments_removed: int
    kept_mb: float


class NoRoomError(ScentdError):
    """The disk has less free space than `recording.reserve_mb`."""


@dataclass(slots=True)
class _Segment:
    """A segment; `last_ms` is before `first_ms` as long as it has no rows."""

    path: Path
    first_ms: int
    last_ms: int = -1


class Recorder:
    """Writes every reading into rotating segments below one folder; a context manager.

    Parameters
    ----------
    folder: made with the first reading.
    wanted: whether to record from the start.
    on_change: called with the reason of a pause, and with None when the recording resumes.
    clock: seconds of a steady clock.
    """

    def __init__(
        self,
        folder: Path,
        config: RecordingConfig,
        *,
        wanted: bool = True,
        on_change: Callable[[str | None], None] = lambda _why: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._config = config
        self._wanted = wanted
        self._on_change = on_change
        self._clock = clock
        self._log = get_logger("recording")
        self._maintenance = SegmentMaintenance()
        self._backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
        self._open_files = ExitStack()
        self._writer: RecordingWriter | None = None
        self._segments: deque[_Segment] = deque(maxlen=CLOSED_KEPT + 1)
        self._run: int | None = None
        self._number = 0
        self._why: str | None = None
        self._retry_s = self._sync_s = self._check_s = 0.0
        self._rows = self._skipped = self._pauses = self._removed = self._kept_bytes = 0

    def __enter__(self) -> Self:
        if self._wanted:
            self._prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self._maintenance.close()
        self._close()

    @property
    def report(self) -> RecorderReport:
        """Its part of `health`; any thread may ask."""
        writer = self._writer
        open_bytes = 0 if writer is None else writer.whole_bytes
        return RecorderReport(
            state=self._state(),
            why=self._why,
            segment=None if writer is None else writer.name,
            rows=self._rows,
            rows_skipped=self._skipped,
            pauses=self._pauses,
            segments_removed=self._removed,
            kept_mb=round((self._kept_bytes + open_bytes) / MEGABYTE, 3),
        )

    def _state(self) -> RecorderState:
        if not self._wanted:
            return RecorderState.OFF
        if self._why is not None:
            return RecorderState.PAUSED
        return RecorderState.WAITING if self._writer is None else RecorderState.RECORDING

    def start(self) -> None:
        """Record from the next reading on."""
        if not self._wanted:
            self._prepare()
        self._wanted = True

    def stop(self) -> None:
        """Close the segment and record no more until `start`."""
        self._wanted = False
        self._why = None
        self._end_run()

    def _end_run(self) -> None:
        """Close the segment; the next one does not continue it."""
        self._close()
        self._run = None
        self._segments.clear()

    def configure(self, config: RecordingConfig, *, wanted: bool) -> None:
        """Apply other bounds from the next reading on, and start or stop."""
        self._config = config
        if wanted and not self._wanted:
            self.start()
        elif self._wanted and not wanted:
            self.stop()

    def segment_at(self, t_ms: int) -> str | None:
        """Return the segment that holds the reading at `t_ms`, None if that is too long ago."""
        return next(
            (item.path.name for item in self._segments if item.first_ms <= t_ms <= item.last_ms),
            None,
        )

    def segments_between(self, first_ms: int, last_ms: int) -> list[Path]:
        """Return the segments of this run that hold readings between two times, the oldest first.

        Those of too long ago are not known any more.
        """
        return [
            item.path
            for item in self._segments
            if item.first_ms <= last_ms and item.last_ms >= first_ms
        ]

    def write(self, t_ms: int, values: NDArray[np.float32]) -> None:
        """Append a reading; a disk error pauses the recording instead of being raised."""
        if not self._wanted:
            return
        if self._segments and t_ms <= self._segments[-1].last_ms:
            # The time has started again, as after another configuration.
            self._end_run()
        try:
            writer = self._writer_for(t_ms)
            if writer is not None:
                writer.write(t_ms, values)
        except (RecordingError, NoRoomError, OSError) as error:
            self._pause(error)
            writer = None
        if writer is None:
            self._skipped += 1
            return
        self._rows += 1
        self._segments[-1].last_ms = t_ms
        self._resume()

    def _writer_for(self, t_ms: int) -> RecordingWriter | None:
        """Return the writer for the next reading, None during a pause."""
        now_s = self._clock()
        if self._writer is not None and self._is_full(self._writer, t_ms):
            self._close()
        if self._writer is None:
            if now_s < self._retry_s:
                return None
            self._open(t_ms)
        if now_s >= self._check_s:
            self._check_s = now_s + CHECK_EVERY_S
            self._check_room()
            path = self._segments[-1].path
            if not path.exists():
                self._log.warning("the recording was removed; another begins", file=str(path))
                self._close()
                self._open(t_ms)
        if now_s >= self._sync_s:
            self._sync_s = now_s + SYNC_EVERY_S
            self._sync()
            self._backoff.reset()
        return self._writer

    def _is_full(self, writer: RecordingWriter, t_ms: int) -> bool:
        age_ms = t_ms - self._segments[-1].first_ms
        limit = self._limit_bytes() // SEGMENT_SHARE
        return age_ms >= self._config.segment_s * 1000 or writer.whole_bytes >= limit

    def _limit_bytes(self) -> int:
        return int(self._config.max_mb * MEGABYTE)

    def _open(self, t_ms: int) -> None:
        """Begin a segment, and remove the oldest ones to make room for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_room(resuming=self._why is not None)
        before = list_segments(self._folder)
        limit = self._limit_bytes() * (SEGMENT_SHARE - 2) // SEGMENT_SHARE
        removed = remove_oldest(before, limit)
        self._removed += len(removed)
        for segment in removed:
            self._log.info("oldest recording removed", file=segment.path.name)
        kept = [segment for segment in before if segment not in removed]
        if self._run is None:
            self._run = max((segment.run for segment in before), default=0) + 1
            self._number = 0
        self._number += 1
        utc = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / segment_name(self._run, self._number, utc)
        self._writer = self._open_files.enter_context(RecordingWriter(path))
        self._segments.append(_Segment(path, t_ms))
        self._sync_s = self._clock() + SYNC_EVERY_S
        self._kept_bytes = sum(segment.size for segment in kept)
        self._log.info("recording", file=str(path))
        if self._config.compress:
            for segment in kept:
                if not segment.compressed:
                    self._maintenance.compress(segment.path)

    def _check_room(self, *, resuming: bool = False) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        wanted = self._config.reserve_mb * MEGABYTE
        if free < (max(wanted * RESUME_MARGIN, RESUME_BYTES) if resuming else wanted):
            raise NoRoomError(
                f"only {free / MEGABYTE:.1f} MB of the disk are free, and "
                f"{self._config.reserve_mb:g} MB are reserved (recording.reserve_mb)"
            )

    def _close(self) -> None:
        if self._writer is None:
            return
        self._sync()
        self._writer = None
        self._open_files.close()
        segment = self._segments[-1]
        if segment.last_ms < segment.first_ms:
            self._segments.pop()
            segment.path.unlink(missing_ok=True)  # only a header

    def _pause(self, error: Exception) -> None:
        """Close the segment, report the reason once, and set the time of the next attempt."""
        reason = error.reason if isinstance(error, DiskRefusedError) else str(error)
        self._retry_s = self._clock() + self._backoff.next_s()
        try:
            self._close()
        except OSError as closing:
            self._log.debug("the segment closed with an error", reason=str(closing))
        if self._why is None:
            self._pauses += 1
            self._log.warning(
                f"The recording below {self._folder} pauses: {reason}. Make room, or the folder "
                "writable; it resumes by itself. Recognition continues."
            )
            self._why = reason
            self._on_change(reason)
        self._why = reason

    def _resume(self) -> None:
        if self._why is None:
            return
        self._why = None
        path = self._segments[-1].path
        self._log.warning("recording resumed", file=str(path), rows_skipped=self._skipped)
        self._on_change(None)

    def _prepare(self) -> None:
        """Start the maintenance, and repair what a power cut damaged."""
        self._maintenance.start()
        try:
            repaired = repair_segments(self._folder)
            self._kept_bytes = sum(segment.size for segment in list_segments(self._folder))
        except OSError as error:
            self._log.warning(
                f"The recordings below {self._folder} could not be repaired: {error}."
            )
            return
        if repaired.bytes_cut or repaired.removed:
            self._log.warning(
                "recordings repaired after a power cut",
                bytes_cut=repaired.bytes_cut,
                files_removed=repaired.removed,
            )

    def _sync(self) -> None:
        if self._writer is not None:
            self._maintenance.flush(self._writer.fileno())
