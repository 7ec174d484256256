"""Demo: how odours, announcements, times and scores are written for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.demo.state import Verdict
from models.decision_spec import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.demo.state import NamingResult, RigState

STATES: dict[State, str] = {
    State.WARMING_UP: "warming up",
    State.AMBIENT: "nothing but air",
    State.SENSING: "smells something",
    State.RECOGNISED: "knows it",
    State.UNRECOGNISED: "unknown smell",
    State.RECOVERING: "airing out",
    State.FAULT: "fault",
    State.DISABLED: "cannot run",
}
"""The published states."""


def odour_text(names: Sequence[str]) -> str:
    """Return the names for people: `brazil nut`, `apple + mango`, `clean air` for none."""
    return " + ".join(name.replace("_", " ") for name in names) or "clean air"


def announcement(rig: RigState) -> str:
    """Return what a rig announces now: names, or its state."""
    if rig.names:
        return odour_text(rig.names)
    return "(nothing yet)" if rig.state is None else STATES[rig.state]


def clock(seconds: float) -> str:
    """Return minutes and seconds, for example `2:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def score(results: Iterable[NamingResult]) -> str:
    """Return how many odours were named right, partly, wrongly and not at all."""
    verdicts = [result.verdict for result in results]
    if not verdicts:
        return "no odour has passed yet"
    others = [verdict for verdict in Verdict if verdict in verdicts and verdict != Verdict.RIGHT]
    return ", ".join(
        [f"{verdicts.count(Verdict.RIGHT)} of {len(verdicts)} named right"]
        + [f"{verdicts.count(verdict)} {verdict}" for verdict in others]
    )
