"""Soak: the balance: what the rig said it makes, against what its outbox held and what arrived.

Pure. Every message is known by its boot and its sequence number, as it is to any consumer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.sandbox.subscriber import NumberedMessage

DURABLE = frozenset({"substance", "mixture", "event"})
"""Topics of which nothing may be lost."""

SAMPLE = "sample"
HEALTH = "health"

Key = tuple[str, int]
"""Boot and sequence number."""


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One line of the rig's log: it has made a message and hands it to its outbox.

    Attributes
    ----------
    topic: below the rig's prefix.
    seq: of this boot.
    at_s: when, in seconds of any clock that goes on.
    """

    topic: str
    seq: int
    at_s: float


@dataclass(slots=True)
class Boot:
    """One life of the service's process.

    Attributes
    ----------
    boot_id: its own, empty until it has said something.
    said: what it made, in order.
    killed_s: when it was killed, on the clock of `SentMessage.at_s`; None if it ended in order.
    held: the messages, of any boot, that its outbox file held after its end.
    """

    boot_id: str = ""
    said: list[SentMessage] = field(default_factory=list)
    killed_s: float | None = None
    held: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What came of everything.

    Attributes
    ----------
    sent: lines that the board's port took.
    decoded: of them, those that became readings.
    rejected: damaged lines that the rig counted; of a killed boot, as far as it had told.
    boots, kills: lives of the process, and how many of them were ended by kill -9.
    made: predictions and events that the rig made.
    delivered: those that arrived, each counted once.
    late: of them, those marked `buffered`.
    unwritten: made and not yet in the outbox's file when the process was killed.
    unwritten_s: the longest time between making one of them and the kill.
    dropped: what the outbox says it gave up for lack of room.
    lost: everything else that did not arrive.
    again: arrivals beyond the first; `boot_id` and `seq` tell.
    duplicated: arrivals that `boot_id` and `seq` do not tell: one number, two contents.
    invented: arrivals that the rig never made.
    disordered: first arrivals behind a younger one of their topic.
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
        """What does not add up; empty when the balance holds."""
        wrong = {
            f"{self.lost} are lost and {self.dropped} counted as dropped": self.lost
            != self.dropped,
            f"{self.duplicated} numbers were given twice": self.duplicated,
            f"{self.invented} arrived that were never made": self.invented,
            f"{self.disordered} came out of order": self.disordered,
            f"{self.decoded} readings from {self.sent} lines": self.decoded > self.sent,
            "nothing was made": self.made == 0,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name, `holds` included."""
        return {**asdict(self), "holds": not self.complaints, "complaints": self.complaints}


def balance(
    boots: Sequence[Boot], heard: Iterable[NumberedMessage], *, sent: int
) -> DeliveryReport:
    """Draw the balance.

    A message that never arrived is `unwritten` only if its boot was killed, the outbox's file
    did not hold it afterwards, and nothing that was made after it reached the file or the
    consumer: the outbox writes in order. All else that did not arrive is `lost`.

    Parameters
    ----------
    boots : sequence of Boot
        In the order of their lives.
    heard : iterable of NumberedMessage
        In the order of arrival.
    sent : int
        Lines that the board's port took.
    """
    arrivals = list(heard)
    durable = [message for message in arrivals if message.topic in DURABLE]
    first: dict[Key, NumberedMessage] = {}
    duplicated = 0
    for message in durable:
        known = first.setdefault((message.boot_id, message.seq), message)
        duplicated += _essence(known) != _essence(message)
    made = {
        (boot.boot_id, said.seq) for boot in boots for said in boot.said if said.topic in DURABLE
    }
    held = frozenset().union(*(boot.held for boot in boots))
    unwritten = [said for boot in boots for said in _unwritten(boot, set(first) | held)]
    delivered = made & set(first)
    told = _latest_health(arrivals)
    return DeliveryReport(
        sent=sent,
        decoded=sum(said.topic == SAMPLE for boot in boots for said in boot.said),
        rejected=sum(sum(health["frames_bad"].values()) for health in told),
        boots=len(boots),
        kills=sum(boot.killed_s is not None for boot in boots),
        made=len(made),
        delivered=len(delivered),
        late=sum(bool(message.payload["buffered"]) for message in first.values()),
        unwritten=len(unwritten),
        unwritten_s=round(max((age_s for _, age_s in unwritten), default=0.0), 3),
        dropped=dropped(arrivals),
        lost=len(made) - len(delivered) - len(unwritten),
        again=len(durable) - len(first),
        duplicated=duplicated,
        invented=len(set(first) - made),
        disordered=_disordered(boots, first.values()),
    )


def _essence(message: NumberedMessage) -> tuple[str, dict[str, Any]]:
    """Return all that must be the same when a message comes again."""
    return message.topic, {**message.payload, "buffered": None}


def _unwritten(boot: Boot, known: set[Key]) -> list[tuple[SentMessage, float]]:
    """Return the end of a killed boot that is neither heard nor held, with its age at the kill."""
    if boot.killed_s is None:
        return []
    tail = []
    for said in reversed(boot.said):
        if said.topic not in DURABLE:
            continue
        if (boot.boot_id, said.seq) in known:
            break
        tail.append((said, max(0.0, boot.killed_s - said.at_s)))
    return tail


def _latest_health(arrivals: Iterable[NumberedMessage]) -> list[dict[str, Any]]:
    """Return the last `health` of every boot."""
    latest = {message.boot_id: message for message in arrivals if message.topic == HEALTH}
    return [message.payload for message in latest.values()]


def dropped(arrivals: Iterable[NumberedMessage]) -> int:
    """Return how many messages the outbox gave up, as the rig's `health` counts them."""
    return sum(int(health["outbox_dropped"]) for health in _latest_health(arrivals))


def _disordered(boots: Sequence[Boot], first: Iterable[NumberedMessage]) -> int:
    """Count the first arrivals that a younger one of the same topic came before."""
    life = {boot.boot_id: number for number, boot in enumerate(boots)}
    newest: Counter[str] = Counter()
    place: dict[str, tuple[int, int]] = {}
    for message in first:
        at = (life.get(message.boot_id, -1), message.seq)
        if at < place.get(message.topic, (-1, -1)):
            newest[message.topic] += 1
        else:
            place[message.topic] = at
    return newest.total()
