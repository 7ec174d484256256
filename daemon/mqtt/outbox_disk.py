"""Daemon: the outbox's file on a disk that may hang: each of its methods is awaited a bounded time.

The methods are those of `daemon.mqtt.outbox_database`, which run in a thread of their own. A file
whose method has not ended in time is given up: that thread closes it when the disk answers again,
and until then no other can be opened.
"""

from __future__ import annotations

import errno
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from daemon.mqtt.outbox_database import DiskUse, OutboxFile
from daemon.mqtt.outbox_repair import finish_replacement, put_back_deleted, replace_damaged
from daemon.mqtt.outbox_values import RETRY_S
from daemon.system.disk_thread import HANGS_AFTER_S, DiskHangsError, DiskThread
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from daemon.mqtt.outbox_repair import Repaired
    from daemon.mqtt.outbox_values import Entry, Limits

_LEAST_S = 0.05

Result = TypeVar("Result")


class OutboxDisk:
    """Opens the outbox's file, replaces a damaged one, and knows whether the disk works.

    Parameters
    ----------
    path: of the file; None for an outbox without one.

    Attributes
    ----------
    use: counts commits.
    why: why the disk cannot be used, None where it can.
    retry_s: when to try it again, on the monotonic clock.
    fallbacks: how often it failed.
    deadline_s: on the same clock; nothing is awaited longer. At the end of the service.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread = DiskThread("outbox disk")
        if path is not None:
            self._thread.start()
        self._log = get_logger("outbox")
        self.use = DiskUse()
        self.why: str | None = None if path else "the outbox has no file"
        self.retry_s = self.deadline_s = math.inf
        self.fallbacks = 0

    def fail(self, error: Exception) -> None:
        """Note that the disk cannot be used, and why."""
        if self.why is None:
            self.fallbacks += 1
            self._log.error(
                "the outbox cannot be written to disk; messages wait in memory meanwhile",
                why=str(error),
                file=str(self._path),
            )
        self.why = str(error)
        self.retry_s = time.monotonic() + RETRY_S

    def work_again(self) -> None:
        """Note that the disk can be used."""
        if self.why is not None:
            # At the level of the failure, so that a log filtered by level shows both.
            self._log.error("the outbox is written to disk again", file=str(self._path))
            self.why, self.retry_s = None, math.inf

    @property
    def hangs(self) -> bool:
        """Whether the disk has not answered for a while."""
        return self._thread.unanswered_s > HANGS_AFTER_S

    def _until_s(self, begun_s: float) -> float:
        """Return how long to wait for the disk, on the monotonic clock."""
        return min(begun_s + HANGS_AFTER_S, max(begun_s + _LEAST_S, self.deadline_s))

    def open(self) -> AwaitedFile:
        """Return the file, after a replacement that a kill interrupted.

        Raises
        ------
        DamagedError, sqlite3.Error, OSError: as `OutboxFile` does, or the disk hangs.
        """

        def opened() -> OutboxFile:
            if self._path is not None:
                finish_replacement(self._path)
            return OutboxFile(self._path, self.use)

        return AwaitedFile(self, self.call(opened, late=_close))

    def replace(self) -> Repaired:
        """Replace the damaged file, as `replace_damaged` does."""
        if self._path is None:
            raise FileNotFoundError(errno.ENOENT, "the outbox has no file")
        return self.call(replace_damaged, self._path, late=lambda _: None)

    def call(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        late: Callable[[Result | None], object],
    ) -> Result:
        """Return what a function returns; parameters and errors as of `DiskThread.call`."""
        return self._thread.call(function, *arguments, until_s=self._until_s, late=late)

    def close(self) -> None:
        """End the thread; a disk that hangs is not awaited."""
        now_s = time.monotonic()
        self._thread.close(0.0 if self.why else self._until_s(now_s) - now_s)


class AwaitedFile:
    """An open outbox on disk; its methods are those of `OutboxFile` and may raise DiskHangsError.

    Attributes
    ----------
    count, size_bytes, oldest_put_s: as of the latest method that ended.
    """

    def __init__(self, disk: OutboxDisk, file: OutboxFile) -> None:
        self._disk = disk
        self._file = file
        self._note()

    def _note(self) -> None:
        file = self._file
        self.count, self.size_bytes = file.count, file.size_bytes
        self.oldest_put_s = file.oldest_put_s

    def _call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        result = self._disk.call(function, *arguments, late=lambda _: self._file.close())
        self._note()
        return result

    def write(
        self,
        *,
        removed: Iterable[int],
        added: Sequence[Entry],
        limits: Limits,
        after: int,
        now_s: int,
        touch: bool = False,
    ) -> Counter[str]:
        """Remove, add and keep within the limits, in one transaction."""

        def write() -> Counter[str]:
            return self._file.write(
                removed=removed, added=added, limits=limits, after=after, now_s=now_s, touch=touch
            )

        return self._call(write)

    def next_after(self, entry_id: int) -> Entry | None:
        """Return the entry with the next higher id, None when there is none."""
        return self._call(self._file.next_after, entry_id)

    def first_id(self) -> int:
        """Return the lowest id, 1 of an empty outbox."""
        return self._call(self._file.first_id)

    def last_id(self) -> int:
        """Return the highest id, 0 of an empty outbox."""
        return self._call(self._file.last_id)

    def last_put_s(self) -> int:
        """Return when the newest entry was put, 0 of an empty outbox."""
        return self._call(self._file.last_put_s)

    def newest_retained(self) -> dict[str, int]:
        """Return, per topic with retained messages, the id of the newest of them."""
        return self._call(self._file.newest_retained)

    def shift_below(self, entry_id: int) -> None:
        """Renumber everything so that it comes before `entry_id`, order kept."""
        self._call(self._file.shift_below, entry_id)

    def put_back(self) -> None:
        """Keep what the deleted file holds for the next one, as `put_back_deleted` does."""
        self._call(put_back_deleted, self._file)

    def close(self) -> None:
        """Write the log into the file and close it; a disk that hangs is not awaited."""
        with suppress(DiskHangsError):
            self._disk.call(self._file.close, late=lambda _: None)


def _close(file: OutboxFile | None) -> None:
    if file is not None:
        file.close()
