"""Daemon: the recording that a running service keeps of its board, in segments, within bounds.

Belongs to the pipeline's thread; what takes long (flushing, compressing) is done by one thread
of its own, which it starts and stops. Trouble with the disk pauses the recording, never the
service, and the recording resumes by itself.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Self

from daemon.recording.segments import compress, make_room, mend, segment_name, segments_in
from daemon.system.backoff import Backoff
from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.recording import DiskRefusedError, RecordingError, RecordingWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from daemon.config.settings import RecordingConfig

MEGABYTE = 1_000_000

SEGMENT_SHARE = 8
"""A segment holds at most this part of the bound, so that making room never costs much at once;
two such parts are kept free: for the segment being written and for the one being compressed."""

SYNC_EVERY_S = 30.0
"""A power cut costs at most so much; oftener would only wear out an SD card."""

CHECK_EVERY_S = 5.0
"""How often the free space of the disk is looked at."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
"""A disk with room again is recorded to within this time."""

RESUME_MARGIN = 1.1
RESUME_BYTES = 1 << 16
"""Free space to resume at: so much relative to the reserve, and this at least. Without it, a disk
at the edge would pause the recording every minute."""

CLOSED_KEPT = 4
"""Segments remembered by the times of their first and last rows, for events of a moment ago."""


class RecorderState(StrEnum):
    """What the recorder does, as published."""

    OFF = "off"
    WAITING = "waiting"
    RECORDING = "recording"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class RecorderReport:
    """The recorder's own numbers.

    Attributes
    ----------
    state: what it does now.
    why: why it is paused, None otherwise.
    segment: the file being written, None where there is none.
    rows: written since the start of the process.
    rows_skipped: readings that came while it was paused.
    pauses: how often it had to pause.
    segments_removed: the oldest, to stay within the bound.
    kept_mb: what all segments take, to the last closing of one.
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
    """The disk has less room than the owner reserved for everything else."""


class Recorder:
    """Writes every frame into rotating segments below one folder; a context manager.

    Parameters
    ----------
    folder : Path
        Made with the first frame.
    config : RecordingConfig
        The bounds.
    wanted : bool
        Whether to record from the start.
    on_change : callable
        Called with the reason of a pause, and with None when the recording resumes.
    clock : callable
        Seconds of a steady clock.
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
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._ending = Event()
        self._backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
        self._writer: RecordingWriter | None = None
        self._path: Path | None = None
        self._run: int | None = None
        self._number = 0
        self._closed: deque[tuple[int, int, str]] = deque(maxlen=CLOSED_KEPT)
        self._first_ms = self._last_ms = -1
        self._why: str | None = None
        self._cannot_pack = False
        self._retry_s = self._sync_s = self._check_s = 0.0
        self._rows = self._skipped = self._pauses = self._removed = self._kept_bytes = 0

    def __enter__(self) -> Self:
        """Bring what an earlier run left into order."""
        if self._wanted:
            self._get_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._close()
        self._helper.shutdown()

    @property
    def report(self) -> RecorderReport:
        """Its own numbers, now."""
        open_bytes = 0 if self._writer is None else self._writer.whole_bytes
        return RecorderReport(
            state=self._state(),
            why=self._why,
            segment=None if self._path is None else self._path.name,
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
        """Record from the next frame on."""
        if not self._wanted:
            self._get_ready()
        self._wanted = True

    def stop(self) -> None:
        """Close the segment and record no more until `start`."""
        self._wanted = False
        self._why = None
        self._end_run()

    def _end_run(self) -> None:
        """Close the segment; what comes later does not follow on it."""
        self._close()
        self._run = None
        self._last_ms = -1
        self._closed.clear()

    def configure(self, config: RecordingConfig, *, wanted: bool) -> None:
        """Go by other bounds from the next frame on, and start or stop as they say."""
        self._config = config
        if wanted and not self._wanted:
            self.start()
        elif self._wanted and not wanted:
            self.stop()

    def segment_at(self, t_ms: int) -> str | None:
        """Return the segment that holds the reading at `t_ms`, None if none of late does."""
        spans = list(self._closed)
        if self._path is not None:
            spans.append((self._first_ms, self._last_ms, self._path.name))
        return next((name for first, last, name in spans if first <= t_ms <= last), None)

    def write(self, t_ms: int, values: NDArray[np.float32]) -> None:
        """Append a frame, in a new segment where it is time for one; never raises for a disk."""
        if not self._wanted:
            return
        if t_ms <= self._last_ms:
            # Time began anew, as after another configuration: so does the run.
            self._end_run()
        try:
            writer = self._ready(t_ms)
            if writer is not None:
                writer.write(t_ms, values)
        except (RecordingError, NoRoomError, OSError) as error:
            self._pause(error)
            writer = None
        if writer is None:
            self._skipped += 1
            return
        self._rows += 1
        self._last_ms = t_ms
        self._resume()

    def _ready(self, t_ms: int) -> RecordingWriter | None:
        """Return the writer for the next frame, None while there is none to be had."""
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
            if self._path is not None and not self._path.exists():
                self._log.warning("the recording was removed; another begins", file=str(self._path))
                self._close()
                self._open(t_ms)
        if now_s >= self._sync_s:
            self._sync_s = now_s + SYNC_EVERY_S
            self._sync()
            self._backoff.reset()
        return self._writer

    def _is_full(self, writer: RecordingWriter, t_ms: int) -> bool:
        old_ms = t_ms - self._first_ms
        limit = self._limit_bytes() // SEGMENT_SHARE
        return old_ms >= self._config.segment_s * 1000 or writer.whole_bytes >= limit

    def _limit_bytes(self) -> int:
        return int(self._config.max_mb * MEGABYTE)

    def _open(self, t_ms: int) -> None:
        """Begin a segment, the oldest ones giving way to it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_room(resuming=self._why is not None)
        there = segments_in(self._folder)
        gone = make_room(there, self._limit_bytes() * (SEGMENT_SHARE - 2) // SEGMENT_SHARE)
        self._removed += len(gone)
        for segment in gone:
            self._log.info("oldest recording removed", file=segment.path.name)
        if self._run is None:
            self._run = max((segment.run for segment in there), default=0) + 1
            self._number = 0
        self._number += 1
        utc = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / segment_name(self._run, self._number, utc)
        self._writer = RecordingWriter(path).__enter__()
        self._path = path
        self._first_ms = t_ms
        self._sync_s = self._clock() + SYNC_EVERY_S
        self._kept_bytes = sum(segment.size for segment in there if segment not in gone)
        self._log.info("recording", file=str(path))
        if self._config.compress:
            plain = [item.path for item in there if item not in gone and not item.compressed]
            for closed in plain:
                self._delegate(self._compress, closed)

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
        self._writer.__exit__(None, None, None)
        path, self._writer, self._path = self._path, None, None
        if path is None:
            return
        if self._first_ms > self._last_ms:
            path.unlink(missing_ok=True)  # a header alone is no recording
        else:
            self._closed.append((self._first_ms, self._last_ms, path.name))

    def _pause(self, error: Exception) -> None:
        """Close the segment, say why once, and look again later."""
        reason = error.reason if isinstance(error, DiskRefusedError) else str(error)
        self._retry_s = self._clock() + self._backoff.next_s()
        try:
            self._close()
        except OSError as closing:
            self._log.debug("the segment closed with an error", reason=str(closing))
        if self._why is None:
            self._pauses += 1
            self._why = reason
            self._log.warning(
                f"The recording below {self._folder} pauses: {reason}. Make room, or the folder "
                "writable; it resumes by itself. Recognition goes on."
            )
            self._on_change(reason)
        self._why = reason

    def _resume(self) -> None:
        if self._why is None:
            return
        self._why = None
        self._log.warning("recording resumed", file=str(self._path), rows_skipped=self._skipped)
        self._on_change(None)

    def _get_ready(self) -> None:
        """Mend what an earlier run left, and have the helper's thread before memory is short."""
        self._delegate(_nothing)
        try:
            mended = mend(self._folder)
            self._kept_bytes = sum(segment.size for segment in segments_in(self._folder))
        except OSError as error:
            self._log.warning(f"What lies below {self._folder} could not be mended: {error}.")
            return
        if mended.bytes_cut or mended.removed:
            self._log.warning(
                "recordings mended after a power cut",
                bytes_cut=mended.bytes_cut,
                files_removed=mended.removed,
            )

    def _delegate(self, task: Callable[..., None], *args: object) -> bool:
        """Let the helper do something; return False where the system has no thread to spare."""
        try:
            self._helper.submit(task, *args)
        except RuntimeError as error:
            self._log.debug("the recorder's helper is not there", reason=str(error))
            return False
        return True

    def _sync(self) -> None:
        """Let the helper flush the segment to the disk, which may take a card a second."""
        if self._writer is not None and not self._ending.is_set():
            # Its own descriptor: the segment may be closed before its turn comes.
            try:
                descriptor = os.dup(self._writer.fileno())
            except OSError as error:
                self._log.debug("flushing is left to the system", reason=str(error))
                return
            if not self._delegate(self._flush, descriptor):
                os.close(descriptor)

    # In the helper's thread

    def _flush(self, descriptor: int) -> None:
        try:
            if not self._ending.is_set():
                os.fdatasync(descriptor)
        except OSError as error:
            self._log.debug("flushing failed", reason=str(error))
        finally:
            os.close(descriptor)

    def _compress(self, path: Path) -> None:
        if self._ending.is_set():
            return  # the next start does it
        try:
            compress(path, self._ending.is_set)
        except FileNotFoundError:
            return  # it gave way meanwhile
        except OSError as error:
            # Tried again with every new segment: one word about it is enough.
            tell = self._log.debug if self._cannot_pack else self._log.warning
            tell(f"{path} could not be compressed: {error}. It stays as it is for now.")
            self._cannot_pack = True
        else:
            self._cannot_pack = False


def _nothing() -> None:
    """Be a first task: it starts the thread."""
