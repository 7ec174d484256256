"""Daemon: recognises a damaged outbox: by its files before SQLite opens them, and by its errors.

Knows no message. What can be read of a damaged file is found by `daemon.mqtt.outbox_salvage`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemon.mqtt.outbox_rows import DamagedError
from daemon.mqtt.outbox_salvage import PAGE_BYTES, log_is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER = (b"SQLite format 3\0" + PAGE_BYTES.to_bytes(2, "big"), b"\0@  ")
"""Bytes 0 to 17 and 20 to 23 of every outbox; between them the versions, both 1 or both 2."""

_FILE_LOCK = (0x40000002, 510)
"""The bytes of the file that SQLite locks, start and length."""

_NOT_NOW = {
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH),
}
"""Errors of the disk, or of its use, that may pass. All others come from the file's content."""

_CONTENT_UNREADABLE = {
    *(sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS),
    sqlite3.SQLITE_IOERR_DATA,
}


def check_files(path: Path) -> None:
    """Create the file of an outbox, or check what SQLite would misunderstand or not report.

    Raises
    ------
    DamagedError: there is another thing than an outbox, or its log has lost what lies inside it.
    OSError: the file cannot be opened, or another process has it open.
    """
    log = path.with_name(f"{path.name}-wal")
    for beside in (log, path.with_name(f"{path.name}-journal"), path.with_name(f"{path.name}-shm")):
        if os.path.lexists(beside) and not stat.S_ISREG(beside.lstat().st_mode):
            raise DamagedError(f"{beside.name} is no regular file.")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # SQLite gives the log the permissions of the file: nobody else may read the messages.
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise DamagedError(f"{path.name} is no regular file.") from error
        raise
    # Closing it gives up the locks of this process, so this comes before SQLite opens the file.
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedError(f"{path.name} is no regular file.")
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, _FILE_LOCK[1], _FILE_LOCK[0])
        except BlockingIOError as error:
            raise OSError(error.errno, "the outbox is locked by another process") from error
        head = os.pread(descriptor, 24, 0)
        versions = set(head[18:20])
        if head and ((head[:18], head[20:]) != _HEADER or versions not in ({1}, {2})):
            raise DamagedError("The outbox's file does not begin like one.")
        if not log_is_whole(log):
            raise DamagedError("The outbox's log is damaged inside, or at its end by a power cut.")
    finally:
        os.close(descriptor)


@contextmanager
def damage_recognised() -> Iterator[None]:
    """Raise DamagedError for a broken file, and errors of the disk as they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        # The low byte is the primary result code; the rest is detail.
        if code & 0xFF in _NOT_NOW and code not in _CONTENT_UNREADABLE:
            raise
        raise DamagedError(f"The outbox's file is broken ({error}).") from error
    except (ValueError, TypeError, OverflowError) as error:
        # A damaged row may have another number of values, of other types, or numbers out of range.
        raise DamagedError(f"The outbox's file is broken ({error!r}).") from error
