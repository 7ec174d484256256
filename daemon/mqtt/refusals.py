"""Daemon: which topics the broker refuses for now, and when to try them again.

MQTT 5 answers every message. Few answers concern the message itself; all others, such as a full
quota or a missing permission, may change without the message changing. Knows no MQTT client.
"""

from __future__ import annotations

import math
import time

from daemon.system.backoff import Backoff

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
"""A corrected access list or quota is noticed within this time. Each attempt costs one message of
each refused topic."""

UNDELIVERABLE_CODES = frozenset({0x90, 0x95, 0x99})
"""Reason codes that the same message always gets: topic name invalid, packet too large, payload
format invalid (MQTT 5.0, section 2.4)."""


class Refusals:
    """Topics, in full, whose messages wait; one message of each is sent to try it again."""

    def __init__(self) -> None:
        self._backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
        self._trying: dict[str, bool] = {}  # by refused topic, whether a message tries it now
        self._accepted: set[str] = set()  # of them, again; their messages follow at the next retry
        self._retry_s = math.inf

    def refuse(self, topic: str) -> bool:
        """Let a topic wait; return whether it did not wait already."""
        new = topic not in self._trying
        self._accepted.discard(topic)
        self._trying[topic] = True  # nothing more until the next retry
        if self._retry_s == math.inf:
            self._retry_s = time.monotonic() + self._backoff.next_s()
        return new

    def accept(self, topic: str) -> bool:
        """Note an accepted message; return whether its topic was refused before."""
        if topic not in self._trying or topic in self._accepted:
            return False
        self._accepted.add(topic)
        self._backoff.reset()
        self._retry_s = -math.inf  # the messages that waited follow at once
        return True

    def may_send(self, topic: str) -> bool:
        """Whether to send a message of a topic: always, or one that tries a refused topic."""
        if topic not in self._trying:
            return True
        if self._trying[topic]:
            return False
        self._trying[topic] = True
        return True

    def due_in_s(self) -> float:
        """Return the seconds until `retry`, infinity where no topic is refused."""
        return max(0.0, self._retry_s - time.monotonic())

    def retry(self) -> list[str]:
        """Let messages be sent again, one of every topic still refused; return all that waited."""
        waited = list(self._trying)
        self._trying = {topic: False for topic in waited if topic not in self._accepted}
        self._accepted.clear()
        self._retry_s = math.inf
        return waited
