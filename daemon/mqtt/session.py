"""Daemon: one connection to the broker, from CONNECT to its end.

May import paho-mqtt. Runs in the MQTT thread of `daemon.mqtt.publisher`, which makes a new session
after every end. Must never build a payload.
"""

from __future__ import annotations

import json
import logging
import math
import select
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.mqtt.connection import (
    IN_FLIGHT_LIMIT,
    PROTOCOL_NAMES,
    check_connack,
    close_socket,
    connack_timeout_s,
    connect,
    make_client,
)
from daemon.mqtt.outgoing import Outgoing
from daemon.mqtt.topics import OFFLINE, ONLINE, REQUEST, STATUS, topic_prefix
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.config.settings import MqttConfig
    from daemon.mqtt.outbox import Outbox
    from daemon.mqtt.outbox_values import Message

PACKET_OVERHEAD_BYTES = 16
"""What the header and the properties add to topic and payload, at most."""

FLUSH_S = 0.5
FAREWELL_S = 0.7
"""Time for the last messages and for `offline` at the end: SIGTERM has two seconds in all."""

OnRequest = Callable[[str, bytes, bool], None]
"""Takes a request's command, its payload as received, and whether it was retained; never blocks."""

Listeners = Mapping[str, Callable[[bytes], None]]
"""By whole topic of others, the receiver of its live messages; never blocks."""


@dataclass(slots=True)
class Link:
    """What all connections of a rig have in common.

    Attributes
    ----------
    stopping: ends the connection, and the thread.
    log_level: of the latest failure; its recovery is logged at the same level.
    """

    rig_id: str
    config: MqttConfig
    outbox: Outbox
    on_request: OnRequest | None
    listeners: Listeners
    outgoing: Outgoing = field(default_factory=Outgoing)
    stopping: Event = field(default_factory=Event)
    log_level: int = logging.INFO


class Session:
    """One connection.

    With a new client for every connection paho never resends by itself: messages in flight go back
    to the outbox and are sent again marked as late.
    """

    def __init__(self, link: Link, protocol: MQTTProtocolVersion, *, last: bool) -> None:
        self._link = link
        self._outgoing = link.outgoing
        self._last = last
        self._prefix = topic_prefix(link.rig_id)
        self._protocol = PROTOCOL_NAMES[protocol]
        self._client = make_client(link.rig_id, link.config, protocol)
        self._client.will_set(self._prefix + STATUS, OFFLINE, qos=1, retain=True)
        self._client.on_connect = lambda _client, _data, _flags, *args: self._on_connect(*args)
        self._client.on_publish = lambda _client, _data, mid, why, _: self._on_publish(mid, why)
        self._client.on_message = lambda _client, _data, message: self._on_message(message)
        self._connack: ReasonCode | None = None
        self._max_packet_bytes: float = math.inf
        self._in_flight: dict[int, int | None] = {}
        """The outbox's id by paho's; None for messages that are not of the outbox."""
        self._late_until = 0
        self._newest_late: dict[str, int] = {}
        self._log = get_logger("mqtt")

    def run(self) -> None:
        """Connect and serve until the connection ends or `stopping` is set.

        Raises
        ------
        ScentdError
            If the connection cannot be made.
        """
        link = self._link
        connect(self._client, link.config)
        try:
            self._await_connack()
            self._log.log(
                link.log_level,
                "connected to the broker",
                host=link.config.host,
                port=link.config.port,
                protocol=self._protocol,
            )
            link.log_level = logging.INFO
            while not link.stopping.is_set() and self._connected():
                self._send_all()
                self._work(1.0)
            if self._connected():
                self._say_goodbye()
        finally:
            link.outbox.requeue_in_flight()
            close_socket(self._client)

    def _connected(self) -> bool:
        return self._client.socket() is not None

    def _await_connack(self) -> None:
        link = self._link
        deadline_s = time.monotonic() + connack_timeout_s(last=self._last)
        while self._connack is None and self._connected():
            if time.monotonic() > deadline_s or link.stopping.is_set():
                break
            self._work(0.2)
        check_connack(self._connack, link.config, last=self._last)
        self._late_until = link.outbox.newest_id()
        self._newest_late = link.outbox.newest_retained()
        self._outgoing.connected(self._protocol)
        # Before the rig is online. The client's session ends with the connection, so that a request
        # made while the rig is away is lost: it must not be carried out hours later.
        if link.on_request is not None:
            self._subscribe_to_requests()
        for topic in link.listeners:
            self._client.subscribe(topic, qos=1)
        self._publish_status(ONLINE)

    def _subscribe_to_requests(self) -> None:
        topic = f"{self._prefix}{REQUEST}/+"
        if self._protocol == PROTOCOL_NAMES[MQTTProtocolVersion.MQTTv5]:
            # Only MQTT 5 reports that a message just sent is also to be retained.
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            self._client.subscribe(topic, options=options)
        else:
            self._client.subscribe(topic, qos=1)

    def _on_message(self, message: paho.MQTTMessage) -> None:
        listener = self._link.listeners.get(message.topic)
        if listener is not None:
            if not message.retain:  # after a connection everything is published again anyway
                listener(bytes(message.payload))
        elif self._link.on_request is not None:
            command = message.topic.rpartition("/")[2]
            self._link.on_request(command, bytes(message.payload), message.retain)

    def _on_connect(self, reason: ReasonCode, properties: Properties | None) -> None:
        self._connack = reason
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", math.inf)

    def _on_publish(self, mid: int, reason: ReasonCode) -> None:
        self._acknowledge(self._in_flight.pop(mid, None))
        if reason.is_failure:
            # MQTT 5 reports what 3.1.1 conceals: no permission for the topic, a quota, a payload
            # that is too large. Sending again would not help.
            self._outgoing.count(rejected=1)
            self._log.error("the broker rejected a message", reason=str(reason))

    def _acknowledge(self, entry_id: int | None) -> None:
        if entry_id is not None:
            self._link.outbox.acknowledge(entry_id)

    def _send_all(self) -> None:
        """Send present states first, then the outbox in order, then the unqueued messages."""
        states, unqueued = self._outgoing.take()
        for message in states:
            self._publish(message.topic, message)
        while len(self._in_flight) < IN_FLIGHT_LIMIT and (entry := self._link.outbox.take()):
            message = entry.message
            if entry.id <= self._late_until:
                message = self._as_late(message, entry.id)
            self._publish(self._prefix + message.topic, message, entry.id)
        for message in unqueued:
            if self._client.want_write():  # the broker is slower than the samples
                self._outgoing.count(fleeting_dropped=1)
            else:
                self._publish(message.topic, message)

    def _as_late(self, message: Message, entry_id: int) -> Message:
        """Mark a message as late, after an outage; only the newest of a topic remains retained."""
        late = {**json.loads(message.payload), "buffered": True}
        payload = json.dumps(late, separators=(",", ":"), ensure_ascii=False)
        retain = message.retain and self._newest_late.get(message.topic) == entry_id
        return replace(message, payload=payload, retain=retain)

    def _publish(self, topic: str, message: Message, entry_id: int | None = None) -> None:
        """Publish on a whole topic."""
        # A label taught over JSON may hold characters that UTF-8 cannot encode.
        payload = message.payload.encode(errors="replace")
        size_bytes = len(payload) + len(topic) + PACKET_OVERHEAD_BYTES
        if size_bytes > self._max_packet_bytes:
            # The broker would end this connection, and every later one.
            self._outgoing.count(rejected=1)
            self._log.error(
                "a message is larger than the broker allows and is given up",
                topic=topic,
                size_bytes=size_bytes,
                largest_bytes=self._max_packet_bytes,
            )
            self._acknowledge(entry_id)
            return
        info = self._client.publish(topic, payload, message.qos, message.retain)
        if message.qos > 0:
            self._in_flight[info.mid] = entry_id

    def _publish_status(self, status: str) -> None:
        info = self._client.publish(self._prefix + STATUS, status, 1, retain=True)
        self._in_flight[info.mid] = None

    def _work(self, longest_s: float) -> None:
        """Let the client read or write once, when it can, after a wake, or after `longest_s`."""
        client, wake_fd = self._client, self._outgoing.wake_fd
        connection = client.socket()
        if connection is None:
            return
        # TLS may hold decrypted bytes that select cannot see.
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        fd = connection.fileno()
        writes = [fd] if client.want_write() else []
        readable, writable, _ = select.select(
            [fd, wake_fd], writes, [], 0 if pending else longest_s
        )
        if wake_fd in readable:
            self._outgoing.clear_wake()
        if pending or fd in readable:
            client.loop_read()
        if writable:
            client.loop_write()
        client.loop_misc()

    def _say_goodbye(self) -> None:
        """Send the last messages, replace the last will by a status of our own, and disconnect."""
        deadline_s = time.monotonic() + FLUSH_S
        self._send_all()
        while self._in_flight and self._connected() and time.monotonic() < deadline_s:
            self._work(0.05)
            self._send_all()
        self._publish_status(OFFLINE)
        deadline_s = time.monotonic() + FAREWELL_S
        while self._in_flight and self._connected() and time.monotonic() < deadline_s:
            self._work(0.05)
        self._client.disconnect()
        while self._client.want_write() and time.monotonic() < deadline_s:
            self._work(0.05)
