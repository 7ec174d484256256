"""Daemon: the web server's connection to the broker: one thread, which connects again by itself.

Knows topics to subscribe to, and no payloads. What the broker retains of the rigs is asked for in
portions. Messages are given to the event loop; when it is behind, messages are dropped and counted.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.fleet.subscriptions import (
    FILTERS_AT_ONCE,
    PASSING_TOPICS,
    STATE_TOPICS,
    STATUS_TOPICS,
    of_all_rigs,
    portions,
    split_topic,
)
from daemon.mqtt.connection import connected_client
from daemon.mqtt.topics import REQUEST, topic_prefix
from daemon.system.backoff import Backoff
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from daemon.config.settings import Config

WAITING_LIMIT = 5000
"""Messages that may wait for the event loop: the two words of status of all rigs, and more."""

PORTION_EVERY_S = 0.1
"""Time between two portions of what the broker retains."""

PORTION_WITHIN_S = 2.0
"""After this time a portion has come, and its topics are unsubscribed: later messages come by the
filters for all rigs."""

_STOP_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class LinkState:
    """Whether the broker is connected, and why not."""

    connected: bool
    why: str | None = None


class BrokerLink:
    """The connection to the broker.

    Parameters
    ----------
    config: of a rig on the broker: host, port, user, certificates.
    most: rigs whose retained messages are asked for.
    loop: in which the two functions are called.
    receive: called with topic and payload of every message.
    changed: called when the connection was made or lost.

    Attributes
    ----------
    state: as of now.
    dropped: messages for which the loop had no room.
    """

    def __init__(
        self,
        config: Config,
        *,
        most: int,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[str, bytes], None],
        changed: Callable[[LinkState], None],
    ) -> None:
        self.state = LinkState(connected=False, why="The broker has not answered yet.")
        self.dropped = 0
        self._config = config
        self._most = most
        self._loop = loop
        self._receive = receive
        self._changed = changed
        self._waiting = 0
        self._client: paho.Client | None = None
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._wake = threading.Event()
        self._seen: set[str] = set()
        self._new: deque[str] = deque()
        self._log = get_logger("web")
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stop.set()
        self._lose()
        self._thread.join(_STOP_WITHIN_S)

    def request(self, rig_id: str, command: str, payload: dict[str, Any]) -> bool:
        """Publish a request; return False where no broker is connected."""
        client = self._client
        if client is None:
            return False
        topic = f"{topic_prefix(rig_id)}{REQUEST}/{command}"
        return client.publish(topic, json.dumps(payload), qos=1).rc == paho.MQTT_ERR_SUCCESS

    def _run(self) -> None:
        waits = Backoff(first_s=0.5, longest_s=30.0)
        suffix = f"-web-{secrets.token_hex(4)}"
        while not self._stop.is_set():
            try:
                with connected_client(
                    self._config.rig_id, self._config.mqtt, suffix=suffix
                ) as client:
                    waits.reset()
                    self._serve(client)
            except ScentdError as error:
                self._set(LinkState(connected=False, why=str(error)))
            self._stop.wait(waits.next_s())

    def _serve(self, client: paho.Client) -> None:
        """Receive messages until the connection is lost."""
        self._lost.clear()
        self._seen, self._new = set(), deque()
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self._lose()
        self._subscribe(client)
        client.loop_start()
        try:
            self._client = client
            self._set(LinkState(connected=True))
            self._ask_for_states(client)
        finally:
            self._client = None
            client.on_disconnect = None
            client.disconnect()
            client.loop_stop()
        if not self._stop.is_set():
            self._set(LinkState(connected=False, why="The connection to the broker was lost."))

    def _lose(self) -> None:
        self._lost.set()
        self._wake.set()

    def _subscribe(self, client: paho.Client) -> None:
        """Subscribe to everything of all rigs, without what the broker retains of their states."""
        live = of_all_rigs((*STATE_TOPICS, *PASSING_TOPICS))
        # Only MQTT 5 can leave them out: 2 stands for "never".
        mqtt5 = client.protocol == paho.MQTTv5
        quality: Any = SubscribeOptions(qos=1, retainHandling=2) if mqtt5 else 1
        words = [(one, 0) for one in of_all_rigs(STATUS_TOPICS)]
        client.subscribe([*((one, quality) for one in live), *words])

    def _ask_for_states(self, client: paho.Client) -> None:
        """Ask for the states of rigs as they become known, until the connection is lost."""
        asked: deque[tuple[float, list[str]]] = deque()
        while not self._lost.is_set():
            portion = self._next_portion()
            if portion:
                asked.append((time.monotonic(), portion))
                client.subscribe([(one, 0) for one in portion])
            while asked and time.monotonic() > asked[0][0] + PORTION_WITHIN_S:
                client.unsubscribe(asked.popleft()[1])
            if asked:
                self._lost.wait(PORTION_EVERY_S)
            else:
                self._wake.wait()
                self._wake.clear()

    def _next_portion(self) -> list[str]:
        """Return the topics of the next rigs."""
        count = min(len(self._new), FILTERS_AT_ONCE // len(STATE_TOPICS))
        rigs = [self._new.popleft() for _ in range(count)]
        return next(portions(rigs, STATE_TOPICS), [])

    def _set(self, state: LinkState) -> None:
        if state == self.state:
            return
        if state.connected != self.state.connected or state.why != self.state.why:
            log = self._log.info if state.connected else self._log.warning
            log("broker connected" if state.connected else str(state.why))
        self.state = state
        self._call(self._changed, state)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        place = split_topic(message.topic)
        if place is not None and place[0] not in self._seen and len(self._seen) < self._most:
            self._seen.add(place[0])
            self._new.append(place[0])
            self._wake.set()
        if self._waiting >= WAITING_LIMIT:
            self.dropped += 1
            return
        self._waiting += 1
        self._call(self._deliver, message.topic, bytes(message.payload))

    def _deliver(self, topic: str, payload: bytes) -> None:
        self._waiting -= 1
        self._receive(topic, payload)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._stop.set()  # the loop has ended
