"""Soak: how long messages took from the service to a subscriber while nothing disturbed them.

Pure. Messages made during a fault of broker, process or disk, or shortly after it, are left out:
others wait before them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daemon.soak.claims import EVENT_WITHIN_S, PREDICTION_WITHIN_S, extended
from daemon.soak.observed import PREDICTIONS, is_calm, longest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.soak.observed import Boot, DeliveredMessage, MessageId, Period

_IN_TIME = 0.75
"""Share of the events that must come within EVENT_WITHIN_S; the others may meet a busy machine."""

_FEWEST = 4
"""Events from which that share is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayReport:
    """Delays from the making of messages to their arrival.

    Attributes
    ----------
    predictions, events: undisturbed messages that were measured.
    prediction_s, event_s: the longest delay.
    event_usual_s: the delay that three in four events do not exceed.
    late_predictions, late_events: those beyond the limit.
    """

    predictions: int
    events: int
    prediction_s: float
    event_s: float
    event_usual_s: float
    late_predictions: int
    late_events: int

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong."""
        wrong = {
            f"{self.late_predictions} predictions took up to {self.prediction_s:.1f} s to arrive, "
            f"and {PREDICTION_WITHIN_S:g} s is claimed": self.late_predictions,
            f"events wait: one in four took longer than {EVENT_WITHIN_S:g} s to arrive, up to "
            f"{self.event_s:.2f} s": self.events >= _FEWEST and self.event_usual_s > EVENT_WITHIN_S,
            f"events wait: {self.late_events} took up to {self.event_s:.1f} s to arrive": (
                self.late_events
            ),
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


def measure_delays(
    boots: Iterable[Boot],
    arrivals: Sequence[DeliveredMessage],
    disturbed: Sequence[Period],
    late_s: Callable[[float, float], float] = lambda _start_s, _end_s: 0.0,
) -> DelayReport:
    """Measure the messages that arrived while nothing disturbed them.

    `late_s` returns how late this machine was between two times.
    """
    arrived_s: dict[MessageId, float] = {}
    for arrival in arrivals:
        if not arrival.payload.get("buffered"):
            arrived_s.setdefault(arrival.id, arrival.at_s)
    delays: dict[str, list[float]] = {"events": [], "predictions": []}
    late = {"events": 0, "predictions": 0}
    for boot in boots:
        for message in boot.durable:
            at_s = arrived_s.get((boot.boot_id, message.seq))
            if at_s is None or not is_calm(disturbed, message.at_s, at_s):
                continue
            kind = "predictions" if message.topic in PREDICTIONS else "events"
            delay_s = max(0.0, at_s - message.at_s)
            limit_s = EVENT_WITHIN_S if kind == "events" else PREDICTION_WITHIN_S
            delays[kind].append(delay_s)
            late[kind] += delay_s > extended(limit_s, late_s(message.at_s, at_s))
    events = sorted(delays["events"])
    usual = events[max(0, round(_IN_TIME * len(events)) - 1)] if events else 0.0
    return DelayReport(
        predictions=len(delays["predictions"]),
        events=len(events),
        prediction_s=longest(delays["predictions"]),
        event_s=longest(events),
        event_usual_s=round(usual, 3),
        late_predictions=late["predictions"],
        late_events=late["events"],
    )
