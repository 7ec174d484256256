"""Daemon: the broker's side: one thread that connects, says who is there, and empties the outbox.

May import paho-mqtt. Must never build a payload or know what a smell is: it
carries messages, keeps the retained state of the rig, and heals connections.
Requests are handed on as they came, to be judged elsewhere.
The one thread here does all the socket's work; other threads only leave
messages and wake it.
"""

from __future__ import annotations

import json
import logging
import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.mqtt.connection import (
    CONNACK_TIMEOUT_S,
    GUESS_TIMEOUT_S,
    IN_FLIGHT_LIMIT,
    PROTOCOL_NAMES,
    BrokerError,
    BrokerUnreachableError,
    WrongProtocolError,
    check_connack,
    close_socket,
    connect,
    make_client,
    protocols,
)
from daemon.mqtt.outbox import Message
from daemon.mqtt.topics import OFFLINE, ONLINE, REQUEST, STATUS, topic_prefix
from daemon.system.backoff import Backoff
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.config.settings import MqttConfig
    from daemon.mqtt.outbox import Outbox

FLEETING_LIMIT = 256
"""QoS 0 messages that wait for the thread; older ones give way and are counted."""

PACKET_OVERHEAD_BYTES = 16
"""What the header and the properties add to topic and payload, at most."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 3.0
"""A broker that is back is found within 5 s: asking every few seconds costs a packet or two, and
the jitter of `Backoff` spreads a fleet."""

REFUSED_RETRY_S = 60.0
"""A refused password will not get better by itself: brokers ban clients that hammer."""

WRITE_S = 0.3
FLUSH_S = 0.5
FAREWELL_S = 0.7
"""With WRITE_S and FLUSH_S, what stopping may take: SIGTERM has two seconds in all."""


class BrokerState(StrEnum):
    """What the connection is doing, as `health` reports it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class BrokerReport:
    """A snapshot of the connection for `health` and the logs.

    Attributes
    ----------
    state: what the connection is doing.
    protocol: "5" or "3.1.1" once connected, else None.
    connections: how often a connection was made; one more than the reconnects.
    rejected: messages that the broker acknowledged with an error.
    fleeting_dropped: QoS 0 messages that found no connection or no room.
    """

    state: BrokerState = BrokerState.CONNECTING
    protocol: str | None = None
    connections: int = 0
    rejected: int = 0
    fleeting_dropped: int = 0


OnRequest = Callable[[str, bytes, bool], None]
"""Takes a request's command, its payload as it came, and whether it was retained; never blocks."""

Listeners = Mapping[str, Callable[[bytes], None]]
"""By whole topic outside the rig's own: who takes its live messages; never blocks."""


class _Desk:
    """What the MQTT thread and the others share: messages laid down, the state, the wake."""

    def __init__(
        self,
        rig_id: str,
        config: MqttConfig,
        outbox: Outbox,
        on_request: OnRequest | None,
        listeners: Listeners,
    ) -> None:
        self.rig_id = rig_id
        self.config = config
        self.outbox = outbox
        self.on_request = on_request
        self.listeners = listeners
        self.elsewhere: set[str] = set()
        """Topics that are whole as they are: not below the rig's prefix."""
        self.log = get_logger("mqtt")
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._held: dict[str, Message] = {}
        self._unsent: dict[str, None] = {}
        self._fleeting: deque[Message] = deque()
        self._report = BrokerReport()
        self.told_at = logging.INFO
        """How loud the latest trouble was said: its end is said as loud."""
        self.wake_out, self._wake_in = socket.socketpair()
        self.wake_out.setblocking(False)
        self._wake_in.setblocking(False)

    def hold(self, message: Message) -> None:
        with self._lock:
            if self._held.get(message.topic) == message:
                return
            self._held[message.topic] = message
            self._unsent[message.topic] = None
        self.wake()

    def repeat(self, topic: str) -> None:
        """Let the thread send once more what is held on a topic."""
        with self._lock:
            if topic in self._held:
                self._unsent[topic] = None
        self.wake()

    def lay_down(self, message: Message) -> None:
        """Keep a fleeting message for the thread; the oldest gives way."""
        with self._lock:
            connected = self._report.state is BrokerState.CONNECTED
            if connected:
                self._fleeting.append(message)
            too_many = len(self._fleeting) > FLEETING_LIMIT
            if too_many:
                self._fleeting.popleft()
        if too_many or not connected:
            self.drop_fleeting()
        self.wake()

    def drop_fleeting(self) -> None:
        """Count a fleeting message that is not sent."""
        with self._lock:
            dropped = self._report.fleeting_dropped + 1
            self._report = replace(self._report, fleeting_dropped=dropped)

    def pick_up(self) -> tuple[list[Message], list[Message]]:
        """Return the states that changed and the fleeting messages, and clear both."""
        with self._lock:
            states = [self._held[topic] for topic in self._unsent]
            fleeting = list(self._fleeting)
            self._unsent.clear()
            self._fleeting.clear()
        return states, fleeting

    def connected(self, protocol: str) -> None:
        """Note a new connection: every state must be said again."""
        with self._lock:
            self._unsent = dict.fromkeys(self._held)
            self._report = replace(
                self._report,
                state=BrokerState.CONNECTED,
                protocol=protocol,
                connections=self._report.connections + 1,
            )

    def note(self, **changes: Any) -> None:
        """Change fields of the report."""
        with self._lock:
            self._report = replace(self._report, **changes)

    def report(self) -> BrokerReport:
        with self._lock:
            return self._report

    def wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            return  # the thread has many wakes waiting already, or has ended

    def drain_wakes(self) -> None:
        try:
            while self.wake_out.recv(4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        self.wake_out.close()
        self._wake_in.close()


class Publisher:
    """The rig on the broker: connects, reconnects, publishes; a context manager owning its thread.

    Three kinds of messages: those of `publish` wait in the outbox until the
    broker has them; a state given to `set_state` is the rig's present, sent again on
    every connection; one given to `send_unqueued` is sent now or not at all.

    Parameters
    ----------
    rig_id : str
        Part of every topic and of the client id.
    config : MqttConfig
        Where the broker is and how to enter.
    outbox : Outbox
        Where `publish` leaves messages; entered, and left again, by whoever made it.
    on_request : callable, optional
        Called in the MQTT thread with every message below `request/`; without it the rig
        subscribes to no request.
    listeners : mapping, optional
        Whole topics of others to subscribe to as well, and who takes their live messages, in the
        MQTT thread.
    """

    def __init__(
        self,
        *,
        rig_id: str,
        config: MqttConfig,
        outbox: Outbox,
        on_request: OnRequest | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        self._desk = _Desk(rig_id, config, outbox, on_request, listeners or {})
        outbox.set_ready_callback(self._desk.wake)
        # A name that does not resolve blocks inside the C library for longer
        # than a service may take to stop: the thread must not hold the process.
        self._thread = threading.Thread(target=_serve, args=(self._desk,), name="mqtt", daemon=True)

    def start(self) -> None:
        """Connect, and from then on keep the connection."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what is left, say `offline`, disconnect; all within 1.8 seconds."""
        self._desk.outbox.flush(WRITE_S)
        self._desk.stopping.set()
        self._desk.wake()
        self._thread.join(FLUSH_S + FAREWELL_S + 0.3)
        self._desk.note(state=BrokerState.STOPPED, protocol=None)
        if not self._thread.is_alive():
            self._desk.close()

    def publish(self, message: Message) -> None:
        """Leave a message in the outbox; once written it is sent in order, at least once."""
        self._desk.outbox.put(message)

    def set_state(self, topic: str, payload: str, *, qos: int = 1) -> None:
        """Set a retained state, such as `info`; sent when it changes and on every connection."""
        self._desk.hold(Message(topic, payload, qos, retain=True))

    def set_state_at(self, topic: str, payload: str) -> None:
        """Set a retained message by its whole topic; an empty one removes what the broker keeps."""
        self._desk.elsewhere.add(topic)
        self._desk.hold(Message(topic, payload, 1, retain=True))

    def repeat(self, topic: str) -> None:
        """Send once more what is held on a topic."""
        self._desk.repeat(topic)

    def send_unqueued(self, topic: str, payload: str) -> None:
        """Send a QoS 0 message now, or count it as dropped."""
        self._desk.lay_down(Message(topic, payload, 0, retain=False))

    def report(self) -> BrokerReport:
        """Return what the connection is doing now."""
        return self._desk.report()

    def check(self) -> None:
        """Raise if a thread has died, the outbox's or this one: nobody must go on unheard."""
        self._desk.outbox.check()
        if not self._thread.is_alive() and not self._desk.stopping.is_set():
            raise BrokerError(
                "The thread that serves the broker has ended by itself, which is a bug; its "
                "traceback is in the log. Restart scentd and report it."
            )


def _serve(desk: _Desk) -> None:
    """Connect again and again until told to stop: the MQTT thread's whole life."""
    versions = protocols(desk.config)
    tried = 0
    backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
    told = ""
    while not desk.stopping.is_set():
        desk.note(state=BrokerState.CONNECTING, protocol=None)
        error: ScentdError | None = None
        wait_s = REFUSED_RETRY_S
        try:
            _Session(desk, versions[tried], last=tried == len(versions) - 1).run()
        except WrongProtocolError as wrong:
            if tried + 1 < len(versions):
                tried += 1
                desk.log.info("the broker does not speak MQTT 5; trying 3.1.1")
                continue
            error = wrong
        except BrokerUnreachableError as unreachable:
            error, wait_s = unreachable, backoff.next_s()
            tried = 0
        except ScentdError as refused:
            error = refused
        if desk.stopping.is_set():
            return
        if error is None:
            backoff.reset()
            wait_s = backoff.next_s()
            told, desk.told_at = "", logging.WARNING
            desk.note(state=BrokerState.UNREACHABLE, protocol=None)
            desk.log.warning("connection to the broker lost", retry_in_s=round(wait_s, 1))
        else:
            unreachable_now = isinstance(error, BrokerUnreachableError)
            desk.note(
                state=BrokerState.UNREACHABLE if unreachable_now else BrokerState.REFUSED,
                protocol=None,
            )
            # One cause is told once in full; while it stays the same, a log
            # that repeats it every minute would hide everything else.
            tell = desk.log.error if str(error) != told else desk.log.debug
            told, desk.told_at = str(error), logging.ERROR
            tell(told, retry_in_s=round(wait_s, 1))
        desk.stopping.wait(wait_s)


class _Session:
    """One connection from CONNECT to its end; everything of paho's lives and dies with it.

    A fresh client per connection means that paho never resends by itself: what
    was in flight goes back to the outbox and is sent again as what it then is,
    a late message.
    """

    def __init__(self, desk: _Desk, protocol: MQTTProtocolVersion, *, last: bool) -> None:
        self._desk = desk
        self._last = last
        self._prefix = topic_prefix(desk.rig_id)
        self._protocol = PROTOCOL_NAMES[protocol]
        self._client = make_client(desk.rig_id, desk.config, protocol)
        self._client.will_set(self._prefix + STATUS, OFFLINE, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._connack: ReasonCode | None = None
        self._largest: float = math.inf
        self._in_flight: dict[int, int | None] = {}
        self._late_until = 0
        self._newest_late: dict[str, int] = {}

    def run(self) -> None:
        """Connect and serve until the connection ends or the publisher stops."""
        desk = self._desk
        connect(self._client, desk.config)
        try:
            self._await_connack()
            desk.log.log(
                desk.told_at,
                "connected to the broker",
                host=desk.config.host,
                port=desk.config.port,
                protocol=self._protocol,
            )
            desk.told_at = logging.INFO
            while not desk.stopping.is_set() and self._client.socket() is not None:
                self._send_all()
                self._turn(1.0)
            if self._client.socket() is not None:
                self._farewell()
        finally:
            desk.outbox.requeue_in_flight()
            close_socket(self._client)

    def _await_connack(self) -> None:
        desk = self._desk
        deadline_s = time.monotonic() + (CONNACK_TIMEOUT_S if self._last else GUESS_TIMEOUT_S)
        while self._connack is None and self._client.socket() is not None:
            if time.monotonic() > deadline_s or desk.stopping.is_set():
                break
            self._turn(0.2)
        check_connack(self._connack, desk.config, last=self._last)
        self._late_until = desk.outbox.newest_id()
        self._newest_late = desk.outbox.newest_retained()
        desk.connected(self._protocol)
        if desk.on_request is not None:
            self._subscribe()
        for topic in desk.listeners:
            self._client.subscribe(topic, qos=1)
        self._publish(Message(STATUS, ONLINE, 1, retain=True), None)

    def _subscribe(self) -> None:
        """Ask for requests, before the rig is called online.

        A client's session ends with its connection, so what is asked while the rig is away
        is lost, and whoever asked listeners nothing: an order must not be carried out hours late.
        """
        topic = f"{self._prefix}{REQUEST}/+"
        if self._protocol == PROTOCOL_NAMES[MQTTProtocolVersion.MQTTv5]:
            # Only MQTT 5 can tell that a message just sent is also to be retained.
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            self._client.subscribe(topic, options=options)
        else:
            self._client.subscribe(topic, qos=1)

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        listener = self._desk.listeners.get(message.topic)
        if listener is not None:
            if not message.retain:  # on connecting everything is said again anyway
                listener(bytes(message.payload))
        elif self._desk.on_request is not None:
            command = message.topic.rpartition("/")[2]
            self._desk.on_request(command, bytes(message.payload), message.retain)

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: Any,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connack = reason
        self._largest = getattr(properties, "MaximumPacketSize", math.inf)

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: Any,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        entry_id = self._in_flight.pop(mid, None)
        if entry_id is not None:
            self._desk.outbox.acknowledge(entry_id)
        if reason.is_failure:
            # MQTT 5 tells what 3.1.1 swallows: no permission for the topic, a
            # quota, a payload that is too large. Sending again would not help.
            self._desk.note(rejected=self._desk.report().rejected + 1)
            self._desk.log.error("the broker rejected a message", reason=str(reason))

    def _send_all(self) -> None:
        """Send present states first, then the outbox in order, then what must not wait."""
        states, fleeting = self._desk.pick_up()
        for message in states:
            self._publish(message, None)
        while len(self._in_flight) < IN_FLIGHT_LIMIT and (entry := self._desk.outbox.take()):
            message = entry.message
            if entry.id <= self._late_until:
                message = self._as_late(message, entry.id)
            self._publish(message, entry.id)
        for message in fleeting:
            if self._client.want_write():  # a broker slower than the samples: do not pile them up
                self._desk.drop_fleeting()
            else:
                self._publish(message, None)

    def _as_late(self, message: Message, entry_id: int) -> Message:
        """Mark a message that waited out an outage; only the newest of a topic stays retained."""
        late = {**json.loads(message.payload), "buffered": True}
        payload = json.dumps(late, separators=(",", ":"), ensure_ascii=False)
        retain = message.retain and self._newest_late.get(message.topic) == entry_id
        return replace(message, payload=payload, retain=retain)

    def _publish(self, message: Message, entry_id: int | None) -> None:
        whole = message.topic in self._desk.elsewhere
        topic = message.topic if whole else self._prefix + message.topic
        # A name taught over JSON may hold what UTF-8 cannot.
        payload = message.payload.encode(errors="replace")
        size_bytes = len(payload) + len(topic) + PACKET_OVERHEAD_BYTES
        if size_bytes > self._largest:
            # Sent all the same, it would end this connection and every next one.
            self._give_up(topic, size_bytes, entry_id)
            return
        info = self._client.publish(topic, payload, message.qos, message.retain)
        if message.qos > 0:
            self._in_flight[info.mid] = entry_id

    def _give_up(self, topic: str, size_bytes: int, entry_id: int | None) -> None:
        self._desk.note(rejected=self._desk.report().rejected + 1)
        self._desk.log.error(
            "a message is larger than the broker allows and is given up",
            topic=topic,
            size_bytes=size_bytes,
            largest_bytes=self._largest,
        )
        if entry_id is not None:
            self._desk.outbox.acknowledge(entry_id)

    def _turn(self, longest_s: float) -> None:
        """Let the socket work once: wait for bytes, room to write, a wake, or the time."""
        client, wake = self._client, self._desk.wake_out
        connection = client.socket()
        if connection is None:
            return
        # TLS may hold decrypted bytes that select cannot see.
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        readable, writable, _ = select.select(
            [connection, wake],
            [connection] if client.want_write() else [],
            [],
            0 if pending else longest_s,
        )
        if wake in readable:
            self._desk.drain_wakes()
        if pending or connection in readable:
            client.loop_read()
        if connection in writable:
            client.loop_write()
        client.loop_misc()

    def _farewell(self) -> None:
        """Send what is left, replace the last will by our own word, and disconnect."""
        deadline_s = time.monotonic() + FLUSH_S
        self._send_all()
        while self._waiting_for_broker() and time.monotonic() < deadline_s:
            self._turn(0.05)
            self._send_all()
        self._publish(Message(STATUS, OFFLINE, 1, retain=True), None)
        deadline_s = time.monotonic() + FAREWELL_S
        while self._waiting_for_broker() and time.monotonic() < deadline_s:
            self._turn(0.05)
        self._client.disconnect()
        while self._client.want_write() and time.monotonic() < deadline_s:
            self._turn(0.05)

    def _waiting_for_broker(self) -> bool:
        return bool(self._in_flight) and self._client.socket() is not None
