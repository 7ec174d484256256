"""Daemon: the rigs of a broker: messages as bytes in, updates for the pages out.

Pure: knows topics and payloads, but no broker, thread or page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.fleet.rig_state import EVENTS_KEPT, WatchedRig, readings_rows
from daemon.fleet.subscriptions import split_topic
from daemon.mqtt import topics
from hardware.safe_json import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

RIGS_KEPT = 2000
"""Rigs of one broker that are shown, each of about 60 kB. Bounds the memory: any client that may
publish can make up rigs."""

PAYLOAD_BYTES = 1 << 20
"""Largest payload that is read; a list of models is the largest, of about 20 kB."""

EVENTS_OF_ALL = 64_000
LEAST_EVENTS = 20
"""Events of all rigs together, which are shared evenly, and those that a rig has at least."""

Update = dict[str, Any]


class Rigs:
    """The state of every rig, by its id.

    Parameters
    ----------
    publish: called with rig and update, for the pages that show the rig.
    answered: called with rig, command and the answer on `response/`.
    most: rigs that are kept; others are ignored.

    Attributes
    ----------
    by_id: the rigs, in the order in which they were first heard of.
    unreadable: messages that could not be read.
    """

    def __init__(
        self,
        own: tuple[str, ...],
        publish: Callable[[str, Update], None],
        answered: Callable[[str, str, Update], None],
        most: int = RIGS_KEPT,
    ) -> None:
        self.by_id = {rig_id: WatchedRig(rig_id, self._events_kept) for rig_id in own}
        self._own = own
        self.unreadable = 0
        self._publish = publish
        self._answered = answered
        self._most = most
        self._waiting: dict[str, list[list[float | None]]] = {}
        self._list_changed = False

    def summary(self) -> Update:
        """Return the list of rigs, the page's own first, for the choice at the top of the page."""
        others = sorted(self.by_id.keys() - set(self._own))
        rigs = [self.by_id[rig_id] for rig_id in (*self._own, *others)]
        return {
            "kind": "rigs",
            "rigs": [
                {"rig": rig.rig_id, "status": rig.status, "sensor_status": rig.sensor_status}
                for rig in rigs
            ],
        }

    def take_summary(self) -> Update | None:
        """Return the list of rigs if it has changed since the last call.

        Where a thousand rigs come online together, the list must not be made for each.
        """
        changed, self._list_changed = self._list_changed, False
        return self.summary() if changed else None

    def forget_presence(self) -> None:
        """Forget who is online: a new connection is told that by retained messages."""
        for rig in self.by_id.values():
            rig.status = rig.sensor_status = None
        self._list_changed = True

    def receive(self, topic: str, payload: bytes) -> None:
        """Update a rig by one message, and publish what its pages should know."""
        place = split_topic(topic)
        if place is None:
            return
        rig_id, below = place
        rig = self.by_id.get(rig_id)
        if rig is None:
            if len(self.by_id) >= self._most or not payload:
                return
            rig = self.by_id[rig_id] = WatchedRig(rig_id, self._events_kept)
            self._list_changed = True
        if below in (topics.STATUS, topics.SENSOR_STATUS):
            changed = rig.receive_status(below, payload[:32].decode("utf-8", "replace"))
            self._list_changed = self._list_changed or changed
            return
        value = self._read(payload)
        if value is not None:
            self._receive_object(rig, below, value)

    def take_readings(self) -> dict[str, list[list[float | None]]]:
        """Return the readings of each rig since the last call, as rows."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def _events_kept(self) -> int:
        share = EVENTS_OF_ALL // max(1, len(self.by_id))
        return max(LEAST_EVENTS, min(EVENTS_KEPT, share))

    def _read(self, payload: bytes) -> Update | None:
        if not payload:
            return None  # a retained message was removed
        try:
            value = read_json(payload) if len(payload) <= PAYLOAD_BYTES else None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            self.unreadable += 1
            return None
        return value

    def _receive_object(self, rig: WatchedRig, topic: str, payload: Update) -> None:
        if topic == topics.SAMPLE:
            reading = rig.receive_reading(payload)
            if reading is not None:
                self._waiting.setdefault(rig.rig_id, []).extend(readings_rows([reading]))
            return
        kind, _, command = topic.partition("/")
        if kind == topics.RESPONSE:
            self._answered(rig.rig_id, command, payload)
        elif rig.receive(topic, payload):
            self._publish(rig.rig_id, {"kind": topic, "rig": rig.rig_id, "payload": payload})
