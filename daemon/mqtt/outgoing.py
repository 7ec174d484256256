"""Daemon: what the MQTT thread shares with the others: states, unqueued messages, the report.

Other threads leave messages here and wake the MQTT thread, which takes them. Knows no socket and
no MQTT client; what must not be lost goes through `daemon.mqtt.outbox` instead.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daemon.mqtt.outbox_values import Message

UNQUEUED_LIMIT = 256
"""QoS 0 messages that wait for the thread; older ones are dropped and counted."""


class BrokerState(StrEnum):
    """State of the connection, as `health` reports it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class BrokerReport:
    """A snapshot of the connection for `health` and the logs.

    Attributes
    ----------
    protocol: "5" or "3.1.1" while connected, else None.
    connections: how often a connection was made; one more than the reconnects.
    rejected: how often the broker refused a message; one that is sent again may count again.
    fleeting_dropped: QoS 0 messages that were dropped, for lack of a connection or of room.
    takeovers: how often another client with the rig's id took its place, as the broker stated it.
    why: a paragraph while another client keeps doing so, else None.
    """

    state: BrokerState = BrokerState.CONNECTING
    protocol: str | None = None
    connections: int = 0
    rejected: int = 0
    fleeting_dropped: int = 0
    takeovers: int = 0
    why: str | None = None


class Outgoing:
    """Messages that bypass the outbox, by whole topic, and the report; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, Message] = {}
        self._unsent: dict[str, None] = {}
        self._unqueued: deque[Message] = deque()
        self._report = BrokerReport()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable after `wake`, until `clear_wake`."""

    def set_state(self, message: Message) -> None:
        """Keep a retained message for this connection and every later one."""
        with self._lock:
            if self._states.get(message.topic) == message:
                return
            self._states[message.topic] = message
            self._unsent[message.topic] = None
        self.wake()

    def repeat(self, topic: str) -> None:
        """Send the state of a topic once more."""
        with self._lock:
            if topic in self._states:
                self._unsent[topic] = None
        self.wake()

    def add_unqueued(self, message: Message) -> None:
        """Keep a message for this connection; without one it is dropped."""
        with self._lock:
            connected = self._report.state is BrokerState.CONNECTED
            if connected:
                self._unqueued.append(message)
            too_many = len(self._unqueued) > UNQUEUED_LIMIT
            if too_many:
                self._unqueued.popleft()
        if too_many or not connected:
            self.count(fleeting_dropped=1)
        self.wake()

    def take(self) -> tuple[list[Message], list[Message]]:
        """Return, and forget, the states to send and the unqueued messages."""
        with self._lock:
            states = [self._states[topic] for topic in self._unsent]
            unqueued = list(self._unqueued)
            self._unsent.clear()
            self._unqueued.clear()
        return states, unqueued

    def connected(self, protocol: str) -> None:
        """Note a new connection, on which every state must be sent."""
        with self._lock:
            self._unsent = dict.fromkeys(self._states)
        self.count(connections=1)
        self.update(state=BrokerState.CONNECTED, protocol=protocol)

    def update(self, **changes: Any) -> None:
        """Change fields of the report."""
        with self._lock:
            self._report = replace(self._report, **changes)

    def count(self, **more: int) -> None:
        """Add to counters of the report."""
        with self._lock:
            sums = {name: getattr(self._report, name) + number for name, number in more.items()}
            self._report = replace(self._report, **sums)

    def report(self) -> BrokerReport:
        """Return the state of the connection."""
        with self._lock:
            return self._report

    def wake(self) -> None:
        """Wake the MQTT thread."""
        with self._lock:
            if self.wake_fd >= 0:
                os.eventfd_write(self.wake_fd, 1)

    def clear_wake(self) -> None:
        """Forget every `wake` so far."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)

    def close(self) -> None:
        """Close the file of `wake`, once the MQTT thread has ended."""
        with self._lock:
            os.close(self.wake_fd)
            self.wake_fd = -1
