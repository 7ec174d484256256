"""Daemon: one connection to the broker of many rigs: what they last said, and their answers.

Works in the caller's thread, whenever it waits.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.config.settings import TOPIC_ROOT
from daemon.fleet.rigs import Rigs
from daemon.fleet.subscriptions import STATE_TOPICS, STATUS_TOPICS, of_all_rigs, portions
from daemon.fleet.waves import RigAnswer
from daemon.mqtt import topics
from daemon.mqtt.connection import BrokerError, connected_client
from daemon.requests import OK, WORKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import paho.mqtt.client as paho

    from daemon.config.settings import MqttConfig
    from daemon.fleet.rig_state import WatchedRig

MOST_RIGS = 100_000
"""Bounds the memory: any client that may publish can make up rigs."""

QUIET_S = 0.5
"""The retained messages have come when none arrives for so long. Live messages do not count:
rigs publish all the time."""

SETTLE_S = 60.0
"""Longest wait for the retained messages."""

ANSWER_S = 120.0
"""Longest silence of a rig that works on a request: it reports its progress every second."""

CLIENT = "fleet"
"""Takes the place of a rig's id in the name of the client."""


class FleetConnection:
    """The rigs of a broker; make one with `connect_fleet`."""

    def __init__(self, client: paho.Client) -> None:
        self._client = client
        self._rigs = Rigs((), lambda _rig, _update: None, self._answer, MOST_RIGS)
        self._waiting: dict[str, float] = {}
        """When each rig that has not answered last said something about the request."""
        self._outcomes: dict[str, RigAnswer] = {}
        self._transaction = ""
        self._retained_s = time.monotonic()
        self._unconfirmed: set[int | None] = set()
        client.on_message = lambda _client, _data, message: self._receive(message)
        client.on_subscribe = lambda _client, _data, mid, *_: self._unconfirmed.discard(mid)

    @property
    def rigs(self) -> list[WatchedRig]:
        """All rigs that the broker knows."""
        return list(self._rigs.by_id.values())

    def load(self, wanted: frozenset[str] = STATE_TOPICS) -> None:
        """Wait until the broker has sent what it keeps of all rigs.

        Parameters
        ----------
        wanted: topics of the objects that are needed; the two of status always come.
        """
        give_up_s = time.monotonic() + SETTLE_S
        self._subscribe(of_all_rigs(STATUS_TOPICS), give_up_s)
        self._await_quiet(give_up_s)
        for portion in portions([rig.rig_id for rig in self.rigs], wanted):
            self._subscribe(portion, give_up_s)
        if wanted:
            self._await_quiet(give_up_s)

    def _subscribe(self, filters: list[str], give_up_s: float) -> None:
        """Subscribe at QoS 0, and wait until the broker confirms it.

        Retained messages may come before or after the confirmation. At QoS 0 the broker need not
        hold messages back until earlier ones are acknowledged.
        """
        self._unconfirmed.add(self._client.subscribe([(one, 0) for one in filters])[1])
        while self._unconfirmed and time.monotonic() < give_up_s:
            self._work()

    def _await_quiet(self, give_up_s: float) -> None:
        self._retained_s = time.monotonic()
        while time.monotonic() < min(give_up_s, self._retained_s + QUIET_S):
            self._work()

    def send(self, rigs: list[str], command: str, payload: Mapping[str, Any]) -> list[RigAnswer]:
        """Send one request to several rigs at once, and wait for their answers.

        Parameters
        ----------
        rigs: ids.
        command: such as `models`.
        payload: the request, without `transaction`.

        Returns
        -------
        An outcome for every rig, in the same order.
        """
        transaction = secrets.token_hex(8)
        self._outcomes, self._transaction = {}, transaction
        online = {rig.rig_id for rig in self.rigs if rig.is_online}
        self._waiting = dict.fromkeys(online.intersection(rigs), time.monotonic())
        self._client.subscribe(f"{TOPIC_ROOT}/+/{topics.RESPONSE}/{command}", 1)
        text = json.dumps({**payload, "transaction": transaction, "progress": True})
        for rig in sorted(self._waiting):
            self._client.publish(f"{TOPIC_ROOT}/{rig}/{topics.REQUEST}/{command}", text, qos=1)
        while self._waiting:
            self._work()
            self._drop_silent()
        missing = "offline, so that nothing was sent"
        return [self._outcomes.get(rig, RigAnswer(rig, ok=False, text=missing)) for rig in rigs]

    def wait(self, duration_s: float) -> None:
        """Wait, and keep the connection alive meanwhile."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self._work()

    def _end(self, rig: str, text: str, *, ok: bool = False) -> None:
        self._waiting.pop(rig, None)
        self._outcomes[rig] = RigAnswer(rig, ok=ok, text=text)

    def _drop_silent(self) -> None:
        """Wait no longer for rigs that went offline, or are silent."""
        by_id, now_s = self._rigs.by_id, time.monotonic()
        for rig, heard_s in tuple(self._waiting.items()):
            if not by_id[rig].is_online:
                self._end(rig, "went offline before it answered; it may have been done")
            elif now_s - heard_s > ANSWER_S:
                self._end(rig, f"no answer within {ANSWER_S:.0f} s; it may have been done")

    def _answer(self, rig: str, _command: str, answer: dict[str, Any]) -> None:
        if rig not in self._waiting or answer.get("transaction") != self._transaction:
            return
        if answer.get("status") == WORKING:
            self._waiting[rig] = time.monotonic()
            return
        ok = answer.get("status") == OK
        text = answer.get("words") or answer.get("error") or ("done" if ok else "refused")
        self._end(rig, str(text), ok=ok)

    def _receive(self, message: paho.MQTTMessage) -> None:
        if message.retain:
            self._retained_s = time.monotonic()
        self._rigs.receive(message.topic, bytes(message.payload))

    def _work(self) -> None:
        if self._client.loop(0.1):
            raise BrokerError(
                "The broker closed the connection. What was sent before may have been done: look "
                "with scentd fleet status before you send it again."
            )


@contextmanager
def connect_fleet(
    config: MqttConfig, wanted: frozenset[str] = STATE_TOPICS
) -> Iterator[FleetConnection]:
    """Connect to the broker of the rigs for the block, and load what it keeps of them.

    `wanted` is as for `FleetConnection.load`.

    Raises
    ------
    BrokerError: the broker cannot be used.
    """
    with connected_client(CLIENT, config, suffix=f"-{secrets.token_hex(4)}") as client:
        connection = FleetConnection(client)
        connection.load(wanted)
        yield connection
