"""Daemon: a thread that flushes recordings to the disk and compresses closed segments.

Both may take a second on an SD card, and the pipeline's thread must not wait. Work that is not done
when the service ends is done after its next start, or by the operating system.
"""

from __future__ import annotations

import os
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from daemon.recording.segments import compress_segment
from daemon.system.disk_thread import DiskThread
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path


FLUSHES_LIMIT = 50
"""Tasks that may wait for a disk that hangs; each flush holds a descriptor."""

CLOSE_WITHIN_S = 0.2
"""How long the end waits for a flush; a compression notices it."""


class SegmentMaintenance:
    """Owns the thread, from `start` or the first task to `close`."""

    def __init__(self) -> None:
        self._disk = DiskThread("recorder maintenance")
        self._ending = Event()
        self._compression_failed = False
        self._log = get_logger("recording")

    def start(self) -> None:
        """Start the thread now, since later there may be no memory for it."""
        try:
            self._disk.start()
        except RuntimeError as error:
            self._log.debug("the recorder's thread is missing", reason=str(error))

    def close(self) -> None:
        """Cancel the tasks and end the thread; a disk that hangs is not awaited."""
        self._ending.set()
        self._disk.close(CLOSE_WITHIN_S)

    def flush(self, descriptor: int) -> None:
        """Flush an open file to the disk; the caller may close it meanwhile."""
        if self._ending.is_set():
            return
        try:
            duplicate = os.dup(descriptor)
        except OSError as error:
            self._log.debug("flushing is left to the system", reason=str(error))
            return
        self.start()
        if not self._disk.submit(partial(self._flush, duplicate), limit=FLUSHES_LIMIT):
            os.close(duplicate)

    def compress(self, path: Path) -> None:
        """Replace a closed segment by a compressed one."""
        self.start()
        self._disk.submit(partial(self._compress, path))

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
            return
        try:
            compress_segment(path, self._ending.is_set)
        except FileNotFoundError:
            return  # removed meanwhile to make room
        except OSError as error:
            # Repeated with every new segment: one warning is enough.
            log = self._log.debug if self._compression_failed else self._log.warning
            log(f"{path} could not be compressed: {error}. It stays uncompressed for now.")
            self._compression_failed = True
        else:
            self._compression_failed = False
