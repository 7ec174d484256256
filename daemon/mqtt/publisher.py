"""Daemon: the thread that keeps the rig connected to the broker and empties the outbox.

Must never build a payload or know what a smell is: it carries messages and keeps the retained
states of the rig. The MQTT thread does all the work on the socket, one `daemon.mqtt.session` after
the other; other threads only leave messages (`daemon.mqtt.outgoing`) and wake it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from daemon.mqtt.connection import (
    BrokerError,
    BrokerUnreachableError,
    NoRetainError,
    WrongProtocolError,
    protocols,
)
from daemon.mqtt.outbox_values import Message
from daemon.mqtt.outgoing import BrokerState
from daemon.mqtt.session import FAREWELL_S, FLUSH_S, Link, Listeners, OnRequest, Session
from daemon.mqtt.takeovers import explain
from daemon.mqtt.topics import topic_prefix
from daemon.system.backoff import EvenWaits
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from daemon.config.settings import MqttConfig
    from daemon.mqtt.outbox import Outbox
    from daemon.mqtt.outbox_values import Entry
    from daemon.mqtt.outgoing import BrokerReport

FIRST_RETRY_S = 0.5
RETRY_EVERY_S = 3.5
"""A broker that is back is found within 4 s, so that 1,000 rigs that lost it together connect at
286 a second on average; an attempt every few seconds costs a packet or two."""

REFUSED_RETRY_S = 60.0
"""A refused password does not become right by itself, and brokers ban clients that try often."""

WRITE_S = 0.3
"""Time for the outbox to write the last messages, before FLUSH_S and FAREWELL_S."""


class Publisher:
    """The rig on the broker: connects, reconnects, publishes; a context manager with a thread.

    There are three kinds of messages: those of `publish` wait in the outbox until the broker has
    them; a retained state of `set_state` is sent again on every connection; one of `send_unqueued`
    is sent now or not at all.

    Parameters
    ----------
    rig_id: part of every topic and of the client id.
    config: of the broker.
    outbox: for `publish`; started and closed by the caller.
    on_request: called in the MQTT thread with every message below `request/`; without it the rig
        subscribes to no requests.
    listeners: of other topics, called in the MQTT thread.
    delivered: by topic, the retained messages that a broker had from an earlier publisher; they are
        sent again on every connection, and replaced here by later ones.
    """

    def __init__(
        self,
        *,
        rig_id: str,
        config: MqttConfig,
        outbox: Outbox,
        on_request: OnRequest | None = None,
        listeners: Listeners | None = None,
        delivered: dict[str, Entry] | None = None,
    ) -> None:
        self._link = Link(
            rig_id,
            config,
            outbox,
            on_request,
            listeners or {},
            {} if delivered is None else delivered,
        )
        self._outgoing = self._link.outgoing
        self._prefix = topic_prefix(rig_id)
        self._log = get_logger("mqtt")
        outbox.set_ready_callback(self._outgoing.wake)
        # A name that does not resolve blocks inside the C library for longer than a service may
        # take to stop: the thread must not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="mqtt", daemon=True)

    def start(self) -> Self:
        """Start the MQTT thread; the caller must `close` the publisher."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send the last messages, publish `offline`, disconnect; all within 1.8 seconds."""
        self._link.outbox.flush(WRITE_S)
        self._link.stopping.set()
        self._outgoing.wake()
        self._thread.join(FLUSH_S + FAREWELL_S + 0.3)
        self._outgoing.update(state=BrokerState.STOPPED, protocol=None)
        if not self._thread.is_alive():
            self._outgoing.close()

    def publish(self, message: Message) -> None:
        """Put a message into the outbox; once written it is sent in order, at least once."""
        self._link.outbox.put(message)

    def set_state(self, topic: str, payload: str, *, qos: int = 1) -> None:
        """Set a retained state, such as `info`; sent when it changes and on every connection."""
        self._outgoing.set_state(Message(self._prefix + topic, payload, qos, retain=True))

    def set_state_at(self, topic: str, payload: str) -> None:
        """Set a retained state by its whole topic; an empty one removes it from the broker."""
        self._outgoing.set_state(Message(topic, payload, 1, retain=True))

    def repeat(self, topic: str) -> None:
        """Send the state of a whole topic once more."""
        self._outgoing.repeat(topic)

    def send_unqueued(self, topic: str, payload: str) -> None:
        """Send a QoS 0 message now, or count it as dropped."""
        self._outgoing.add_unqueued(Message(self._prefix + topic, payload, 0, retain=False))

    def report(self) -> BrokerReport:
        """Return the state of the connection."""
        return self._outgoing.report()

    def check(self) -> None:
        """Raise if a thread has died, the outbox's or this one."""
        self._link.outbox.check()
        if not self._thread.is_alive() and not self._link.stopping.is_set():
            raise BrokerError(
                "The thread that serves the broker has ended by itself, which is a bug; its "
                "traceback is in the log. Restart scentd and report it."
            )

    def _serve(self) -> None:
        """Connect again and again until `close`."""
        link, versions, tried = self._link, protocols(self._link.config), 0
        waits = EvenWaits(first_s=FIRST_RETRY_S, every_s=RETRY_EVERY_S)
        logged = ""
        while not link.stopping.is_set():
            self._outgoing.update(state=BrokerState.CONNECTING, protocol=None)
            version, is_last = versions[tried], tried + 1 == len(versions)
            failure: ScentdError | None = None
            session = Session(link, version, last=is_last or link.accepted is version)
            try:
                session.run()
            except ScentdError as error:
                failure = error
            if isinstance(failure, WrongProtocolError) and not is_last:
                tried += 1
                self._log.info("the broker does not speak MQTT 5; trying 3.1.1")
                continue
            if isinstance(failure, NoRetainError):
                self._log.warning("the broker keeps no retained messages; none are sent")
                continue
            if link.stopping.is_set():
                return
            if isinstance(failure, BrokerUnreachableError):
                tried = 0
            refused = failure is not None and not isinstance(failure, BrokerUnreachableError)
            state = BrokerState.REFUSED if refused else BrokerState.UNREACHABLE
            wait_s = REFUSED_RETRY_S if refused else self._wait_s(session, failure, waits)
            self._outgoing.update(state=state, protocol=None)
            if failure is None:
                logged = ""
                link.log_level = logging.DEBUG if link.takeovers.contested else logging.WARNING
                self._log.log(
                    link.log_level, "connection to the broker lost", retry_in_s=round(wait_s, 1)
                )
            else:
                # The same cause again is logged for debugging only: repeated every few seconds it
                # would hide everything else.
                log = self._log.error if str(failure) != logged else self._log.debug
                logged, link.log_level = str(failure), logging.ERROR
                log(logged, retry_in_s=round(wait_s, 1))
            link.stopping.wait(wait_s)

    def _wait_s(self, session: Session, failure: ScentdError | None, waits: EvenWaits) -> float:
        """Return how long to wait after a connection that ended, or could not be made."""
        takeovers, config = self._link.takeovers, self._link.config
        if failure is not None:
            takeovers.failed()
            return waits.next_s()
        waits.reset()
        if takeovers.ended(taken_over=session.taken_over):
            why = explain(self._link.rig_id, f"{config.host}:{config.port}")
            self._outgoing.update(why=why)
            self._log.error(why)
        self._outgoing.update(takeovers=takeovers.total)
        return takeovers.wait_s() if takeovers.contested else waits.next_s()
