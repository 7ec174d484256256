"""Daemon: the messages that wait for the broker, in order, on disk, until the broker has them.

The pipeline puts messages in; `daemon.mqtt.session` takes them out and reports which of them the
broker has acknowledged. A message can be taken only once it is on disk. One thread does all the
writing, so that a slow card delays neither the readings nor the broker. Knows no MQTT client; the
SQL is in `daemon.mqtt.outbox_database`. While the disk cannot be written, or hangs
(`daemon.mqtt.outbox_disk`), the messages wait in memory, and go to disk as soon as it can be
written again.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Self

from daemon.config.settings import OutboxConfig
from daemon.mqtt.outbox_database import OutboxFile
from daemon.mqtt.outbox_disk import AwaitedFile, OutboxDisk
from daemon.mqtt.outbox_rows import DamagedError
from daemon.mqtt.outbox_values import (
    COMMIT_EVERY_S,
    LOSSES,
    MEMORY_LIMITS,
    REMOVE_WITHIN_S,
    Entry,
    Limits,
    Message,
    OutboxReport,
    Priority,
    limits_from,
)
from daemon.system.disk_thread import DiskHangsError
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Entry", "Limits", "Message", "Outbox", "OutboxReport", "Priority"]

_TAKE_WITHIN_S = 0.3
"""How long `take` waits for a commit; the writing thread calls back after it."""


class Outbox:
    """Messages in order, from `put` until `acknowledge`; a context manager with a writing thread.

    All methods may be called from any thread, `take` and `requeue_in_flight` from one at a time.

    Parameters
    ----------
    path: of the database; None keeps everything in memory.
    limits: how much may wait on disk; the configuration's defaults unless given.

    Attributes
    ----------
    files: opens the file, and knows whether its disk works.
    """

    def __init__(self, path: Path | None, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits_from(OutboxConfig()) if limits is None else limits
        self._log = get_logger("outbox")
        # Two locks, taken in this order: `_files_lock` is held while the disk works and guards the
        # files and the cursor; `_lock` is held for moments only and guards all the rest.
        self._files_lock = threading.Lock()
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
        self._on_ready: Callable[[], None] = lambda: None
        self.files = OutboxDisk(path)
        self._disk: AwaitedFile | None = None
        self._memory: OutboxFile | None = None
        self._memory_from = math.inf  # the lowest id in memory
        self._uncertain: set[int] = set()  # of commits that may have been made or not
        self._aligned = False  # whether the ids on disk are those of this process
        self._cursor = self._sent_up_to = 0  # the ids taken last; up to the second none is dropped
        self._closing = self._urgent = self._grouping = False
        self._unwritten: list[Entry] = []
        self._in_flight: set[int] = set()
        self._held: set[int] = set()  # taken, and refused for now
        self._rewind_to = math.inf  # to take again what lies after it
        self._acknowledged: set[int] = set()  # and not removed from the files yet
        self._newest_id = self._count = self._size_bytes = self._replaced = 0
        self._newest_retained: dict[str, int] = {}
        self._clock_s = -time.monotonic()
        self._remove_by_s = math.inf
        self._oldest_put_s: int | None = None
        self._lost: Counter[str] = Counter()
        with self._files_lock:
            self._write()
        self._committed_s = -math.inf

    def start(self) -> Self:
        """Start the writing thread; the caller must `close` the outbox."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the remaining messages and end the thread; a disk that hangs is not awaited."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join()  # it waits for the disk no longer than `OutboxDisk` does
        with self._files_lock:
            if self._memory is not None and self._memory.count and self._path is not None:
                self._write_disk([], self._acknowledged)
            if self._memory is not None and self._memory.count:
                self._log.warning("messages only in memory are lost", count=self._memory.count)
            self._close_disk()
            if self._memory is not None:
                self._memory.close()
            self.files.close()

    def set_ready_callback(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready`, in the writing thread, whenever there may be something to take."""
        self._on_ready = on_ready

    def check(self) -> None:
        """Raise if the writing thread has died, which only a bug makes it do."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._closing:
            raise ScentdError(
                "The thread that writes the outbox has ended by itself, which is a bug; its "
                "traceback is in the log. Restart scentd and report it."
            )

    def put(self, message: Message) -> None:
        """Keep `message` until it is acknowledged; those dropped from a full outbox are counted."""
        with self._lock:
            self._newest_id += 1
            if message.retain:
                self._newest_retained[message.topic] = self._newest_id
            self._unwritten.append(Entry(self._newest_id, self._now_s(), message))
            self._urgent = self._urgent or message.priority is Priority.KEPT
            self._lock.notify_all()

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """Write what the block puts with one commit: the predictions of several models, say."""
        with self._lock:
            self._grouping = True
        try:
            yield
        finally:
            with self._lock:
                self._grouping = False
                self._lock.notify_all()

    def take(self) -> Entry | None:
        """Return the oldest written entry not in flight, which then is, or None."""
        if not self._files_lock.acquire(timeout=_TAKE_WITHIN_S):
            return None  # the disk works; afterwards the callback is called
        try:
            with self._lock:
                self._cursor = int(min(self._cursor, self._rewind_to))
                self._rewind_to = math.inf
            while (entry := self._next_entry()) is not None:
                self._cursor = entry.id
                with self._lock:
                    if entry.id not in self._in_flight and entry.id not in self._acknowledged:
                        self._in_flight.add(entry.id)
                        return entry
            return None
        finally:
            self._files_lock.release()

    def acknowledge(self, entry_id: int, lost: str | None = None) -> None:
        """Remove an entry: the broker has it, or it is lost for one of the reasons in `LOSSES`."""
        with self._lock:
            if entry_id in self._in_flight:
                self._lost.update([lost] if lost else [])
                self._in_flight.remove(entry_id)
                self._acknowledged.add(entry_id)
                self._remove_by_s = min(self._remove_by_s, time.monotonic() + REMOVE_WITHIN_S)
                self._lock.notify_all()

    def hold(self, entry_id: int) -> None:
        """Keep an entry, refused for now, until `requeue_in_flight`; a full outbox may drop it."""
        with self._lock:
            self._in_flight.discard(entry_id)
            self._held.add(entry_id)

    def requeue_in_flight(self) -> None:
        """Let all that were taken and not acknowledged be taken again."""
        with self._lock:
            if waiting := self._in_flight | self._held:
                self._rewind_to = min(self._rewind_to, min(waiting) - 1)
                self._in_flight, self._held = set(), set()

    def flush(self, timeout_s: float) -> bool:
        """Write everything now; return whether that was done in time."""
        with self._lock:
            if self._unwritten:
                self._urgent = True
                self._lock.notify_all()
            return self._lock.wait_for(lambda: not self._unwritten, timeout_s)

    def newest_id(self) -> int:
        """Return the id of the newest message ever put, 0 before the first."""
        with self._lock:
            return self._newest_id

    def newest_retained(self) -> dict[str, int]:
        """Return, per topic, the id of the newest retained message."""
        with self._lock:
            return dict(self._newest_retained)

    @property
    def depth(self) -> int:
        """Messages not yet acknowledged."""
        with self._lock:
            return max(0, self._count + len(self._unwritten) - len(self._acknowledged))

    def report(self) -> OutboxReport:
        """Return the numbers for `health`."""
        with self._lock:
            put_s = self._oldest_put_s
            return OutboxReport(
                store="disk" if self.files.why is None else "memory",
                why=self.files.why,
                depth=self.depth,
                size_bytes=self._size_bytes,
                oldest_s=None if put_s is None else self._now_s() - put_s,
                dropped={kind: self._lost[kind] for kind in LOSSES},
                fallbacks=self.files.fallbacks,
                set_aside=self._replaced,
                commits=self.files.use.commits,
                written_bytes=self.files.use.written_bytes,
            )

    def _now_s(self) -> int:
        return int(self._clock_s + time.monotonic())

    # From here on: the writing thread, or a caller that holds `_files_lock`.

    def _serve(self) -> None:
        while self._await_work():
            with self._files_lock:
                self._write()
            self._on_ready()

    def _await_work(self) -> bool:
        """Sleep until something is to be written; return False at the end."""
        with self._lock:
            while (wait_s := self._due_s() - time.monotonic()) > 0:
                if self._closing:
                    return bool(self._unwritten) or self._remove_by_s < math.inf
                self._lock.wait(None if wait_s == math.inf else wait_s)
            return True

    def _due_s(self) -> float:
        """Return when to write next, on the monotonic clock."""
        due_s = min(self.files.retry_s, self._remove_by_s)
        if not self._unwritten or self._grouping:
            return due_s
        if self._urgent or self.files.why is not None:
            return -math.inf
        return min(due_s, self._committed_s + COMMIT_EVERY_S)

    def _write(self) -> None:
        """Write the new entries and remove the acknowledged ones, on disk or in memory."""
        with self._lock:
            entries, acknowledged = list(self._unwritten), set(self._acknowledged)
            self._urgent, self._remove_by_s = False, math.inf
            self._sent_up_to = max(self._in_flight, default=0)
        try_disk = self.files.why is None or time.monotonic() >= self.files.retry_s
        if try_disk and self._write_disk(entries, acknowledged):
            removed = acknowledged
        else:
            removed = self._write_memory(entries, acknowledged)
        with self._lock:
            del self._unwritten[: len(entries)]
            self._acknowledged -= removed
            self._committed_s = time.monotonic()
            self._measure()
            self._lock.notify_all()

    def _write_memory(self, entries: list[Entry], acknowledged: set[int]) -> set[int]:
        """Return the ids removed; those on disk wait until it can be written."""
        if self._memory is None:
            if not entries:
                return set()
            self._memory, self._memory_from = OutboxFile(None), entries[0].id
        self._count_lost(
            self._memory.write(
                removed=acknowledged,
                added=entries,
                limits=MEMORY_LIMITS,
                after=self._sent_up_to,
                now_s=self._now_s(),
            )
        )
        return {entry_id for entry_id in acknowledged if entry_id >= self._memory_from}

    def _write_disk(self, entries: list[Entry], acknowledged: set[int]) -> bool:
        """Bring the disk up to date, with what is in memory; return False if that fails."""
        if self._path is None:
            return False
        in_memory = () if self._memory is None else self._memory.entries()
        added = [e for e in chain(in_memory, entries) if e.id not in acknowledged]
        for attempt in range(2):  # a damaged file is replaced at once
            try:
                disk = self._opened()
                lost = disk.write(
                    removed=acknowledged | self._uncertain,
                    added=added,
                    limits=self._limits,
                    after=self._sent_up_to,
                    now_s=self._now_s(),
                    touch=self.files.why is not None,
                )
            except DamagedError as error:
                if attempt or not self._replace(error):
                    self._fall_back(error)
                    return False
            except (sqlite3.Error, OSError) as error:
                self._uncertain |= {entry.id for entry in added}
                self._fall_back(error)
                return False
            else:
                self._uncertain.clear()
                self._count_lost(lost)
                self._return_to_disk()
                return True
        return False

    def _next_entry(self) -> Entry | None:
        """Return the entry after the cursor."""
        entry = None
        for attempt in range(2):  # a damaged file is replaced at once
            if self._disk is None:
                break
            try:
                entry = self._disk.next_after(self._cursor)
                break
            except (DamagedError, sqlite3.Error, OSError) as error:
                if isinstance(error, DamagedError) and attempt == 0 and self._replace(error):
                    self._write()
                else:
                    self._close_disk()
                    self._fall_back(error)
                with self._lock:
                    self._measure()
        if entry is None and self._memory is not None:
            entry = self._memory.next_after(self._cursor)
        return entry

    def _opened(self) -> AwaitedFile:
        if self._disk is None:
            disk = self.files.open()
            with ExitStack() as undone:
                undone.callback(disk.close)
                self._adopt(disk)
                undone.pop_all()
            self._disk = disk
        return self._disk

    def _adopt(self, disk: AwaitedFile) -> None:
        """Align the ids and ages in a file just opened with those of this process."""
        last_id, last_put_s, retained = disk.last_id(), disk.last_put_s(), disk.newest_retained()
        with self._lock:
            self._clock_s += max(0, last_put_s - self._now_s())
            if self._newest_id == 0:
                self._newest_id, self._newest_retained = last_id, retained
            first_new = self._newest_id + 1 - len(self._unwritten)
        if self._memory is not None and self._memory.count:
            first_new = self._memory.first_id()
        if last_id >= first_new and not self._aligned:
            disk.shift_below(first_new)  # it could not be opened at the start: it is older
        self._aligned = True
        self._cursor = min(self._cursor, disk.first_id() - 1)

    def _replace(self, error: DamagedError) -> bool:
        """Replace a damaged file by one with all that can be read of it; False if that fails."""
        held = None if self._disk is None else self._disk.count
        try:
            repaired = self.files.replace()
        except (sqlite3.Error, OSError, DamagedError) as failure:
            self._log.error("the outbox's damaged file cannot be replaced", why=str(failure))
            return False
        finally:
            self._close_disk()  # not before: SQLite then writes a damaged log into the file
        with self._lock:
            on_disk = {one for one in self._acknowledged if one < self._memory_from}
            # A process that had the file open knows what it held.
            lost = repaired.lost
            if held is not None:
                lost = max(0, held - len(on_disk | repaired.ids))
            self._lost["damaged"] += lost
            self._acknowledged -= on_disk - repaired.ids
            in_memory = {one for one in self._in_flight if one >= self._memory_from}
            self._in_flight = in_memory | (self._in_flight & repaired.ids)
        self._replaced += 1
        self._log.error(
            "the outbox's file is damaged and was set aside; a new one has all that can be read",
            why=str(error),
            file=repaired.aside,
            messages_saved=len(repaired.ids),
            messages_lost=lost,
        )
        return True

    def _close_disk(self) -> None:
        if self._disk is not None:
            self._disk.close()
        self._disk = None

    def _fall_back(self, error: Exception) -> None:
        """Use memory until the disk can be written again."""
        if isinstance(error, DiskHangsError):
            self._disk = None  # its own thread closes it
        self.files.fail(error)
        with self._lock:
            self._lock.notify_all()

    def _return_to_disk(self) -> None:
        """Let go of the memory: all entries are on disk."""
        if self._memory is not None:
            self._memory.close()
            self._memory, self._memory_from = None, math.inf
        self.files.work_again()

    def _count_lost(self, lost: Counter[str]) -> None:
        with self._lock:
            first = lost and not self._lost
            self._lost += lost
        if first:
            self._log.warning("the outbox is full; from now on messages are dropped", **lost)

    def _measure(self) -> None:
        """Note what the files hold; the caller holds both locks."""
        files = [file for file in (self._disk, self._memory) if file is not None]
        self._count = sum(file.count for file in files)
        self._size_bytes = sum(file.size_bytes for file in files)
        puts = [file.oldest_put_s for file in files if file.oldest_put_s is not None]
        self._oldest_put_s = min(puts, default=None)
