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
    NoRetainError,
    check_connack,
    check_size,
    close_socket,
    connack_timeout_s,
    connect,
    keeps_retained,
    make_client,
)
from daemon.mqtt.outbox_values import UNDELIVERABLE
from daemon.mqtt.outgoing import Outgoing
from daemon.mqtt.refusals import UNDELIVERABLE_CODES, Refusals
from daemon.mqtt.takeovers import TAKEN_OVER, Takeovers
from daemon.mqtt.topics import OFFLINE, ONLINE, REQUEST, STATUS, topic_prefix
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.config.settings import MqttConfig
    from daemon.mqtt.outbox import Outbox
    from daemon.mqtt.outbox_values import Entry, Message

PACKET_OVERHEAD_BYTES = 16
"""What the header and the properties add to topic and payload, at most."""

TAKEN_AT_ONCE = 500
"""Waiting messages looked at before the connection is served again."""

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
    delivered: by topic, the newest retained message of the outbox that a broker accepted.
    retain: whether the broker keeps retained messages, as far as known.
    accepted: version of MQTT that the broker accepted; None where it is to be found out. A broker
        to which a thousand rigs return answers late, which must not be taken for another version.
    stopping: ends the connection, and the thread.
    log_level: of the latest failure; its recovery is logged at the same level.
    takeovers: of the rig's place at the broker.
    """

    rig_id: str
    config: MqttConfig
    outbox: Outbox
    on_request: OnRequest | None
    listeners: Listeners
    delivered: dict[str, Entry] = field(default_factory=dict)
    retain: bool = True
    accepted: MQTTProtocolVersion | None = None
    outgoing: Outgoing = field(default_factory=Outgoing)
    stopping: Event = field(default_factory=Event)
    log_level: int = logging.INFO
    takeovers: Takeovers = field(default_factory=Takeovers)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that the broker has not answered.

    Attributes
    ----------
    topic: in full.
    entry: of the outbox; None for a state.
    """

    topic: str
    entry: Entry | None


class Session:
    """One connection.

    Attributes
    ----------
    taken_over: whether the broker said that it ends because another client has the same id.

    With a new client for every connection paho never resends by itself: messages in flight go back
    to the outbox and are sent again marked as late.
    """

    def __init__(self, link: Link, protocol: MQTTProtocolVersion, *, last: bool) -> None:
        self._link = link
        self._outgoing = link.outgoing
        self._last = last
        self._prefix = topic_prefix(link.rig_id)
        self._version = protocol
        self._protocol = PROTOCOL_NAMES[protocol]
        self.taken_over = False
        self._client = make_client(link.rig_id, link.config, protocol, retain=link.retain)
        self._client.on_connect = lambda _client, _data, _flags, *args: self._on_connect(*args)
        self._client.on_publish = lambda _client, _data, mid, why, _: self._on_publish(mid, why)
        self._client.on_subscribe = lambda _client, _data, mid, why, _: self._on_subscribe(mid, why)
        self._client.on_disconnect = lambda _client, _data, _flags, why, _: self._on_disconnect(why)
        self._client.on_message = lambda _client, _data, message: self._on_message(message)
        self._connack: ReasonCode | None = None
        self._properties: Properties | None = None
        self._max_packet_bytes: float = math.inf
        self._in_flight: dict[int, _Sent] = {}
        self._subscribing: dict[int, str] = {}
        """Both by paho's id."""
        self._refusals = Refusals()
        self._late_until = 0
        self._refused_until: dict[str, int] = {}
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
                more = self._send_all()
                if link.takeovers.is_free_again():
                    self._outgoing.update(why=None)
                    self._log.error("the broker keeps this rig's connection again")
                self._work(0.0 if more else min(1.0, max(0.05, self._refusals.due_in_s())))
            if self._connected():
                self._say_goodbye()
            check_size(self._client)
        finally:
            link.outbox.requeue_in_flight()
            close_socket(self._client)

    def _connected(self) -> bool:
        return self._client.socket() is not None

    def _await_connack(self) -> None:
        link = self._link
        link.accepted = None
        deadline_s = time.monotonic() + connack_timeout_s(last=self._last)
        while self._connack is None and self._connected():
            if time.monotonic() > deadline_s or link.stopping.is_set():
                break
            self._work(0.2)
        try:
            check_connack(self._connack, link.config, last=self._last)
            link.retain = link.retain and keeps_retained(self._properties, link.config)
        except NoRetainError:
            link.retain = False
            raise
        link.accepted = self._version
        self._late_until = link.outbox.newest_id()
        self._newest_late = link.outbox.newest_retained()
        link.takeovers.connected()
        self._outgoing.connected(self._protocol)
        # Before the rig is online. The client's session ends with the connection, so that a request
        # made while the rig is away is lost: it must not be carried out hours later.
        if link.on_request is not None:
            self._subscribe(f"{self._prefix}{REQUEST}/+")
        for topic in link.listeners:
            self._subscribe(topic)
        self._publish_status(ONLINE)
        for topic in link.delivered:
            self._repeat_delivered(topic)

    def _subscribe(self, topic: str) -> None:
        if self._protocol == PROTOCOL_NAMES[MQTTProtocolVersion.MQTTv5]:
            # Only MQTT 5 reports that a message just sent is also to be retained.
            options = SubscribeOptions(qos=1, retainAsPublished=topic not in self._link.listeners)
            _, mid = self._client.subscribe(topic, options=options)
        else:
            _, mid = self._client.subscribe(topic, qos=1)
        if mid is not None:
            self._subscribing[mid] = topic

    def _repeat_delivered(self, topic: str) -> None:
        """Send a topic's newest retained message again, which a broker may have forgotten."""
        entry = self._link.delivered[topic]
        if self._newest_late.get(topic, 0) <= entry.id:  # otherwise a newer one follows
            self._publish(self._prefix + topic, self._as_late(entry.message, entry.id))

    def _on_message(self, message: paho.MQTTMessage) -> None:
        listener = self._link.listeners.get(message.topic)
        if listener is not None:
            if not message.retain:  # after a connection everything is published again anyway
                listener(bytes(message.payload))
        elif self._link.on_request is not None:
            command = message.topic.rpartition("/")[2]
            self._link.on_request(command, bytes(message.payload), message.retain)

    def _on_connect(self, reason: ReasonCode, properties: Properties | None) -> None:
        self._connack, self._properties = reason, properties
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", math.inf)

    def _on_disconnect(self, reason: ReasonCode) -> None:
        self.taken_over = reason.value == TAKEN_OVER

    def _on_publish(self, mid: int, reason: ReasonCode) -> None:
        sent = self._in_flight.pop(mid, None)
        if sent is None:
            return
        if not reason.is_failure:
            self._note_delivered(sent)
            if self._refusals.accept(sent.topic):
                self._log.error("the broker accepts messages again", topic=sent.topic)
        elif reason.value in UNDELIVERABLE_CODES:
            self._give_up(sent, "the broker can never accept a message, which is given up", reason)
        else:
            # MQTT 5 reports what 3.1.1 conceals: no permission for the topic, or a quota.
            self._outgoing.count(rejected=1)
            if sent.entry is not None:
                self._link.outbox.hold(sent.entry.id)
            self._refuse(sent.topic, "the broker refuses messages; they wait", reason)

    def _on_subscribe(self, mid: int, reasons: list[ReasonCode]) -> None:
        topic = self._subscribing.pop(mid, None)
        if topic is None:
            return
        if any(reason.is_failure for reason in reasons):
            self._refuse(topic, "the broker refuses a subscription; it is tried again", reasons[0])
        elif self._refusals.accept(topic):
            self._log.error("the broker accepts the subscription", topic=topic)

    def _refuse(self, topic: str, what: str, reason: ReasonCode) -> None:
        log = self._log.error if self._refusals.refuse(topic) else self._log.debug
        log(what, topic=topic, reason=str(reason))

    def _note_delivered(self, sent: _Sent) -> None:
        if sent.entry is None:
            return
        if sent.entry.message.retain:
            self._link.delivered[sent.entry.message.topic] = sent.entry
        self._link.outbox.acknowledge(sent.entry.id)

    def _give_up(self, sent: _Sent, what: str, reason: ReasonCode | str) -> None:
        self._outgoing.count(rejected=1)
        self._log.error(what, topic=sent.topic, reason=str(reason))
        if sent.entry is not None:
            self._link.outbox.acknowledge(sent.entry.id, UNDELIVERABLE)

    def _retry_refused(self) -> None:
        """Send what was refused again: states, subscriptions, and what waits in the outbox."""
        outbox = self._link.outbox
        outbox.requeue_in_flight()
        newest_id, newest_retained = outbox.newest_id(), outbox.newest_retained()
        for topic in self._refusals.retry():
            name = topic.removeprefix(self._prefix)
            self._refused_until[name] = newest_id
            if name in newest_retained:
                self._newest_late[name] = newest_retained[name]
            if topic in self._link.listeners or topic == f"{self._prefix}{REQUEST}/+":
                self._subscribe(topic)
            elif name == STATUS:
                self._publish_status(ONLINE)
            elif name in self._link.delivered:
                self._repeat_delivered(name)
            else:
                self._outgoing.repeat(topic)

    def _send_all(self) -> bool:
        """Send present states first, then the outbox in order, then the unqueued messages.

        Returns
        -------
        whether more may be waiting that could be sent now.
        """
        sending = any(sent.entry for sent in self._in_flight.values())
        # What is in flight would be sent twice.
        retrying = self._refusals.due_in_s() == 0.0
        if retrying and not sending:
            self._retry_refused()
            retrying = False
        states, unqueued = self._outgoing.take()
        for message in states:
            self._publish(message.topic, message)
        more = not retrying and self._send_waiting()
        for message in unqueued:
            if self._client.want_write():  # the broker is slower than the samples
                self._outgoing.count(fleeting_dropped=1)
            else:
                self._publish(message.topic, message)
        return more

    def _send_waiting(self) -> bool:
        """Send the outbox's messages in order, without those of refused topics."""
        for _ in range(TAKEN_AT_ONCE):
            if len(self._in_flight) >= IN_FLIGHT_LIMIT:
                return False
            entry = self._link.outbox.take()
            if entry is None:
                return False
            message = entry.message
            topic = self._prefix + message.topic
            if not self._refusals.may_send(topic):
                self._link.outbox.hold(entry.id)
                continue
            if entry.id <= max(self._late_until, self._refused_until.get(message.topic, 0)):
                message = self._as_late(message, entry.id)
            self._publish(topic, message, entry)
        return True

    def _as_late(self, message: Message, entry_id: int) -> Message:
        """Mark a message as late, after an outage; only the newest of a topic remains retained."""
        late = {**json.loads(message.payload), "buffered": True}
        payload = json.dumps(late, separators=(",", ":"), ensure_ascii=False)
        retain = message.retain and self._newest_late.get(message.topic) == entry_id
        return replace(message, payload=payload, retain=retain)

    def _publish(self, topic: str, message: Message, entry: Entry | None = None) -> None:
        """Publish on a whole topic."""
        # A label taught over JSON may hold characters that UTF-8 cannot encode.
        payload = message.payload.encode(errors="replace")
        size_bytes = len(payload) + len(topic) + PACKET_OVERHEAD_BYTES
        if size_bytes > self._max_packet_bytes:
            # The broker would end this connection, and every later one.
            self._give_up(
                _Sent(topic, entry),
                "a message is larger than the broker allows and is given up",
                f"{size_bytes} bytes, and the broker allows {self._max_packet_bytes:.0f}",
            )
            return
        retain = message.retain and self._link.retain
        info = self._client.publish(topic, payload, message.qos, retain)
        if message.qos > 0:
            self._in_flight[info.mid] = _Sent(topic, entry)

    def _publish_status(self, status: str) -> None:
        topic = self._prefix + STATUS
        info = self._client.publish(topic, status, 1, retain=self._link.retain)
        self._in_flight[info.mid] = _Sent(topic, None)

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
