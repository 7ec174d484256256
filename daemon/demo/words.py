"""Demo: the view's words: how odours, states, times and verdicts are said to a passer-by. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.decision import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.demo.story import RigStory, Verdict

CLEAN_AIR = "clean air"

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


def opinion(story: RigStory) -> str:
    """Return what a rig says now: names, or its state."""
    if story.said:
        return named(story.said)
    return "(nothing yet)" if story.state is None else STATES[story.state]


def clock(seconds: float) -> str:
    """Return minutes and seconds, for example `2:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def score(verdicts: Iterable[Verdict]) -> tuple[int, int, int]:
    """Return how many odours were named right, wrongly, and not at all."""
    told = list(verdicts)
    right = sum(verdict.right for verdict in told)
    silent = sum(not verdict.said for verdict in told)
    return right, len(told) - right - silent, silent


def score_line(verdicts: Iterable[Verdict]) -> str:
    """Return the score in words."""
    right, wrong, silent = score(verdicts)
    if not right + wrong + silent:
        return "no odour yet"
    parts = [f"{right} of {right + wrong + silent} named right"]
    parts += [f"{wrong} wrong"] if wrong else []
    parts += [f"{silent} without a name"] if silent else []
    return ", ".join(parts)


def judged(verdict: Verdict) -> str:
    """Return a verdict in a word."""
    if not verdict.said:
        return "no name"
    return "right" if verdict.right else "wrong"
