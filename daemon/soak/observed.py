"""Soak: what was observed of the service, the broker and the board during a run, as values.

Pure. All times are seconds since 1970, so that the service's log, the board's lines and the
messages received can be compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.mqtt import topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from daemon.sandbox.subscriber import ReceivedMessage

PREDICTIONS = frozenset({topics.SUBSTANCE, topics.MIXTURE})

DURABLE = PREDICTIONS | {topics.EVENT}
"""Topics whose messages must not be lost."""

MessageId = tuple[str, int]
"""Boot and sequence number."""


class MadeMessage(NamedTuple):
    """A message that the service logged before it gave it to its outbox.

    Attributes
    ----------
    frame_seq: of a `sample`, the board's number of the reading; None for other topics.
    """

    topic: str
    seq: int
    at_s: float
    frame_seq: int | None = None


class DeliveredMessage(NamedTuple):
    """A message with a sequence number, as the subscriber received it at `at_s`."""

    topic: str
    boot_id: str
    seq: int
    payload: dict[str, Any]
    at_s: float = 0.0

    @property
    def id(self) -> MessageId:
        """Boot and sequence number."""
        return self.boot_id, self.seq


class Reload(NamedTuple):
    """Another configuration that came into force.

    Attributes
    ----------
    place: how many messages the boot had made before.
    changes: settings that differ from those of the start.
    from_ms: time of the first reading that the new runtime processed; None if the old one stayed.
    """

    place: int
    changes: Mapping[str, Any]
    from_ms: int | None


class Opening(NamedTuple):
    """The board's port was opened when the boot had made `place` messages."""

    place: int
    at_s: float


@dataclass(slots=True)
class Boot:
    """One run of the service's process.

    Attributes
    ----------
    boot_id: empty until it has made a message.
    made: the messages it made, in order.
    openings, reloads: in order.
    killed_s: time of its kill; None if it ended in order.
    ended_s: from the signal that ended it to its end.
    power_cut: whether its files were reset to their last synchronised contents.
    stored: the messages, of any boot, in its outbox file after its end.
    written: as `stored`, before a power cut reset the file.
    """

    boot_id: str = ""
    made: list[MadeMessage] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    reloads: list[Reload] = field(default_factory=list)
    killed_s: float | None = None
    ended_s: tuple[float, float] | None = None
    power_cut: bool = False
    stored: frozenset[MessageId] = frozenset()
    written: frozenset[MessageId] = frozenset()

    @property
    def durable(self) -> list[MadeMessage]:
        """The messages made that must be delivered."""
        return [message for message in tuple(self.made) if message.topic in DURABLE]


class Period(NamedTuple):
    """A time during which a fault disturbed the delivery, its recovery included."""

    start_s: float
    end_s: float

    def meets(self, start_s: float, end_s: float) -> bool:
        """Return whether it shares a moment with another period."""
        return start_s <= self.end_s and end_s >= self.start_s


def is_calm(disturbed: Iterable[Period], start_s: float, end_s: float) -> bool:
    """Return whether nothing disturbed the delivery between two times."""
    return not any(period.meets(start_s, end_s) for period in disturbed)


def delivered_messages(received: Iterable[ReceivedMessage]) -> Iterator[DeliveredMessage]:
    """Yield the messages with a sequence number.

    Retained ones are left out: they could hide a loss.
    """
    since_1970_s = time.time() - time.monotonic()
    for message in received:
        payload = message.value
        if not message.retained and isinstance(payload, dict) and "seq" in payload:
            _, topic = message.rig_topic
            yield DeliveredMessage(
                topic, payload["boot_id"], payload["seq"], payload, message.at_s + since_1970_s
            )


def longest(values: Iterable[float]) -> float:
    """Return the longest of some times, rounded; 0 without any."""
    return round(max(values, default=0.0), 3)
