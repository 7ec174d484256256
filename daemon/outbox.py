"""Daemon: what waits for the broker, in order, until the broker has it.

The `Outbox` protocol is the seam between the pipeline, which puts messages in,
and `daemon.mqtt`, which takes them out and reports what the broker has
acknowledged. `MemoryOutbox` forgets with the process; a durable one keeps the
same promises on disk. This file must not know MQTT clients, sockets or threads
other than its own lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

MEMORY_LIMIT = 5000
"""Messages that wait at most in memory: with two models and a 5 s stride, 3.5 hours
of outage, or about 4 MB."""


@dataclass(frozen=True, slots=True)
class Message:
    """One publication.

    Attributes
    ----------
    topic: below the rig's prefix, for example `substance`.
    payload: the text to send, a JSON object everywhere but on the status topics.
    qos: 0 or 1.
    retain: whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: str
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A message and its place in the outbox; ids grow with every `put`."""

    id: int
    message: Message


class Outbox(Protocol):
    """What every outbox promises; all of it may be called from any thread."""

    def put(self, message: Message) -> None:
        """Keep `message` until `done` names its id; drop the oldest when full, and count it."""

    def take(self) -> Entry | None:
        """Return the oldest entry not in flight, which then is; None when there is none."""

    def done(self, entry_id: int) -> None:
        """Forget an entry: the broker has acknowledged it."""

    def give_back(self) -> None:
        """Let all in flight wait again: the connection ended before the acknowledgements."""

    def newest_id(self) -> int:
        """Return the id of the newest message ever put, 0 before the first."""

    def newest_retained(self) -> dict[str, int]:
        """Return, per topic with retained messages in the outbox, the id of the newest of them."""

    @property
    def depth(self) -> int:
        """Messages not yet acknowledged."""

    @property
    def dropped(self) -> int:
        """Messages lost so far because the outbox was full."""


class MemoryOutbox:
    """An outbox in memory: bounded, oldest dropped first, gone with the process."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, Message] = OrderedDict()
        self._in_flight: OrderedDict[int, Message] = OrderedDict()
        self._newest_id = 0
        self._dropped = 0

    def put(self, message: Message) -> None:
        """Keep `message`; the oldest waiting one gives way when the outbox is full."""
        with self._lock:
            self._newest_id += 1
            self._waiting[self._newest_id] = message
            if len(self._waiting) + len(self._in_flight) > self._limit:
                self._waiting.popitem(last=False)
                self._dropped += 1

    def take(self) -> Entry | None:
        """Return the oldest waiting entry and call it in flight."""
        with self._lock:
            if not self._waiting:
                return None
            entry_id, message = self._waiting.popitem(last=False)
            self._in_flight[entry_id] = message
            return Entry(entry_id, message)

    def done(self, entry_id: int) -> None:
        """Forget an acknowledged entry."""
        with self._lock:
            self._in_flight.pop(entry_id, None)

    def give_back(self) -> None:
        """Let everything in flight wait again, before what came later."""
        with self._lock:
            self._waiting = OrderedDict(sorted({**self._in_flight, **self._waiting}.items()))
            self._in_flight.clear()

    def newest_id(self) -> int:
        """Return the id of the newest message ever put."""
        with self._lock:
            return self._newest_id

    def newest_retained(self) -> dict[str, int]:
        """Return the newest retained entry's id for each topic."""
        with self._lock:
            return {m.topic: entry_id for entry_id, m in self._waiting.items() if m.retain}

    @property
    def depth(self) -> int:
        """Messages not yet acknowledged."""
        with self._lock:
            return len(self._waiting) + len(self._in_flight)

    @property
    def dropped(self) -> int:
        """Messages lost because the outbox was full."""
        with self._lock:
            return self._dropped
