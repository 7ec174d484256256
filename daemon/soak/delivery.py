"""Soak: the delivery report: messages the service made, against those stored and those delivered.

Pure. A message is identified by its boot and its sequence number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.mqtt import topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from daemon.sandbox.subscriber import ReceivedMessage

DURABLE = frozenset({topics.SUBSTANCE, topics.MIXTURE, topics.EVENT})
"""Topics whose messages must not be lost."""

MessageId = tuple[str, int]
"""Boot and sequence number."""


class MadeMessage(NamedTuple):
    """A message that the service logged, at `at_s` since 1970, before it gave it to its outbox."""

    topic: str
    seq: int
    at_s: float


class DeliveredMessage(NamedTuple):
    """A message with a sequence number, as the subscriber received it."""

    topic: str
    boot_id: str
    seq: int
    payload: dict[str, Any]

    @property
    def id(self) -> MessageId:
        """Boot and sequence number."""
        return self.boot_id, self.seq


@dataclass(slots=True)
class Boot:
    """One run of the service's process.

    Attributes
    ----------
    boot_id: empty until it has made a message.
    made: the messages it made, in order.
    killed_s: time of its kill, on the clock of `MadeMessage.at_s`; None if it ended in order.
    stored: the messages, of any boot, in its outbox file after its end.
    """

    boot_id: str = ""
    made: list[MadeMessage] = field(default_factory=list)
    killed_s: float | None = None
    stored: frozenset[MessageId] = frozenset()

    @property
    def durable(self) -> list[MadeMessage]:
        """The messages made that must be delivered."""
        return [message for message in tuple(self.made) if message.topic in DURABLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """How many messages were made, delivered and lost.

    Attributes
    ----------
    sent: lines that the board wrote to its port.
    decoded: of them, those that became readings.
    rejected: damaged lines that the service counted; of a killed boot, up to its last report.
    boots, kills: runs of the process, and how many of them were ended by kill -9.
    made: predictions and events that the service made.
    delivered: of them, those that arrived.
    late: of the delivered ones, those marked `buffered`.
    unwritten: made, but not yet in the outbox's file when the process was killed.
    unwritten_s: the longest time between making one of them and the kill.
    dropped: those that the outbox counted as dropped for lack of room.
    lost: all others that did not arrive.
    again: repeated arrivals of the same message.
    duplicated: arrivals with a number of an earlier message and another content.
    invented: arrivals that the service never made.
    disordered: first arrivals after a later message of their topic.
    """

    sent: int
    decoded: int
    rejected: int
    boots: int
    kills: int
    made: int
    delivered: int
    late: int
    unwritten: int
    unwritten_s: float
    dropped: int
    lost: int
    again: int
    duplicated: int
    invented: int
    disordered: int

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong; empty when every message is accounted for."""
        wrong = {
            f"{self.lost} were lost, but {self.dropped} counted as dropped": self.lost
            != self.dropped,
            f"{self.duplicated} numbers were given twice": self.duplicated,
            f"{self.invented} arrived that were never made": self.invented,
            f"{self.disordered} arrived out of order": self.disordered,
            f"{self.decoded} readings were decoded from {self.sent} lines": self.decoded
            > self.sent,
            "nothing was made": self.made == 0,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name, `holds` included."""
        return {**asdict(self), "holds": not self.complaints, "complaints": self.complaints}


def delivered_messages(received: Iterable[ReceivedMessage]) -> Iterator[DeliveredMessage]:
    """Yield the messages with a sequence number.

    Retained ones are left out: they could hide a loss.
    """
    for message in received:
        payload = message.value
        if not message.retained and isinstance(payload, dict) and "seq" in payload:
            _, topic = message.rig_topic
            yield DeliveredMessage(topic, payload["boot_id"], payload["seq"], payload)


def delivery_report(
    boots: Sequence[Boot], arrivals: Sequence[DeliveredMessage], *, sent: int
) -> DeliveryReport:
    """Compare the messages made with those that arrived, both in order.

    A message that never arrived is `unwritten` only if its boot was killed and neither it nor a
    later message reached the outbox's file or the subscriber: the outbox writes in order. All
    others that did not arrive are `lost`.
    """
    durable = [message for message in arrivals if message.topic in DURABLE]
    first: dict[MessageId, DeliveredMessage] = {}
    duplicated = 0
    for message in durable:
        known = first.setdefault(message.id, message)
        duplicated += _content(known) != _content(message)
    made = {(boot.boot_id, message.seq) for boot in boots for message in boot.durable}
    known_ids = set(first).union(*(boot.stored for boot in boots))
    unwritten_ages_s = [age_s for boot in boots for age_s in _unwritten_ages_s(boot, known_ids)]
    delivered = made & set(first)
    return DeliveryReport(
        sent=sent,
        decoded=sum(message.topic == topics.SAMPLE for boot in boots for message in boot.made),
        rejected=sum(
            sum(health["frames_bad"].values()) for health in _last_health_of_boots(arrivals)
        ),
        boots=len(boots),
        kills=sum(boot.killed_s is not None for boot in boots),
        made=len(made),
        delivered=len(delivered),
        late=sum(bool(message.payload["buffered"]) for message in first.values()),
        unwritten=len(unwritten_ages_s),
        unwritten_s=round(max(unwritten_ages_s, default=0.0), 3),
        dropped=count_dropped(arrivals),
        lost=len(made) - len(delivered) - len(unwritten_ages_s),
        again=len(durable) - len(first),
        duplicated=duplicated,
        invented=len(set(first) - made),
        disordered=_count_disordered(boots, first.values()),
    )


def count_dropped(arrivals: Iterable[DeliveredMessage]) -> int:
    """Return how many messages the outbox dropped, as `health` counts them."""
    return sum(int(health["outbox_dropped"]) for health in _last_health_of_boots(arrivals))


def _content(message: DeliveredMessage) -> tuple[str, dict[str, Any]]:
    """Return the parts that must be equal when a message arrives again."""
    return message.topic, {**message.payload, "buffered": None}


def _unwritten_ages_s(boot: Boot, known: set[MessageId]) -> Iterator[float]:
    """Yield the ages at the kill of a boot's messages after its last known one."""
    if boot.killed_s is None:
        return
    for message in reversed(boot.durable):
        if (boot.boot_id, message.seq) in known:
            return
        yield max(0.0, boot.killed_s - message.at_s)


def _last_health_of_boots(arrivals: Iterable[DeliveredMessage]) -> list[dict[str, Any]]:
    last = {
        message.boot_id: message.payload for message in arrivals if message.topic == topics.HEALTH
    }
    return list(last.values())


def _count_disordered(boots: Sequence[Boot], first: Iterable[DeliveredMessage]) -> int:
    """Count the first arrivals after a later message of the same topic."""
    number = {boot.boot_id: place for place, boot in enumerate(boots)}
    newest: dict[str, tuple[int, int]] = {}
    disordered = 0
    for message in first:
        place = (number.get(message.boot_id, -1), message.seq)
        if place < newest.get(message.topic, (-1, -1)):
            disordered += 1
        else:
            newest[message.topic] = place
    return disordered
