"""Soak: the delivery report: messages the service made, against those stored and those delivered.

Pure. A message is identified by its boot and its sequence number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daemon.mqtt import topics
from daemon.soak.claims import EVENT_UNWRITTEN_S, UNWRITTEN_S, extended
from daemon.soak.observed import (
    DURABLE,
    Boot,
    DeliveredMessage,
    MadeMessage,
    MessageId,
    longest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """How many messages were made, delivered and lost.

    Attributes
    ----------
    sent: lines that the board wrote to its port.
    decoded: of them, those that became readings.
    rejected: damaged lines that the service counted; of a killed boot, up to its last report.
    reads_dropped: reads of the port that the service dropped and counted because it was behind.
    boots, kills: runs of the process, and how many of them were ended by kill -9.
    made: predictions and events that the service made.
    delivered: of them, those that arrived.
    late: of the delivered ones, those marked `buffered`.
    power_cuts: how many of the kills also took what was not synchronised to the disk.
    unwritten: made, but not yet in the outbox's file when the process was killed.
    unwritten_s: the longest time between making one of them and the kill.
    unwritten_late: those of them that should have been written by then.
    unwritten_events: events among those.
    unsynced: of the messages that a power cut took, those that were in the file before it.
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
    reads_dropped: int
    boots: int
    kills: int
    made: int
    delivered: int
    late: int
    power_cuts: int
    unwritten: int
    unwritten_s: float
    unwritten_late: int
    unwritten_events: int
    unsynced: int
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
            f"the service was behind and dropped {self.reads_dropped} reads of the port, which it "
            "counted; if this machine is busy, repeat the test when it is not": self.reads_dropped,
            f"{self.unwritten_late} messages were unwritten at a kill although they were made up "
            f"to {self.unwritten_s:.1f} s before, and {UNWRITTEN_S:g} s is claimed": (
                self.unwritten_late - self.unwritten_events
            ),
            f"{self.unwritten_events} events were unwritten at a kill": self.unwritten_events,
            f"{self.unsynced} messages were written and yet gone after a power cut: the database "
            "does not synchronise": self.unsynced,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name, `holds` included."""
        return {**asdict(self), "holds": not self.complaints, "complaints": self.complaints}


def delivery_report(
    boots: Sequence[Boot],
    arrivals: Sequence[DeliveredMessage],
    *,
    sent: int,
    late_s: Callable[[float, float], float] = lambda _start_s, _end_s: 0.0,
) -> DeliveryReport:
    """Compare the messages made with those that arrived, both in order.

    `late_s` returns how late this machine was between two times. A message that never arrived is
    `unwritten` only if its boot was killed and neither it nor a later message reached the outbox's
    file or the subscriber: the outbox writes in order. All others that did not arrive are `lost`.
    """
    durable = [message for message in arrivals if message.topic in DURABLE]
    first: dict[MessageId, DeliveredMessage] = {}
    duplicated = 0
    for message in durable:
        known = first.setdefault(message.id, message)
        duplicated += _content(known) != _content(message)
    made = {(boot.boot_id, message.seq) for boot in boots for message in boot.durable}
    known_ids = set(first).union(*(boot.stored for boot in boots))
    unwritten = [
        (boot, message, age_s) for boot in boots for message, age_s in _unwritten(boot, known_ids)
    ]
    too_old = [
        message
        for boot, message, age_s in unwritten
        if age_s > _longest_unwritten_s(message, late_s(message.at_s, boot.killed_s or 0.0))
    ]
    delivered = made & set(first)
    return DeliveryReport(
        sent=sent,
        decoded=sum(message.topic == topics.SAMPLE for boot in boots for message in boot.made),
        rejected=sum(
            sum(health["frames_bad"].values()) for health in _last_health_of_boots(arrivals)
        ),
        reads_dropped=sum(
            int(health.get("chunks_dropped", 0)) for health in _last_health_of_boots(arrivals)
        ),
        boots=len(boots),
        kills=sum(boot.killed_s is not None for boot in boots),
        made=len(made),
        delivered=len(delivered),
        late=sum(bool(message.payload["buffered"]) for message in first.values()),
        power_cuts=sum(boot.power_cut for boot in boots),
        unwritten=len(unwritten),
        unwritten_s=longest(age_s for *_, age_s in unwritten),
        unwritten_late=len(too_old),
        unwritten_events=sum(message.topic == topics.EVENT for message in too_old),
        unsynced=sum(
            (boot.boot_id, message.seq) in boot.written and age_s > EVENT_UNWRITTEN_S
            for boot, message, age_s in unwritten
        ),
        dropped=count_dropped(arrivals),
        lost=len(made) - len(delivered) - len(unwritten),
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


def _unwritten(boot: Boot, known: set[MessageId]) -> Iterator[tuple[MadeMessage, float]]:
    """Yield a killed boot's messages after its last known one, and their ages at the kill."""
    if boot.killed_s is None:
        return
    for message in reversed(boot.durable):
        if (boot.boot_id, message.seq) in known:
            return
        yield message, max(0.0, boot.killed_s - message.at_s)


def _longest_unwritten_s(message: MadeMessage, late_s: float) -> float:
    if message.topic == topics.EVENT:
        return extended(EVENT_UNWRITTEN_S, late_s, 0.0)
    return extended(UNWRITTEN_S, late_s)


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
