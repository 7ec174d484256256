"""Daemon: what goes into the outbox and what it reports, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config.settings import OutboxConfig

OUTBOX_FILE = "outbox.sqlite"
"""Below `state_dir`."""

COMMIT_EVERY_S = 1.0
"""Predictions are written at once if the latest commit is older than this, otherwise with the next:
commits wear a card out. Events do not wait."""

REMOVE_WITHIN_S = 10.0
"""An acknowledged message is removed with the next commit, at the latest after this time. After a
kill before that, it is sent again, with the same boot_id and seq."""

RETRY_S = 10.0
"""Time between two attempts to write a disk that failed."""

UNDELIVERABLE = "undeliverable"

LOSSES = ("thinned", "predictions", "events", "expired", "damaged", UNDELIVERABLE)
"""Reasons for losing a message: repeats thinned out, other predictions and events for lack of
room, too old, unreadable, or such that the broker can never accept it."""


class Priority(IntEnum):
    """The order in which messages are dropped from a full outbox."""

    REPEAT = 0
    """A prediction with the same content as the one before it."""

    CHANGE = 1
    """A prediction with new content."""

    KEPT = 2
    """An event or a response, which is published once only."""


@dataclass(frozen=True, slots=True)
class Message:
    """One publication.

    Attributes
    ----------
    topic: below the rig's prefix, for example `substance`.
    payload: a JSON object, except on the status topics.
    qos: 0 or 1.
    retain: whether the broker keeps it for later subscribers.
    priority: when it is dropped from a full outbox.
    """

    topic: str
    payload: str
    qos: int
    retain: bool
    priority: Priority = Priority.KEPT


@dataclass(frozen=True, slots=True)
class Entry:
    """A message and its place in the outbox.

    Attributes
    ----------
    id: increases with every message put.
    put_s: when it was put, in seconds of scentd's running time since the file was created.
    """

    id: int
    put_s: int
    message: Message


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait.

    Attributes
    ----------
    messages: number of messages.
    size_bytes: of their payloads together.
    age_s: running time of scentd since a message was put. Time switched off does not count:
        without a clock chip a rig does not know how long that was.
    """

    messages: int
    size_bytes: int
    age_s: int


MEMORY_LIMITS = Limits(messages=5_000, size_bytes=4 << 20, age_s=7 * 86_400)
"""Memory that a service on a Raspberry Pi can spare while its disk is full."""


def limits_from(config: OutboxConfig) -> Limits:
    """Return the limits on disk that the rig's owner set."""
    return Limits(
        messages=config.max_messages,
        size_bytes=round(config.max_mb * 1e6),
        age_s=round(config.max_age_days * 86_400),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxReport:
    """The outbox's numbers for `health`.

    Attributes
    ----------
    store: `disk`, or `memory` while the disk cannot be written.
    why: what is wrong with the disk; None with `disk`.
    depth: messages not yet acknowledged.
    size_bytes: their payloads, as far as written.
    oldest_s: running time of scentd since the oldest was put; None when there is none.
    dropped: messages lost, by `LOSSES`.
    fallbacks: how often the disk failed.
    set_aside: how often a damaged file was replaced by one with all that could be read of it.
    commits, written_bytes: transactions on disk, and what they wrote.
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
