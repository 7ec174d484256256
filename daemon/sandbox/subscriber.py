"""Daemon: an MQTT client that collects what a broker on this machine delivers.

May import paho-mqtt. Does not interpret payloads.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from daemon.config.settings import TOPIC_ROOT
from daemon.sandbox.broker import LOOPBACK, BrokerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANSWER_WITHIN_S = 60.0
_MARKER_TOPIC = "subscriber/marker"


class ReceivedMessage(NamedTuple):
    """One message as the broker delivered it.

    Attributes
    ----------
    retained: whether it was sent before the subscription and retained by the broker.
    at_s: time of arrival, on the clock of `time.monotonic`.
    """

    topic: str
    payload: bytes
    qos: int
    retained: bool
    at_s: float

    @property
    def text(self) -> str:
        """The payload as text."""
        return self.payload.decode()

    @property
    def value(self) -> Any:
        """The payload: a JSON object decoded, anything else as text."""
        return json.loads(self.payload) if self.payload.startswith(b"{") else self.text

    @property
    def rig_topic(self) -> tuple[str, str]:
        """The rig's id and the topic below the rig's prefix."""
        _, rig_id, topic = self.topic.split("/", maxsplit=2)
        return rig_id, topic


class Subscriber:
    """Collects messages while its block runs, in a thread of paho.

    Parameters
    ----------
    port: of a broker on the loopback interface.
    topic: filter of the subscription.
    session: name of a session that the broker keeps between two connections; empty for none.
    limit: messages kept at most; the oldest are dropped.

    Raises
    ------
    BrokerStartError: if the broker does not answer in time.

    Attributes
    ----------
    received: the messages in the order of arrival. Copy it (`list(...)`) before a loop over it.
    """

    def __init__(
        self,
        port: int,
        *,
        topic: str = f"{TOPIC_ROOT}/#",
        session: str = "",
        limit: int | None = None,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        self.received: deque[ReceivedMessage] = deque(maxlen=limit)
        self._port = port
        self._subscribed = threading.Event()
        self._marked = threading.Event()
        self._marker = b""
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session,
            clean_session=False if session else None,
            protocol=protocol,
        )
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(topic, 1), (_MARKER_TOPIC, 1)]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._receive

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Connect, and return once the broker has confirmed the subscription."""
        self._client.connect(LOOPBACK, self._port)
        self._client.loop_start()
        try:
            self._await(self._subscribed, "confirm a subscription")
        except BrokerStartError:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def take(self) -> Iterator[ReceivedMessage]:
        """Yield the messages received since the last call, and remove them."""
        while self.received:
            yield self.received.popleft()

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish a message with QoS 1."""
        self._client.publish(topic, payload, qos=1, retain=retain)

    def catch_up(self) -> None:
        """Return once every message that the broker has for this client now has arrived.

        A broker delivers to one client in order, so this client publishes a marker to itself.
        """
        self._marked.clear()
        self._marker = uuid.uuid4().bytes
        self._client.publish(_MARKER_TOPIC, self._marker, qos=1)
        self._await(self._marked, "return a message to its sender")

    def _receive(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic == _MARKER_TOPIC:
            if message.payload == self._marker:
                self._marked.set()
            return
        self.received.append(
            ReceivedMessage(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                time.monotonic(),
            )
        )

    def _await(self, event: threading.Event, what: str) -> None:
        if not event.wait(_ANSWER_WITHIN_S):
            raise BrokerStartError(
                f"The broker on port {self._port} did not {what} within {_ANSWER_WITHIN_S:.0f} s. "
                "This machine may be too busy; try again."
            )
