"""Demo: a subscriber like any other: it hears what the rigs publish, and knows nothing else.

May import paho-mqtt. Decodes JSON; what it means is for `daemon.demo.state`.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from daemon.config.settings import TOPIC_ROOT
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING_LIMIT = 20_000
"""Messages that wait for the view at most, the oldest giving way: over a minute's worth."""


_LISTENING_WITHIN_S = 30.0


class SubscriptionError(ScentdError):
    """The broker does not let the view listen."""


class ReceivedMessage(NamedTuple):
    """One message: whose, its topic below the rig's prefix, and its payload (JSON decoded)."""

    rig_id: str
    topic: str
    payload: Any


@dataclass(frozen=True, slots=True)
class NumberedMessage:
    """One message with a sequence number, as the consumer got it."""

    topic: str
    boot_id: str
    seq: int
    payload: dict[str, Any]


class Subscriber:
    """A client of the broker; inside its block it listens, and paho owns its thread.

    Parameters
    ----------
    host, port: of the broker.

    Raises
    ------
    EarError
        The broker did not take the subscription in time.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._listening = threading.Event()
        self._waiting: deque[ReceivedMessage] = deque(maxlen=WAITING_LIMIT)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="scentd-demo-view",
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC_ROOT}/#", qos=1)
        self._client.on_subscribe = lambda *_: self._listening.set()
        self._client.on_message = self._hear

    def __enter__(self) -> Self:
        self._client.connect(self._host, self._port)
        self._client.loop_start()
        if not self._listening.wait(_LISTENING_WITHIN_S):
            self.__exit__()
            raise SubscriptionError(
                f"The broker at {self._host}:{self._port} did not take the view's subscription "
                f"within {_LISTENING_WITHIN_S:.0f} s. This machine may be too busy; try again."
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def take(self) -> Iterator[ReceivedMessage]:
        """Yield what came since the last call."""
        while self._waiting:
            yield self._waiting.popleft()

    def _hear(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        _, rig_id, topic = message.topic.split("/", maxsplit=2)
        text = message.payload.decode()
        payload = json.loads(text) if text.startswith("{") else text
        self._waiting.append(ReceivedMessage(rig_id, topic, payload))
