"""Soak: the consumer at the other end: it writes down everything the rig publishes.

May import paho-mqtt. Judges nothing: that is for `daemon.soak.accounting`.
"""

from __future__ import annotations

import json
import threading
import uuid
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from daemon.config.settings import TOPIC_ROOT
from daemon.sandbox.broker import LOOPBACK
from daemon.sandbox.subscriber import NumberedMessage
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from typing import Any

_WITHIN_S = 60.0
_ECHO = "soak/echo"
"""A word of the consumer to itself."""


class ConsumerError(ScentdError):
    """The broker under the storm does not serve its consumer."""


class Consumer:
    """A subscriber with a session that the broker keeps.

    Parameters
    ----------
    rig_id : str
        Whose topics it hears.

    Attributes
    ----------
    heard: everything with a sequence number that came, in order, as it came.
    """

    def __init__(self, rig_id: str) -> None:
        self._rig_id = rig_id
        self._client: paho.Client | None = None
        self._listening = threading.Event()
        self._echoes: set[bytes] = set()
        self._echoed = threading.Condition()
        self.heard: list[NumberedMessage] = []

    def listen(self, port: int) -> None:
        """Connect to a broker that has just come, and return once subscribed.

        Raises
        ------
        ConsumerError
            It does not take the subscription.
        """
        self.leave()
        self._listening.clear()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="scentd-soak-consumer",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.on_connect = lambda client, *_: client.subscribe(
            [(f"{TOPIC_ROOT}/{self._rig_id}/#", 1), (_ECHO, 1)]
        )
        client.on_subscribe = lambda *_: self._listening.set()
        client.on_message = self._hear
        client.connect(LOOPBACK, port)
        client.loop_start()
        self._client = client
        if not self._listening.wait(_WITHIN_S):
            raise ConsumerError(
                f"The broker on port {port} did not take the consumer's subscription within "
                f"{_WITHIN_S:.0f} s. This machine may be too busy; try again."
            )

    def catch_up(self) -> None:
        """Return once everything that the broker had for this consumer has been heard.

        A broker serves a subscriber in order: when it gives back a word that was sent just now,
        nothing older is on its way.

        Raises
        ------
        ConsumerError
            The broker is silent.
        """
        if self._client is None:
            return
        word = uuid.uuid4().bytes
        self._client.publish(_ECHO, word, qos=1)
        with self._echoed:
            came = self._echoed.wait_for(lambda: word in self._echoes, _WITHIN_S)
        if not came:
            raise ConsumerError(
                f"The broker did not serve its consumer within {_WITHIN_S:.0f} s. This machine "
                "may be too busy; try again."
            )

    def leave(self) -> None:
        """Go; the broker keeps the session."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _hear(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic == _ECHO:
            with self._echoed:
                self._echoes.add(bytes(message.payload))
                self._echoed.notify_all()
            return
        # What the broker kept is no delivery: counted as one, it could hide a loss.
        if message.retain or not message.payload.startswith(b"{"):
            return
        topic = message.topic.split("/", maxsplit=2)[2]
        payload = json.loads(message.payload)
        if "seq" in payload:
            self.heard.append(NumberedMessage(topic, payload["boot_id"], payload["seq"], payload))
