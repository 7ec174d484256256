"""Daemon: what waits for the broker, in order, on disk, until the broker has it.

The seam between the pipeline, which puts messages in, and `daemon.mqtt.publisher`, which
takes them out and reports what the broker has acknowledged. A message can be
taken only once it is on disk. One thread here does all the writing, so that a
slow card holds up neither the readings nor the broker; no other may. Knows no
MQTT client and no socket; the SQL is in `daemon.mqtt.outbox_database`.

While the disk cannot be written the messages wait in memory, and go to disk as
soon as it can be again.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Self

from daemon.config.settings import OutboxConfig
from daemon.mqtt.outbox_database import DamagedError, Entry, Limits, Message, OutboxFile, Priority
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Entry", "Limits", "Message", "Outbox", "OutboxReport", "Priority", "limits_from"]

FILE_NAME = "outbox.sqlite"
"""Below `state_dir`."""

MEMORY_LIMITS = Limits(messages=5_000, size_bytes=4 << 20, age_s=7 * 86_400)
"""What a Pi's daemon can spare while its disk is full."""

COMMIT_EVERY_S = 1.0
"""Predictions are written at once if the latest commit is older than this, else with the next:
a card wears out by commits. Events do not wait."""

LINGER_S = 0.05
"""A prediction waits so long for those of the rig's other models, to share one commit with them."""

REMOVE_WITHIN_S = 10.0
"""An acknowledged message leaves with the next commit, at the latest after this time. Killed
before, scentd sends it again, with the same boot_id and seq."""

RETRY_S = 10.0
"""How often a disk that could not be written is tried again."""

SET_ASIDE_KEPT = 3
"""Damaged files kept for whoever wants to look; older ones are deleted."""

LOSSES = ("thinned", "predictions", "events", "expired", "damaged")
"""Why a message is lost: repeats thinned out, other predictions and events for lack of room, too
old, or unreadable."""

_SLOWEST_COMMIT_S = 5.0


def limits_from(config: OutboxConfig) -> Limits:
    """Return the bounds on disk that the rig's owner set."""
    return Limits(
        messages=config.max_messages,
        size_bytes=round(config.max_mb * 1e6),
        age_s=round(config.max_age_days * 86_400),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxReport:
    """The outbox's own numbers, for `health`.

    Attributes
    ----------
    store: `disk`, or `memory` while the disk cannot be written.
    why: what is wrong with the disk; None with `disk`.
    depth: messages not yet acknowledged.
    size_bytes: their payloads, as far as written.
    oldest_s: how long scentd has run since the oldest was put; None when there is none.
    dropped: messages lost, by `thinned`, `predictions`, `events`, `expired` and `damaged`.
    fallbacks: how often the disk failed.
    set_aside: how often a damaged file was replaced.
    commits: transactions on disk.
    written_bytes: what they cost the disk.
    """

    store: str
    why: str | None
    depth: int
    size_bytes: int
    oldest_s: int | None
    dropped: Mapping[str, int]
    fallbacks: int
    set_aside: int
    commits: int
    written_bytes: int


@dataclass(slots=True)
class _Batch:
    """What other threads have left for the writing one."""

    entries: list[Entry] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the files held after the latest batch."""

    count: int = 0
    size_bytes: int = 0
    oldest_put_s: int | None = None
    commits: int = 0
    written_bytes: int = 0


class Outbox:
    """Messages in order, from `put` until `acknowledge`; a context manager with a writing thread.

    All of it may be called from any thread, `take` and `requeue_in_flight` from one at a time.

    Parameters
    ----------
    path : Path or None
        The database; None keeps everything in memory.
    limits : Limits, optional
        How much may wait on disk; what the configuration says when it says nothing otherwise.
    memory_limits : Limits
        How much may wait in memory.
    """

    def __init__(
        self,
        path: Path | None,
        limits: Limits | None = None,
        memory_limits: Limits = MEMORY_LIMITS,
    ) -> None:
        self._path, self._memory_limits = path, memory_limits
        self._limits = limits_from(OutboxConfig()) if limits is None else limits
        self._log = get_logger("outbox")
        # Two locks, taken in this order: `_shelf` is held while the disk works and guards the
        # files and the cursor; `_desk` is held for moments only and guards all the rest.
        self._shelf = threading.Lock()
        self._desk = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
        self._wake: Callable[[], None] = _nobody
        self._closing = self._hurry = self._urgent = False
        self._fresh, self._writing = _Batch(), _Batch()
        self._in_flight: set[int] = set()
        self._newest_id = self._cursor = 0
        self._newest_retained: dict[str, int] = {}
        self._clock_s = -time.monotonic()

        self._disk: OutboxFile | None = None
        self._memory: OutboxFile | None = None
        self._memory_from = math.inf
        self._on_disk_done: set[int] = set()
        self._why: str | None = None if path else "durability was not asked for"
        self._retry_s = math.inf
        self._committed_s = self._removable_s = self._fresh_s = -math.inf

        self._lost: Counter[str] = Counter()
        self._fallbacks = self._replaced = 0
        self._closed_files = (0, 0)
        self._shape = _Shape()
        with self._shelf:
            if path is not None:
                self._try_disk([])
            self._finish_batch()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and end the thread; a disk that hangs is not waited for."""
        with self._desk:
            self._closing = True
            self._desk.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_SLOWEST_COMMIT_S)
        if self._thread.is_alive():
            self._log.error("the disk does not take the outbox's last messages", why=self._why)
            return
        with self._shelf:
            if self._memory is not None and self._memory.count and self._path is not None:
                self._try_disk([])
            if self._memory is not None and self._memory.count:
                self._log.warning("messages only in memory are lost", count=self._memory.count)
            for store in (self._disk, self._memory):
                if store is not None:
                    store.close()

    def set_ready_callback(self, wake: Callable[[], None]) -> None:
        """Let `wake` be called, in the writing thread, whenever there is something to take."""
        self._wake = wake

    def check(self) -> None:
        """Raise if the writing thread has died, which only a bug makes it do."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._closing:
            raise ScentdError(
                "The thread that writes the outbox has ended by itself, which is a bug; its "
                "traceback is in the log. Restart scentd and report it."
            )

    def put(self, message: Message) -> None:
        """Keep `message` until `acknowledge` names its id; what gives way when full is counted."""
        with self._desk:
            self._newest_id += 1
            if message.retain:
                self._newest_retained[message.topic] = self._newest_id
            if not self._fresh.entries:
                self._fresh_s = time.monotonic()
            self._fresh.entries.append(Entry(self._newest_id, self._now_s(), message))
            self._urgent = self._urgent or message.priority is Priority.KEPT
            self._desk.notify_all()

    def take(self) -> Entry | None:
        """Return the oldest written entry not in flight, which then is; None when there is none."""
        with self._shelf:
            while (entry := self._after_cursor()) is not None:
                self._cursor = entry.id
                with self._desk:
                    if not self._is_known(entry.id):
                        self._in_flight.add(entry.id)
                        return entry
            return None

    def _is_known(self, entry_id: int) -> bool:
        """Whether an entry is in flight, or was acknowledged and is only not removed yet."""
        return (
            entry_id in self._in_flight
            or entry_id in self._on_disk_done
            or entry_id in self._fresh.acknowledged
            or entry_id in self._writing.acknowledged
        )

    def _after_cursor(self) -> Entry | None:
        entry = None
        if self._disk is not None:
            try:
                entry = self._disk.next_after(self._cursor)
            except DamagedError as error:
                self._replace(error)
                self._shape = self._measured()
            except sqlite3.Error as error:
                self._let_go()
                self._fail(error)
                self._shape = self._measured()
        if entry is None and self._memory is not None:
            entry = self._memory.next_after(self._cursor)
        return entry

    def acknowledge(self, entry_id: int) -> None:
        """Forget an entry: the broker has acknowledged it."""
        with self._desk:
            if entry_id not in self._in_flight:
                return
            self._in_flight.remove(entry_id)
            if not self._fresh.acknowledged:
                self._removable_s = time.monotonic()
            self._fresh.acknowledged.add(entry_id)
            self._desk.notify_all()

    def requeue_in_flight(self) -> None:
        """Let all in flight wait again: the connection ended before the acknowledgements."""
        with self._shelf, self._desk:
            if self._in_flight:
                self._cursor = min(self._cursor, min(self._in_flight) - 1)
                self._in_flight.clear()

    def flush(self, timeout_s: float) -> bool:
        """Write everything now; return whether that was done in time."""
        with self._desk:
            if self._fresh.entries:
                self._hurry = True
                self._desk.notify_all()
            return self._desk.wait_for(
                lambda: not self._fresh.entries and not self._writing.entries, timeout_s
            )

    def newest_id(self) -> int:
        """Return the id of the newest message ever put, 0 before the first."""
        with self._desk:
            return self._newest_id

    def newest_retained(self) -> dict[str, int]:
        """Return, per topic, the id of the newest retained message."""
        with self._desk:
            return dict(self._newest_retained)

    @property
    def depth(self) -> int:
        """Messages not yet acknowledged."""
        with self._desk:
            return self._depth()

    @property
    def dropped(self) -> int:
        """Messages lost so far, whatever the reason."""
        with self._desk:
            return self._lost.total()

    def report(self) -> OutboxReport:
        """Return the numbers for `health`."""
        with self._desk:
            shape = self._shape
            oldest_s = None if shape.oldest_put_s is None else self._now_s() - shape.oldest_put_s
            return OutboxReport(
                store="disk" if self._why is None else "memory",
                why=self._why,
                depth=self._depth(),
                size_bytes=shape.size_bytes,
                oldest_s=oldest_s,
                dropped={kind: self._lost[kind] for kind in LOSSES},
                fallbacks=self._fallbacks,
                set_aside=self._replaced,
                commits=shape.commits,
                written_bytes=shape.written_bytes,
            )

    def _depth(self) -> int:
        new = len(self._fresh.entries) + len(self._writing.entries)
        gone = len(self._fresh.acknowledged) + len(self._writing.acknowledged)
        return max(0, self._shape.count + new - gone)

    def _now_s(self) -> int:
        return int(self._clock_s + time.monotonic())

    # From here on: the writing thread, or whoever holds the shelf.

    def _serve(self) -> None:
        while self._await_work():
            with self._shelf:
                self._write(self._writing)
                self._finish_batch()
            self._wake()

    def _await_work(self) -> bool:
        """Sleep until something is due, and move it to `_writing`; return False at the end."""
        with self._desk:
            while not self._hurry and (wait_s := self._due_s() - time.monotonic()) > 0:
                if self._closing:
                    if self._fresh.entries or self._fresh.acknowledged:
                        break
                    return False
                self._desk.wait(None if wait_s == math.inf else wait_s)
            self._fresh, self._writing = _Batch(), self._fresh
            self._hurry = self._urgent = False
            return True

    def _due_s(self) -> float:
        """Return when to write next, on the monotonic clock."""
        due_s = self._retry_s
        if self._fresh.entries:
            at_once = self._urgent or self._why is not None
            in_turn_s = max(self._committed_s + COMMIT_EVERY_S, self._fresh_s + LINGER_S)
            due_s = min(due_s, -math.inf if at_once else in_turn_s)
        if self._fresh.acknowledged:
            due_s = min(due_s, self._removable_s + REMOVE_WITHIN_S)
        return due_s

    def _write(self, batch: _Batch) -> None:
        on_disk = {entry_id for entry_id in batch.acknowledged if entry_id < self._memory_from}
        self._on_disk_done |= on_disk
        if self._memory is not None:
            self._write_memory(batch.acknowledged - on_disk, [])
        may_try = self._why is None or time.monotonic() >= self._retry_s
        if not (may_try and self._try_disk(batch.entries)) and batch.entries:
            self._write_memory(set(), batch.entries)
        self._committed_s = time.monotonic()

    def _write_memory(self, removed: set[int], entries: list[Entry]) -> None:
        if self._memory is None:
            self._memory = OutboxFile(None)
            self._memory_from = entries[0].id
        self._lose(
            self._memory.write(
                removed=removed,
                added=entries,
                limits=self._memory_limits,
                after=self._cursor,
                now_s=self._now_s(),
            )
        )

    def _try_disk(self, entries: list[Entry]) -> bool:
        """Bring the disk up to date, with what is in memory; False if it cannot be now."""
        if self._path is None:
            return False
        for _ in range(2):  # a damaged file is set aside, and a new one begun at once
            try:
                disk = self._opened(self._path)
                waiting = () if self._memory is None else self._memory.entries()
                lost = disk.write(
                    removed=self._on_disk_done,
                    added=chain(waiting, entries),
                    limits=self._limits,
                    after=self._cursor,
                    now_s=self._now_s(),
                    touch=self._why is not None,
                )
            except DamagedError as error:
                if not self._replace(error):
                    return False
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                return False
            else:
                self._lose(lost)
                self._recover()
                return True
        return False

    def _opened(self, path: Path) -> OutboxFile:
        if self._disk is None:
            disk = OutboxFile(path)
            try:
                self._join(disk)
            except BaseException:
                disk.close()
                raise
            self._disk = disk
        return self._disk

    def _join(self, disk: OutboxFile) -> None:
        """Bring ids and ages of a file just opened in line with what this process has put."""
        last_id, last_put_s, retained = disk.last_id(), disk.last_put_s(), disk.newest_retained()
        with self._desk:
            self._clock_s += max(0, last_put_s - self._now_s())
            if self._newest_id == 0:
                self._newest_id, self._newest_retained = last_id, retained
            first_new = self._first_new_id()
        if last_id >= first_new:  # it could not be opened at the start, and is full of older ones
            disk.shift_below(first_new)
        self._cursor = min(self._cursor, disk.first_id() - 1)

    def _first_new_id(self) -> int:
        """Return the lowest id that is not on disk."""
        if self._memory is not None and self._memory.count:
            return self._memory.first_id()
        entries = self._writing.entries or self._fresh.entries
        return entries[0].id if entries else self._newest_id + 1

    def _replace(self, error: DamagedError) -> bool:
        """Set a damaged file aside, so that a new one can take its place."""
        if self._path is None:
            return False
        lost = 0 if self._disk is None else self._disk.count - len(self._on_disk_done)
        self._let_go()
        self._on_disk_done.clear()
        with self._desk:
            self._lost["damaged"] += lost
            self._in_flight = {one for one in self._in_flight if one >= self._memory_from}
        aside = self._path.with_name(
            f"{self._path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        )
        try:
            _set_aside(self._path, aside)
        except OSError as failure:
            self._fail(failure)
            return False
        self._replaced += 1
        self._log.error(
            "the outbox's file is damaged and was set aside; a new one is begun",
            why=str(error),
            file=aside.name,
            messages_lost=lost or "unknown",
        )
        return True

    def _let_go(self) -> None:
        if self._disk is not None:
            commits, written_bytes = self._closed_files
            self._closed_files = (
                commits + self._disk.commits,
                written_bytes + self._disk.written_bytes,
            )
            self._disk.close()
            self._disk = None

    def _fail(self, error: Exception) -> None:
        """Note that the disk cannot be used now."""
        if self._why is None:
            self._fallbacks += 1
            self._log.error(
                "the outbox cannot be written to disk; messages wait in memory meanwhile",
                why=str(error),
                file=str(self._path),
            )
        with self._desk:
            self._why = str(error)
            self._retry_s = time.monotonic() + RETRY_S
            self._desk.notify_all()

    def _recover(self) -> None:
        """Note that all there is lies on disk."""
        self._on_disk_done.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory, self._memory_from = None, math.inf
        if self._why is not None:
            # At the level of the failure: who was told of the one must hear of the other.
            self._log.error("the outbox is written to disk again", file=str(self._path))
            self._why, self._retry_s = None, math.inf

    def _lose(self, lost: Counter[str]) -> None:
        with self._desk:
            first = lost and not self._lost
            self._lost += lost
        if first:
            self._log.warning("the outbox is full; from now on messages give way", **lost)

    def _finish_batch(self) -> None:
        """Let the others see that all of `_writing` is stored."""
        shape = self._measured()
        with self._desk:
            self._shape = shape
            self._writing = _Batch()
            self._desk.notify_all()

    def _measured(self) -> _Shape:
        stores = [store for store in (self._disk, self._memory) if store is not None]
        puts = [store.oldest_put_s for store in stores if store.oldest_put_s is not None]
        commits, written_bytes = self._closed_files
        if self._disk is not None:
            commits += self._disk.commits
            written_bytes += self._disk.written_bytes
        return _Shape(
            count=sum(store.count for store in stores) - len(self._on_disk_done),
            size_bytes=sum(store.size_bytes for store in stores),
            oldest_put_s=min(puts, default=None),
            commits=commits,
            written_bytes=written_bytes,
        )


def _nobody() -> None:
    """Wake nobody: there is no reader yet."""


def _set_aside(path: Path, aside: Path) -> None:
    """Rename a database and its log, and delete what was set aside long ago."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        wal.replace(f"{aside}-wal")
    path.replace(aside)
    older = sorted(path.parent.glob(f"{path.name}.damaged-*Z"))
    for one in older[:-SET_ASIDE_KEPT]:
        one.unlink()
        one.with_name(f"{one.name}-wal").unlink(missing_ok=True)
