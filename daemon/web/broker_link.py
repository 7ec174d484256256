"""Daemon: the web server's connection to the broker: one thread, which connects again by itself.

Knows topics to subscribe to, and no payloads. Messages are given to the event loop; when it is
behind, messages are dropped and counted.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho

from daemon.mqtt.connection import connected_client
from daemon.mqtt.topics import REQUEST, topic_prefix
from daemon.system.backoff import Backoff
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from daemon.config.settings import Config

WAITING_LIMIT = 2000
"""Messages that may wait for the event loop: those of a minute of a few rigs."""

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
    subscriptions: filters of topics.
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
        subscriptions: tuple[str, ...],
        *,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[str, bytes], None],
        changed: Callable[[LinkState], None],
    ) -> None:
        self.state = LinkState(connected=False, why="The broker has not answered yet.")
        self.dropped = 0
        self._config = config
        self._subscriptions = subscriptions
        self._loop = loop
        self._receive = receive
        self._changed = changed
        self._waiting = 0
        self._client: paho.Client | None = None
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._log = get_logger("web")
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stop.set()
        self._lost.set()
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
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self._lost.set()
        client.subscribe([(topic, 1) for topic in self._subscriptions])
        client.loop_start()
        try:
            self._client = client
            self._set(LinkState(connected=True))
            self._lost.wait()
        finally:
            self._client = None
            client.on_disconnect = None
            client.disconnect()
            client.loop_stop()
        if not self._stop.is_set():
            self._set(LinkState(connected=False, why="The connection to the broker was lost."))

    def _set(self, state: LinkState) -> None:
        if state == self.state:
            return
        if state.connected != self.state.connected or state.why != self.state.why:
            log = self._log.info if state.connected else self._log.warning
            log("broker connected" if state.connected else str(state.why))
        self.state = state
        self._call(self._changed, state)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
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
