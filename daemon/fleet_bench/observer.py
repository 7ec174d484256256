"""Daemon: one subscriber to everything of a fleet: which messages arrived, and who is online.

Its session outlives the broker's end (`FleetBroker` keeps it on disk), so that it misses nothing
that rigs send before it is connected again.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from daemon.config.settings import DISCOVERY_PREFIX
from daemon.mqtt import topics
from daemon.sandbox.subscriber import Subscriber
from daemon.soak.observed import DURABLE

if TYPE_CHECKING:
    from daemon.sandbox.subscriber import ReceivedMessage
    from daemon.soak.observed import MessageId

SESSION = "fleet-bench-observer"

ANNOUNCEMENT = "homeassistant"
"""Stands for the topic of a rig's announcement to Home Assistant."""

POLL_S = 0.1
"""How often it is looked whether something has arrived or happened."""


class FleetObserver:
    """The subscriber, connected while its block runs.

    Parameters
    ----------
    port: of a broker on the loopback interface.

    Attributes
    ----------
    count: messages that arrived live, of all kinds.
    arrived: the predictions and events among them.
    again: how many of these arrived a second time.
    disordered: how many first arrived after a later one of their boot and topic.
    status: by rig, the newest word of its `status`, and when it came on the monotonic clock.
    """

    def __init__(self, port: int) -> None:
        self.count = self.again = self.disordered = 0
        self.arrived: set[MessageId] = set()
        self.status: dict[str, tuple[str, float]] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._subscriber = Subscriber(port, session=SESSION)

    def __enter__(self) -> Self:
        self._subscriber.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._subscriber.close()

    def take(self) -> None:
        """Note what has arrived since the last call."""
        for message in self._subscriber.take():
            # A new connection repeats the subscription, and the broker what it retains.
            if not message.retained:
                self.count += 1
                self._note(message)

    def missing(self, made: set[MessageId]) -> int:
        """Return how many of these messages have not arrived."""
        self.take()
        return len(made - self.arrived)

    def watch(self, duration_s: float) -> None:
        """Note for so long what arrives."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self.take()
            time.sleep(POLL_S)

    def await_all(self, made: set[MessageId], within_s: float) -> int:
        """Wait until all of these messages have arrived; return how many are missing."""
        give_up_s = time.monotonic() + within_s
        while (missing := self.missing(made)) and time.monotonic() < give_up_s:
            time.sleep(POLL_S)
        return missing

    def _note(self, message: ReceivedMessage) -> None:
        rig, topic = message.rig_topic
        if topic == topics.STATUS:
            self.status[rig] = message.text, message.at_s
        if topic not in DURABLE:
            return
        payload = message.value
        one = str(payload["boot_id"]), int(payload["seq"])
        if one in self.arrived:
            self.again += 1
            return
        self.arrived.add(one)
        newest = self._newest.get((one[0], topic), -1)
        self.disordered += one[1] < newest
        self._newest[one[0], topic] = max(newest, one[1])


def retained_rigs(port: int) -> dict[str, int]:
    """Return, by topic, of how many rigs a broker keeps a message; of `status`, only `online`."""
    found: Counter[str] = Counter()
    with Subscriber(port) as late:
        late.catch_up()
        for message in late.take():
            topic = message.rig_topic[1]
            if message.retained and (topic != topics.STATUS or message.text == topics.ONLINE):
                found[topic] += 1
    with Subscriber(port, topic=f"{DISCOVERY_PREFIX}/device/+/config") as late:
        late.catch_up()
        found[ANNOUNCEMENT] = len(late.received)
    return dict(found)
