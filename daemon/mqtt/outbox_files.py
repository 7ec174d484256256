"""Daemon: where an outbox has its messages: in its file, in memory while that cannot be used.

Writes to disk where that is possible, keeps in memory what the disk does not take, and brings it
there later; replaces a damaged or deleted file. Knows no thread: the caller holds a lock around
every call.
"""

from __future__ import annotations

import math
import sqlite3
import time
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING

from daemon.mqtt.outbox_database import OutboxFile
from daemon.mqtt.outbox_rows import DamagedError, DeletedError
from daemon.mqtt.outbox_values import MEMORY_LIMITS
from daemon.system.disk_thread import DiskHangsError
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from daemon.mqtt.outbox_disk import AwaitedFile, OutboxDisk
    from daemon.mqtt.outbox_repair import Repaired
    from daemon.mqtt.outbox_values import Entry, Limits


class OutboxFiles:
    """The files of one outbox.

    Parameters
    ----------
    path: of the database; None keeps everything in memory.
    limits: how much may wait on disk.
    disk: opens the database.
    clock: returns the seconds by which ages are measured; `on_opened` may change them.
    on_opened: called with a file just opened, and the lowest id in memory (None without any), to
        align its ids with those of the process; may raise what the file's methods raise.
    on_replaced: called with what a replacement saved, and how many messages the damaged file held
        (None where that is not known); returns how many are lost.
    on_lost: called with what was dropped for lack of room, by reason.
    on_failed: called when the disk cannot be used.

    Attributes
    ----------
    memory_from: the lowest id in memory; infinite without any.
    replaced: how often a damaged file was replaced.
    """

    def __init__(
        self,
        path: Path | None,
        limits: Limits,
        disk: OutboxDisk,
        *,
        clock: Callable[[], int],
        on_opened: Callable[[AwaitedFile, int | None], None],
        on_replaced: Callable[[Repaired, int | None], int],
        on_lost: Callable[[Counter[str]], None],
        on_failed: Callable[[], None],
    ) -> None:
        self._path = path
        self._limits = limits
        self._disk = disk
        self._clock = clock
        self._on_opened, self._on_replaced = on_opened, on_replaced
        self._on_lost, self._on_failed = on_lost, on_failed
        self._log = get_logger("outbox")
        self._file: AwaitedFile | None = None
        self._memory: OutboxFile | None = None
        self._uncertain: set[int] = set()  # of commits that may have been made or not
        self.memory_from = math.inf
        self.replaced = 0

    def write(self, entries: list[Entry], acknowledged: set[int], *, after: int) -> set[int]:
        """Write new entries and remove acknowledged ones; return the ids removed.

        Up to the id `after` none is dropped for lack of room.
        """
        try_disk = self._disk.why is None or time.monotonic() >= self._disk.retry_s
        if try_disk and self._write_disk(entries, acknowledged, after):
            return acknowledged
        return self._write_memory(entries, acknowledged, after)

    def next_after(self, entry_id: int, rewrite: Callable[[], None]) -> Entry | None:
        """Return the entry with the next higher id, None when there is none.

        `rewrite` is called after the replacement of a damaged file, to write what it may lack.
        """
        entry = None
        for attempt in range(2):  # a damaged file is replaced at once
            if self._file is None:
                break
            try:
                entry = self._file.next_after(entry_id)
                break
            except (DamagedError, sqlite3.Error, OSError) as error:
                if isinstance(error, DamagedError) and attempt == 0 and self._replace(error):
                    rewrite()
                else:
                    self._close_file()
                    self._fall_back(error)
        if entry is None and self._memory is not None:
            entry = self._memory.next_after(entry_id)
        return entry

    def size(self) -> tuple[int, int, int | None]:
        """Return how many messages there are, their bytes, and when the oldest was put."""
        files = [file for file in (self._file, self._memory) if file is not None]
        puts = [file.oldest_put_s for file in files if file.oldest_put_s is not None]
        count, size_bytes = sum(f.count for f in files), sum(f.size_bytes for f in files)
        return count, size_bytes, min(puts, default=None)

    def close(self, acknowledged: set[int], *, after: int) -> None:
        """Bring what is in memory to the disk, if it takes that, and close the files."""
        if self._memory is not None and self._memory.count and self._path is not None:
            self._write_disk([], acknowledged, after)
        if self._memory is not None and self._memory.count:
            self._log.warning("messages only in memory are lost", count=self._memory.count)
        self._close_file()
        if self._memory is not None:
            self._memory.close()
        self._disk.close()

    def _write_memory(self, entries: list[Entry], acknowledged: set[int], after: int) -> set[int]:
        """Return the ids removed; those on disk wait until it can be written."""
        if self._memory is None:
            if not entries:
                return set()
            self._memory, self.memory_from = OutboxFile(None), entries[0].id
        self._on_lost(
            self._memory.write(
                removed=acknowledged,
                added=entries,
                limits=MEMORY_LIMITS,
                after=after,
                now_s=self._clock(),
            )
        )
        return {entry_id for entry_id in acknowledged if entry_id >= self.memory_from}

    def _write_disk(self, entries: list[Entry], acknowledged: set[int], after: int) -> bool:
        """Bring the disk up to date, with what is in memory; return False if that fails."""
        if self._path is None:
            return False
        in_memory = () if self._memory is None else self._memory.entries()
        added = [e for e in chain(in_memory, entries) if e.id not in acknowledged]
        for attempt in range(2):  # a damaged or deleted file is replaced at once
            try:
                file = self._opened()
                lost = file.write(
                    removed=acknowledged | self._uncertain,
                    added=added,
                    limits=self._limits,
                    after=after,
                    now_s=self._clock(),
                    touch=self._disk.why is not None,
                )
            except DamagedError as error:
                if attempt or not self._replace(error):
                    self._fall_back(error)
                    return False
            except DeletedError as error:
                if not self._put_back(error):
                    return False
            except (sqlite3.Error, OSError) as error:
                self._uncertain |= {entry.id for entry in added}
                self._fall_back(error)
                return False
            else:
                self._uncertain.clear()
                self._on_lost(lost)
                self._return_to_disk()
                return True
        return False

    def _opened(self) -> AwaitedFile:
        if self._file is None:
            file = self._disk.open()
            with ExitStack() as undone:
                undone.callback(file.close)
                memory = self._memory
                waits = memory is not None and memory.count > 0
                self._on_opened(file, memory.first_id() if memory is not None and waits else None)
                undone.pop_all()
            self._file = file
        return self._file

    def _replace(self, error: DamagedError) -> bool:
        """Replace a damaged file by one with all that can be read of it; False if that fails."""
        held = None if self._file is None else self._file.count
        try:
            repaired = self._disk.replace()
        except (sqlite3.Error, OSError, DamagedError) as failure:
            self._log.error("the outbox's damaged file cannot be replaced", why=str(failure))
            return False
        finally:
            self._close_file()  # not before: SQLite then writes a damaged log into the file
        lost = self._on_replaced(repaired, held)
        self.replaced += 1
        self._log.error(
            "the outbox's file is damaged and was set aside; a new one has all that can be read",
            why=str(error),
            file=repaired.aside,
            messages_saved=len(repaired.ids),
            messages_lost=lost,
        )
        return True

    def _put_back(self, error: DeletedError) -> bool:
        """Write a deleted file again; if that fails it stays open, for the next attempt."""
        assert self._file is not None  # noqa: S101 - it was open when it was deleted
        try:
            self._file.put_back()
        except (sqlite3.Error, OSError, DamagedError) as failure:
            self._fall_back(failure)
            return False
        self._close_file()
        self._log.error(
            "the outbox's file was deleted; it is written again, with all its messages",
            why=str(error),
        )
        return True

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _fall_back(self, error: Exception) -> None:
        """Use memory until the disk can be written again."""
        if isinstance(error, DiskHangsError):
            self._file = None  # its own thread closes it
        self._disk.fail(error)
        self._on_failed()

    def _return_to_disk(self) -> None:
        """Let go of the memory: all entries are on disk."""
        if self._memory is not None:
            self._memory.close()
            self._memory, self.memory_from = None, math.inf
        self._disk.work_again()
