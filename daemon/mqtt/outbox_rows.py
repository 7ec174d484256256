"""Daemon: the rows of the outbox's database: its schema, and rows that vouch for themselves.

Every row has a checksum over all of its values, so that a reader knows without SQLite whether it is
as it was written. Opens no file.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.mqtt.outbox_values import Entry, Message, Priority
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 2
"""Kept in the file's `user_version`; a file of another format is set aside like a damaged one."""

SCHEMA = (
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, put_s INTEGER NOT NULL, "
    "worth INTEGER NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL, "
    "payload BLOB NOT NULL, held INTEGER NOT NULL, oldest INTEGER NOT NULL, "
    "crc32 INTEGER NOT NULL)",
    "CREATE TABLE tally (id INTEGER PRIMARY KEY, newest INTEGER NOT NULL, held INTEGER NOT NULL, "
    "crc32 INTEGER NOT NULL)",
)
"""As SQLite stores it: a file whose schema has another text is damaged.

`held` and `oldest` of the newest row: how many messages the file holds, and the lowest id. They
tell how many are missing from a damaged file. The tally repeats this on another page, but only when
the log is written into the file and when the newest message is removed: one page less a commit.
"""

_TYPES = (int, int, int, bytes, int, int, bytes, int, int, int)


class DamagedError(ScentdError):
    """The file is not, or no longer, an outbox; nothing more can be read from it."""


class DeletedError(ScentdError):
    """The file was deleted while it was open; it can still be read."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the file held after a transaction.

    Attributes
    ----------
    newest, oldest: ids of the newest and the oldest message; 0 where there was none.
    held: number of messages.
    """

    newest: int
    held: int
    oldest: int = 0


def row_of(entry: Entry, held: int, oldest: int) -> tuple[Any, ...]:
    """Return the values of a message's row, in the order of the schema."""
    message = entry.message
    values = (
        *(entry.id, entry.put_s, int(message.priority)),
        # A label taught over JSON may hold characters that UTF-8 cannot encode.
        *(
            message.topic,
            message.qos,
            int(message.retain),
            message.payload.encode(errors="replace"),
        ),
        *(held, oldest),
    )
    return (*values, checksum(*values))


def entry_of(row: Sequence[Any]) -> Entry | None:
    """Return a row, its text as bytes, as an entry; None if it is damaged."""
    if not all(map(isinstance, row, _TYPES)) or checksum(*row[:-1]) != row[-1]:
        return None
    entry_id, put_s, priority, topic, qos, retain, payload = row[:7]
    try:
        message = Message(topic.decode(), payload.decode(), qos, bool(retain), Priority(priority))
    except ValueError:
        return None
    return Entry(entry_id, put_s, message)


def tally_of(row: Sequence[Any]) -> Tally | None:
    """Return what a message's row says of the file; None if the row is damaged."""
    return None if entry_of(row) is None else Tally(newest=row[0], held=row[7], oldest=row[8])


def stored_tally(row: Sequence[Any]) -> Tally | None:
    """Return the row of the table `tally`; None if it is damaged."""
    if not all(isinstance(value, int) for value in row) or checksum(*row[:-1]) != row[-1]:
        return None
    return Tally(newest=row[1], held=row[2])


def checksum(*values: int | str | bytes) -> int:
    """Return the CRC-32 of a row's values: SQLite checks its structure, not its content."""
    code = 0
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        code = zlib.crc32(data, zlib.crc32(b"%d:" % len(data), code))
    return code
