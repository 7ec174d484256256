"""Soak: the retained topics of the rig, as a new subscriber finds them during a run."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.config.settings import TOPIC_ROOT
from daemon.mqtt import topics
from daemon.sandbox.subscriber import Subscriber
from daemon.soak.claims import ALLOWANCE_S, RETAINED_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from daemon.soak.observed import DeliveredMessage

STATES = (topics.STATUS, topics.SENSOR_STATUS, topics.HEALTH, topics.INFO)
"""Retained whatever was recognised."""

_POLL_S = 0.05


@dataclass(slots=True)
class RetainedReport:
    """What new subscribers found.

    Attributes
    ----------
    checks: how often a new subscriber looked.
    problems: what was wrong, in words, each once.
    """

    checks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong."""
        return list(dict.fromkeys(self.problems))

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)

    def check_states(self, port: int, rig_id: str, wanted: Collection[str], after: str) -> None:
        """Wait until the rig is online and every wanted topic is retained."""
        self.checks += 1
        deadline_s = time.monotonic() + RETAINED_WITHIN_S + ALLOWANCE_S
        while True:
            found = retained(port, rig_id)
            missing = sorted(set(wanted) - set(found))
            if not missing and found[topics.STATUS] == topics.ONLINE:
                return
            if time.monotonic() > deadline_s:
                what = ", ".join(missing) or "status online"
                self.problems.append(
                    f"{what} was not retained {RETAINED_WITHIN_S:g} s after {after}"
                )
                return
            time.sleep(_POLL_S)

    def check_offline(self, port: int, rig_id: str, after: str) -> None:
        """Wait until the broker says that the rig is offline: by itself, or by the last will."""
        self.checks += 1
        deadline_s = time.monotonic() + RETAINED_WITHIN_S + ALLOWANCE_S
        while retained(port, rig_id).get(topics.STATUS) != topics.OFFLINE:
            if time.monotonic() > deadline_s:
                self.problems.append(
                    f"status was not offline {RETAINED_WITHIN_S:g} s after {after}"
                )
                return
            time.sleep(_POLL_S)

    def check_newest(self, port: int, rig_id: str, arrivals: Iterable[DeliveredMessage]) -> None:
        """Check that every retained prediction is the newest that was delivered."""
        self.checks += 1
        newest = {arrival.topic: arrival.id for arrival in arrivals}
        for topic, payload in retained(port, rig_id).items():
            if topic in (topics.SUBSTANCE, topics.MIXTURE):
                found = (payload["boot_id"], payload["seq"])
                if found != newest.get(topic):
                    self.problems.append(f"the retained {topic} is not the newest one")


def retained(port: int, rig_id: str) -> dict[str, Any]:
    """Return what a broker retains of a rig: the values by topic below the rig's prefix."""
    with Subscriber(port, topic=f"{TOPIC_ROOT}/{rig_id}/#") as subscriber:
        subscriber.catch_up()
        return {m.rig_topic[1]: m.value for m in subscriber.take() if m.retained and m.payload}
