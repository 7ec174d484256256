"""Soak: what docs/reliability.md claims, as numbers that a run is judged by.

Not taken from the service's own constants: a service that was changed must not change the claim.
A test compares them with the page.
"""

from __future__ import annotations

from daemon.soak.faults import FaultTarget

UNWRITTEN_S = 1.0
"""A kill or power cut costs predictions of this last time at most."""

EVENT_UNWRITTEN_S = 0.25
"""Events are written at once: one that a kill costs was made this short before it, at most."""

PREDICTION_WITHIN_S = 1.25
"""While nothing disturbs them, predictions reach a subscriber within this time: they wait for the
next write."""

EVENT_WITHIN_S = 0.25
"""And three of four events within this: they do not wait for the next write of predictions."""

ANSWER_WITHIN_S = 2.0
RETAINED_WITHIN_S = 5.0
"""After a connection, until every retained topic is there again."""

RECOVERY_WITHIN_S = {
    FaultTarget.BOARD: 2.5,
    FaultTarget.BROKER: 5.0,
    FaultTarget.PROCESS: 5.0,
    FaultTarget.DISK: 11.0,
    FaultTarget.RIG_ID: 20.0,
}

EDGE_S = 0.5
"""Readings that the board sent this shortly before its port or the process went, or just as the
port was opened, may be unread."""

ALLOWANCE_S = 0.5
"""Added to every limit but those of events: other programs use the disk too."""


def extended(limit_s: float, late_s: float, allowance_s: float = ALLOWANCE_S) -> float:
    """Return a limit extended by what `daemon.soak.lateness` measured, at most to twice as much."""
    return limit_s + min(late_s, limit_s) + allowance_s
