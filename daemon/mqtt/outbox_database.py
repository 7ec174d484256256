"""Daemon: messages in one SQLite database, on disk or in memory: a transaction at a time.

The lower half of `daemon.mqtt.outbox`. Knows SQL and limits; no thread, no clock and no
broker: the caller holds a lock and supplies the time. On disk the database has a write-ahead log
(WAL) that is synchronised at every commit, so that a power cut leaves the state after one of the
commits.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.mqtt.outbox_damage import check_files, damage_recognised
from daemon.mqtt.outbox_rows import (
    FORMAT,
    SCHEMA,
    DamagedError,
    DeletedError,
    Tally,
    checksum,
    entry_of,
    row_of,
    stored_tally,
    tally_of,
)
from daemon.mqtt.outbox_salvage import PAGE_BYTES
from daemon.mqtt.outbox_values import Entry, Limits, Priority
from hardware.counting import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHECKPOINT_BYTES = 1 << 20
"""Length of the log at which it is written into the file: some hundred commits share one such
rewrite, and a start after a power cut has little to read."""

_INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_NEXT = "SELECT * FROM messages WHERE id > ? ORDER BY id LIMIT 1"

_ALL = "SELECT * FROM messages ORDER BY id"

_NEWEST = "SELECT * FROM messages ORDER BY id DESC LIMIT 1"

_MOVE_BELOW = """
INSERT INTO messages
SELECT id - :by, put_s, worth, topic, qos, retain, payload, held, oldest - :by,
    checksum(id - :by, put_s, worth, topic, qos, retain, payload, held, oldest - :by)
FROM messages
"""

_EVERY_SECOND = """
SELECT id FROM (
    SELECT id, row_number() OVER (PARTITION BY topic ORDER BY id) AS place
    FROM (SELECT id, topic FROM messages WHERE worth = ? AND id > ? ORDER BY id LIMIT ?)
) WHERE place % 2 = 0
"""

_TOO_OLD = """
SELECT id FROM messages WHERE id > :after AND id < coalesce(
    (SELECT id FROM messages WHERE id > :after AND put_s >= :oldest_s ORDER BY id LIMIT 1),
    9223372036854775807
)
"""

_OLDEST = "SELECT id FROM messages WHERE worth <= ? AND id > ? ORDER BY id LIMIT ?"

_DELETE = "DELETE FROM messages WHERE id = ? RETURNING length(payload)"

_WAL_HEADER_AND_FRAME = 32 + 24


@dataclass(slots=True)
class DiskUse:
    """Transactions that changed something, and the bytes that log and checkpoints wrote at most."""

    commits: int = 0
    written_bytes: int = 0


_FAILURES = (sqlite3.Error, OSError, DamagedError)


class OutboxFile:
    """Waiting messages by id; every method is one transaction or one query.

    Parameters
    ----------
    path: of the database, created if it does not exist; None keeps it in memory.
    use: where its commits are counted.

    Attributes
    ----------
    path: of the database, None for one in memory.
    count, size_bytes: messages held, and their payloads together.
    oldest_put_s: when the oldest was put, None when there is none.

    Raises
    ------
    DamagedError: the file exists and is no outbox.
    sqlite3.Error, OSError: it cannot be opened now: no permission, no room, or another process
        holds it.
    """

    def __init__(self, path: Path | None, use: DiskUse | None = None) -> None:
        self.path = path
        self._wal = None if path is None else path.with_name(f"{path.name}-wal")
        self._use = use or DiskUse()
        self._wal_bytes = self.count = self.size_bytes = 0
        self.oldest_put_s: int | None = None
        self._unreadable: set[int] = set()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_files(path)
        self._db = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        self._db.text_factory = bytes  # a damaged text may be no UTF-8
        self._db.create_function("checksum", -1, checksum, deterministic=True)
        try:
            with damage_recognised():
                self._prepare()
                self._check_content()
                self._settle()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        run = self._db.execute
        # One process, one connection: no shared-memory file, and a second scentd on the same
        # folder fails at once because the file is locked.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA wal_autocheckpoint = 0")  # done in `_settle`, where it is counted
        run("PRAGMA cell_size_check = ON")
        run("PRAGMA trusted_schema = OFF")
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA cache_size = -512")
        # What is deleted is overwritten, where that writes no page more: it must not come back.
        run("PRAGMA secure_delete = FAST").fetchall()
        version = run("PRAGMA user_version").fetchone()[0]
        tables = run("SELECT name, rootpage, sql FROM sqlite_master ORDER BY rootpage").fetchall()
        if version == 0 and not tables:
            run("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                run(statement)
            self._write_tally(Tally(0, 0))
            run(f"PRAGMA user_version = {FORMAT}")
            run("COMMIT")
        elif version != FORMAT or [(page, sql.decode()) for _, page, sql in tables] != [
            *enumerate(SCHEMA, start=2)
        ]:
            names = sorted(name.decode(errors="replace") for name, _, _ in tables)
            raise DamagedError(
                f"The outbox has format {version} and the tables {names}; expected was format "
                f"{FORMAT} with the tables messages and tally. It is damaged, or was written by "
                "another program or another version of scentd."
            )

    def _check_content(self) -> None:
        """Check pages, rows and their number; count the messages.

        Raises
        ------
        DamagedError: anything differs from what was written.
        """
        (encoding,) = self._db.execute("PRAGMA encoding").fetchone()
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if (encoding, found) != (b"UTF-8", b"ok"):
            raise DamagedError(f"The outbox's file is damaged ({found.decode(errors='replace')}).")
        tally = None
        for row in self._db.execute(_ALL):
            tally = tally_of(row)
            if tally is None:
                raise DamagedError(f"Message {row[0]} of the outbox's file is damaged.")
            self.count += 1
            self.size_bytes += len(row[6])
        (stored,) = self._db.execute("SELECT * FROM tally").fetchall()
        tally = tally or stored_tally(stored)
        if tally is None or tally.held != self.count:
            raise DamagedError(
                f"The outbox's file holds {counted(self.count, 'message')} instead of "
                f"{'an unknown number' if tally is None else tally.held}."
            )
        self.oldest_put_s = self._first()[1]

    def close(self) -> None:
        """Write the log into the file and close it."""
        with suppress(*_FAILURES), damage_recognised():
            if self._wal is not None:
                with self._transaction():
                    self._write_tally(self._tally())
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(*_FAILURES):
            self._db.close()

    def write(
        self,
        *,
        removed: Iterable[int],
        added: Iterable[Entry],
        limits: Limits,
        after: int,
        now_s: int,
        touch: bool = False,
    ) -> Counter[str]:
        """Remove, add and keep within the limits, in one transaction.

        Parameters
        ----------
        removed: ids, also of entries that are not there.
        added: new entries, ids ascending.
        limits: how much may wait.
        after: entries up to this id may be in flight and are not dropped.
        now_s: on the clock of `Entry.put_s`.
        touch: write to the disk even if nothing changes, to find out whether that works.

        Returns
        -------
        messages lost, by `LOSSES`.

        Raises
        ------
        DamagedError: the file is broken.
        DeletedError: it was deleted; nothing was written.
        sqlite3.Error, OSError: nothing was written.
        """
        self._check_there()
        count, size_bytes = self.count, self.size_bytes
        changes = self._db.total_changes
        lost: Counter[str] = Counter()
        try:
            with damage_recognised(), self._transaction():
                if touch:
                    self._db.execute(f"PRAGMA user_version = {FORMAT}")
                newest = self._newest_id()
                lost["damaged"] = self._remove(self._unreadable)
                self._remove(removed)
                self._add(added)
                self._make_room(lost, limits, after, now_s)
                self._update_held(newest)
                oldest_put_s = self._first()[1]
        except BaseException:
            self.count, self.size_bytes = count, size_bytes
            raise
        self.oldest_put_s = oldest_put_s
        self._unreadable.clear()
        self._use.commits += self._db.total_changes > changes
        self._settle()
        return +lost

    def _check_there(self) -> None:
        """Raise if the files were deleted: SQLite goes on writing what no start would find."""
        for path in (self.path, self._wal):
            try:
                if path is not None:
                    path.stat()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise DeletedError(f"{path} was deleted while it was in use.") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(*_FAILURES):  # SQLite itself rolls back on some failures
                self._db.execute("ROLLBACK")
            raise

    def _remove(self, ids: Iterable[int]) -> int:
        """Remove the messages of these ids; return how many there were."""
        # One at a time: SQLite keeps every page that a statement changes in memory, to be able to
        # undo that statement alone.
        found = 0
        for entry_id in ids:
            for (size_bytes,) in self._db.execute(_DELETE, (entry_id,)).fetchall():
                found += 1
                self.count -= 1
                self.size_bytes -= size_bytes
        return found

    def _add(self, entries: Iterable[Entry]) -> None:
        oldest, _ = self._first()
        for entry in entries:
            oldest = oldest or entry.id
            row = row_of(entry, self.count + 1, oldest)
            self._db.execute(_INSERT, row)
            self.count += 1
            self.size_bytes += len(row[6])

    def _update_held(self, newest_before: int) -> None:
        """Let the newest message say how many there are; note it in the tally if it was removed."""
        tally = self._tally()
        row = self._db.execute(_NEWEST).fetchone()
        entry = None if row is None else entry_of(row)
        if entry is not None and tally_of(row) != tally:
            *_, held, oldest, crc32 = row_of(entry, tally.held, tally.oldest)
            values = (held, oldest, crc32, entry.id)
            self._db.execute(
                "UPDATE messages SET held = ?, oldest = ?, crc32 = ? WHERE id = ?", values
            )
        if entry is None or entry.id < newest_before:
            self._write_tally(tally)

    def _tally(self) -> Tally:
        return Tally(self._newest_id(), self.count, self._first()[0])

    def _write_tally(self, tally: Tally) -> None:
        values = (1, tally.newest, tally.held)
        self._db.execute("REPLACE INTO tally VALUES (?, ?, ?, ?)", (*values, checksum(*values)))

    def _newest_id(self) -> int:
        (newest,) = self._db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()
        return int(newest)

    def _make_room(self, lost: Counter[str], limits: Limits, after: int, now_s: int) -> None:
        """Drop what is too old, then every second repeat, then predictions, then events."""

        def excess() -> int:
            too_large = self.size_bytes > limits.size_bytes
            return max(self.count - limits.messages, int(too_large))

        lost["expired"] += self._drop(_TOO_OLD, {"after": after, "oldest_s": now_s - limits.age_s})
        while excess() > 0:
            # Every second one of the older half: the older the predictions, the longer the steps
            # between them, but no period is without any.
            waiting = "SELECT count(*) FROM messages WHERE worth = ? AND id > ?"
            (repeats,) = self._db.execute(waiting, (Priority.REPEAT, after)).fetchone()
            thinned = self._drop(_EVERY_SECOND, (Priority.REPEAT, after, max(2, repeats // 2)))
            if thinned == 0:
                break
            lost["thinned"] += thinned
        for priority, kind in ((Priority.CHANGE, "predictions"), (Priority.KEPT, "events")):
            while (over := excess()) > 0:
                dropped = self._drop(_OLDEST, (priority, after, over))
                if dropped == 0:
                    break
                lost[kind] += dropped

    def _first(self) -> tuple[int, int | None]:
        """Return the id of the oldest message and when it was put; 0 and None if there is none."""
        row = self._db.execute("SELECT id, put_s FROM messages ORDER BY id LIMIT 1").fetchone()
        return (0, None) if row is None else (int(row[0]), int(row[1]))

    def _drop(self, which: str, values: tuple[int, ...] | dict[str, int]) -> int:
        """Remove the messages whose ids a query returns; return how many there were."""
        return self._remove([entry_id for (entry_id,) in self._db.execute(which, values)])

    def next_after(self, entry_id: int) -> Entry | None:
        """Return the entry with the next higher id, None when there is none.

        A row whose checksum is wrong is skipped, and removed by the next `write`.

        Raises
        ------
        DamagedError: the file is broken.
        sqlite3.Error: it cannot be read now.
        """
        while True:
            with damage_recognised():
                row = self._db.execute(_NEXT, (entry_id,)).fetchone()
            if row is None:
                return None
            if row[0] <= entry_id:
                raise DamagedError("The outbox's file gives its messages out of order.")
            entry_id = row[0]
            if (entry := entry_of(row)) is not None:
                return entry
            self._unreadable.add(entry_id)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, in order."""
        entry_id = self.first_id() - 1
        while (entry := self.next_after(entry_id)) is not None:
            entry_id = entry.id
            yield entry

    def first_id(self) -> int:
        """Return the lowest id, 1 of an empty outbox."""
        return self._one("SELECT coalesce(min(id), 1) FROM messages")

    def last_id(self) -> int:
        """Return the highest id, 0 of an empty outbox."""
        return self._one("SELECT coalesce(max(id), 0) FROM messages")

    def last_put_s(self) -> int:
        """Return when the newest entry was put, 0 of an empty outbox."""
        return self._one(
            "SELECT coalesce((SELECT put_s FROM messages ORDER BY id DESC LIMIT 1), 0)"
        )

    def newest_retained(self) -> dict[str, int]:
        """Return, per topic with retained messages, the id of the newest of them."""
        with damage_recognised():
            rows = self._db.execute(
                "SELECT topic, max(id) FROM messages WHERE retain GROUP BY topic"
            )
            return {topic.decode(): int(entry_id) for topic, entry_id in rows}

    def _one(self, statement: str) -> int:
        with damage_recognised():
            return int(self._db.execute(statement).fetchone()[0])

    def shift_below(self, entry_id: int) -> None:
        """Renumber everything so that it comes before `entry_id`, order kept."""
        first, last = self.first_id(), self.last_id()
        # By more than the span, so that no new id is one of the old ones.
        shift = max(last - entry_id, last - first) + 1
        with damage_recognised(), self._transaction():
            self._db.execute(_MOVE_BELOW, {"by": shift})
            self._db.execute("DELETE FROM messages WHERE id >= ?", (first,))
            self._write_tally(self._tally())

    def _settle(self) -> None:
        """Count the growth of the log, and write it into the file when it is long."""
        if self._wal is None:
            return
        with suppress(*_FAILURES):  # the messages are safe in the log
            length = self._wal.stat().st_size
            self._use.written_bytes += max(0, length - self._wal_bytes)
            self._wal_bytes = length
            if length >= CHECKPOINT_BYTES:
                with self._transaction():
                    self._write_tally(self._tally())
                frames = (length - _WAL_HEADER_AND_FRAME) // (PAGE_BYTES + 24) + 1
                self._use.written_bytes += PAGE_BYTES * min(frames, self._one("PRAGMA page_count"))
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._wal_bytes = self._wal.stat().st_size
