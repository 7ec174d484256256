"""Demo: the view's words: how odours, states, times and verdicts are said to a passer-by. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.decision_spec import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.demo.state import NamingResult, RigState

CLEAN_AIR = "clean air"

RIGHT, PARTLY, WRONG, UNNAMED = "right", "partly right", "wrong", "without a name"
"""The verdicts."""

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
"""The published states, for people."""


def named(names: Sequence[str]) -> str:
    """Return an odour's names as people write them: `brazil nut`, `apple + mango`."""
    return " + ".join(name.replace("_", " ") for name in names)


def in_the_air(names: Sequence[str]) -> str:
    """Return what is in the air."""
    return named(names) or CLEAN_AIR


def opinion(story: RigState) -> str:
    """Return what a rig says now: names, or its state."""
    if story.said:
        return named(story.said)
    return "(nothing yet)" if story.state is None else STATES[story.state]


def clock(seconds: float) -> str:
    """Return minutes and seconds, for example `2:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def score_line(verdicts: Iterable[NamingResult]) -> str:
    """Return how many odours were named right, partly, wrongly and not at all."""
    words = [judged(verdict) for verdict in verdicts]
    if not words:
        return "no odour has passed yet"
    others = [word for word in (PARTLY, WRONG, UNNAMED) if word in words]
    return ", ".join(
        [f"{words.count(RIGHT)} of {len(words)} named right"]
        + [f"{words.count(word)} {word}" for word in others]
    )


def judged(verdict: NamingResult) -> str:
    """Return a verdict in a word or two."""
    if not verdict.said:
        return UNNAMED
    return RIGHT if verdict.right else PARTLY if verdict.partly else WRONG
