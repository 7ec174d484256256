"""Daemon: the messages that wait for the broker, in order, on disk, until the broker has them.

The pipeline puts messages in; `daemon.mqtt.session` takes them out and reports which of them the
broker has acknowledged. A message can be taken only once it is on disk. One thread does all the
writing, so that a slow card delays neither the readings nor the broker. Knows no MQTT client; the
SQL is in `daemon.mqtt.outbox_database`. While the disk cannot be written, or hangs, the messages
wait in memory (`daemon.mqtt.outbox_files`), and go to disk as soon as it can be written again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from daemon.config.settings import OutboxConfig
from daemon.mqtt.outbox_disk import OutboxDisk
from daemon.mqtt.outbox_files import OutboxFiles
from daemon.mqtt.outbox_values import (
    COMMIT_EVERY_S,
    LOSSES,
    REMOVE_WITHIN_S,
    Entry,
    Limits,
    Message,
    OutboxReport,
    Priority,
    limits_from,
)
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemon.mqtt.outbox_disk import AwaitedFile
    from daemon.mqtt.outbox_repair import Repaired

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
        self._log = get_logger("outbox")
        # Two locks, taken in this order: `_files_lock` is held while the disk works and guards the
        # files and the cursor; `_lock` is held for moments only and guards all the rest.
        self._files_lock = threading.Lock()
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
        self._on_ready: Callable[[], None] = lambda: None
        self.files = OutboxDisk(path)
        self._store = OutboxFiles(
            path,
            limits_from(OutboxConfig()) if limits is None else limits,
            self.files,
            clock=self._now_s,
            on_opened=self._adopt,
            on_replaced=self._count_damage,
            on_lost=self._count_lost,
            on_failed=self._wake,
        )
        self._aligned = False  # whether the ids on disk are those of this process
        self._cursor = self._sent_up_to = 0  # the ids taken last; up to the second none is dropped
        self._closing = self._urgent = self._grouping = False
        self._unwritten: list[Entry] = []
        self._in_flight: set[int] = set()
        self._held: set[int] = set()  # taken, and refused for now
        self._rewind_to = math.inf  # to take again what lies after it
        self._acknowledged: set[int] = set()  # and not removed from the files yet
        self._newest_id = self._count = self._size_bytes = 0
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
            self._store.close(self._acknowledged, after=self._sent_up_to)

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
            while (entry := self._store.next_after(self._cursor, self._write)) is not None:
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
                set_aside=self._store.replaced,
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
        removed = self._store.write(entries, acknowledged, after=self._sent_up_to)
        with self._lock:
            del self._unwritten[: len(entries)]
            self._acknowledged -= removed
            self._committed_s = time.monotonic()
            self._measure()
            self._lock.notify_all()

    def _adopt(self, file: AwaitedFile, first_in_memory: int | None) -> None:
        """Align the ids and ages in a file just opened with those of this process."""
        last_id, last_put_s, retained = file.last_id(), file.last_put_s(), file.newest_retained()
        with self._lock:
            self._clock_s += max(0, last_put_s - self._now_s())
            if self._newest_id == 0:
                self._newest_id, self._newest_retained = last_id, retained
            first_new = self._newest_id + 1 - len(self._unwritten)
        if first_in_memory is not None:
            first_new = first_in_memory
        if last_id >= first_new and not self._aligned:
            file.shift_below(first_new)  # it could not be opened at the start: it is older
        self._aligned = True
        self._cursor = min(self._cursor, file.first_id() - 1)

    def _count_damage(self, repaired: Repaired, held: int | None) -> int:
        """Note what a replaced file does not hold any more; return how many messages are lost."""
        memory_from = self._store.memory_from
        with self._lock:
            on_disk = {one for one in self._acknowledged if one < memory_from}
            # A process that had the file open knows what it held.
            lost = repaired.lost
            if held is not None:
                lost = max(0, held - len(on_disk | repaired.ids))
            self._lost["damaged"] += lost
            self._acknowledged -= on_disk - repaired.ids
            in_memory = {one for one in self._in_flight if one >= memory_from}
            self._in_flight = in_memory | (self._in_flight & repaired.ids)
        return lost

    def _wake(self) -> None:
        """Note what the files hold now; let the writing thread look again when to write."""
        with self._lock:
            self._measure()
            self._lock.notify_all()

    def _count_lost(self, lost: Counter[str]) -> None:
        with self._lock:
            first = lost and not self._lost
            self._lost += lost
        if first:
            self._log.warning("the outbox is full; from now on messages are dropped", **lost)

    def _measure(self) -> None:
        """Note what the files hold; the caller holds both locks."""
        self._count, self._size_bytes, self._oldest_put_s = self._store.size()
