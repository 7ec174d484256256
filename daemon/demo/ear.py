"""Demo: a subscriber like any other: it hears what the rigs publish, and knows nothing else.

May import paho-mqtt. Decodes JSON; what it means is for `daemon.demo.story`.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from daemon.config import TOPIC_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING_LIMIT = 20_000
"""Messages that wait for the view at most, the oldest giving way: over a minute's worth."""


class Heard(NamedTuple):
    """One message: whose, its topic below the rig's prefix, and its payload (JSON decoded)."""

    rig_id: str
    topic: str
    payload: Any


class Ear:
    """A client of the broker; the block it manages is its connection, and paho owns its thread.

    Parameters
    ----------
    host, port: of the broker.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._waiting: deque[Heard] = deque(maxlen=WAITING_LIMIT)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="scentd-demo-view",
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC_ROOT}/#", qos=1)
        self._client.on_message = self._hear

    def __enter__(self) -> Self:
        self._client.connect(self._host, self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def take(self) -> Iterator[Heard]:
        """Yield what came since the last call."""
        while self._waiting:
            yield self._waiting.popleft()

    def _hear(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        _, rig_id, topic = message.topic.split("/", maxsplit=2)
        text = message.payload.decode()
        payload = json.loads(text) if text.startswith("{") else text
        self._waiting.append(Heard(rig_id, topic, payload))
