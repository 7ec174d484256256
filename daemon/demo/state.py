"""Demo: the state of one rig: the odours played, the names announced, and whether they are right.

Pure: messages and the schedule in, values for the views out. The service does not know the
schedule; only this module compares its names with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daemon.mqtt import topics
from hardware.channels import CHANNEL_NAMES
from models.decision_spec import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.demo.scenario import DemoEpisode, DemoSchedule

COLUMNS = 64
"""Columns of history kept per channel."""

_COLUMNS_PER_ODOUR = 20
"""Columns of an odour and the air before it, as fit into a terminal of 80 columns."""


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

_WITH_ODOUR = {State.SENSING, State.RECOGNISED, State.UNRECOGNISED}
"""States in which a prediction's candidates are of an odour, and not of air."""


class Verdict(StrEnum):
    """Whether an odour was named correctly."""

    RIGHT = "right"
    """All its names and no other; of a smell that was never taught, that it is unknown."""
    PARTLY = "partly right"
    WRONG = "wrong"
    UNNAMED = "without a name"


_NOT_RIGHT = (Verdict.PARTLY, Verdict.WRONG, Verdict.UNNAMED)


@dataclass(frozen=True, slots=True)
class NamingResult:
    """One odour, and the latest answer of the service to it.

    Attributes
    ----------
    odour: the names of the odours played, sorted.
    taught: whether the rig was taught all of them.
    names: the names given, sorted; empty without any.
    unrecognised: whether the service said that it does not know the odour.
    after_s: seconds of the board's time from the onset to this answer.
    finished: whether the odour has ended; until then the answer may change.
    """

    odour: tuple[str, ...]
    taught: bool = True
    names: tuple[str, ...] = ()
    unrecognised: bool = False
    after_s: float = 0.0
    finished: bool = False

    @property
    def answered(self) -> bool:
        """Whether the service gave names, or said that it knows none."""
        return bool(self.names) or self.unrecognised

    @property
    def verdict(self) -> Verdict:
        """Whether the answer is right."""
        if not self.taught:
            if self.names:
                return Verdict.WRONG
            return Verdict.RIGHT if self.unrecognised else Verdict.UNNAMED
        if not self.names:
            return Verdict.UNNAMED
        if self.names == self.odour:
            return Verdict.RIGHT
        return Verdict.WRONG if set(self.names).isdisjoint(self.odour) else Verdict.PARTLY


class RigState:
    """One rig, as a subscriber knows it.

    Attributes
    ----------
    state: as published, None before the first prediction.
    names: the names announced now, sorted.
    bars: label and share of the newest prediction, the largest first: candidates of a substance,
        or components of a mixture; none while there is no odour.
    reason: why the state is fault or disabled.
    health: the newest `health` payload.
    messages, readings: numbers received so far.
    board_s: the board's time of the newest reading received.
    """

    def __init__(self, schedule: DemoSchedule) -> None:
        self._schedule = schedule
        self.setup = schedule.rig
        self.state: State | None = None
        self.names: tuple[str, ...] = ()
        self.bars: tuple[tuple[str, float], ...] = ()
        self.reason: str | None = None
        self.health: dict[str, Any] = {}
        self.messages = 0
        self.readings = 0
        self.board_s = 0.0
        self._results: dict[int, NamingResult] = {}
        self._column_s = (self.setup.air_s + self.setup.odour_s) / _COLUMNS_PER_ODOUR
        self._columns: deque[tuple[int, tuple[float | None, ...]]] = deque(maxlen=COLUMNS)

    @property
    def episode(self) -> DemoEpisode:
        """The episode at `board_s`."""
        return self._schedule.episode_at(self.board_s)

    @property
    def results(self) -> list[NamingResult]:
        """Every odour so far; the present one only if there is an answer."""
        now = self.episode.number
        results = [
            replace(result, finished=number != now) for number, result in self._results.items()
        ]
        return [result for result in results if result.finished or result.answered]

    @property
    def present_result(self) -> NamingResult | None:
        """The answer to the odour in the air now, None if there is none yet."""
        newest = next(reversed(self.results), None)
        return None if newest is None or newest.finished else newest

    @property
    def announcement(self) -> str:
        """The names announced now, or the state, for people."""
        if self.names:
            return odour_text(self.names)
        return "(nothing yet)" if self.state is None else STATES[self.state]

    def receive(self, topic: str, payload: Any) -> None:
        """Update the state by a message; `topic` is below the rig's prefix."""
        self.messages += 1
        if topic == topics.SAMPLE:
            self._receive_reading(payload["frame_seq"], payload["values"])
        elif topic == self.setup.topic:
            self._receive_prediction(payload)
        elif topic == topics.HEALTH:
            self.health = payload

    def history(self, channel: str, width: int) -> Sequence[float | None]:
        """Return up to `width` readings of a channel, evenly spaced, the newest last."""
        index = CHANNEL_NAMES.index(channel)
        return [values[index] for _, values in list(self._columns)[-width:]]

    def _receive_reading(self, frame_seq: int, values: dict[str, float | None]) -> None:
        self._advance(frame_seq)
        self.readings += 1
        column = int(self.board_s / self._column_s)
        if self._columns and self._columns[-1][0] == column:
            self._columns.pop()
        self._columns.append((column, tuple(values[name] for name in CHANNEL_NAMES)))

    def _advance(self, frame_seq: int) -> None:
        # The boards of the demo never restart, so the sequence number is their time.
        self.board_s = max(self.board_s, frame_seq / self.setup.rate_hz)
        episode = self.episode
        if episode.odour:
            self._results.setdefault(episode.number, NamingResult(episode.odour, episode.taught))

    def _receive_prediction(self, payload: dict[str, Any]) -> None:
        self._advance(payload["frame_seq"])
        self.state = State(payload["state"])
        self.reason = payload["reason"]
        if self.setup.topic == topics.SUBSTANCE:
            self.names = (payload["label"],) if payload["label"] is not None else ()
            bars = [(item["label"], item["probability"]) for item in payload["top"]]
        else:
            components = payload["components"]
            self.names = tuple(sorted(part["label"] for part in components))
            bars = [(part["label"], part["proportion"]) for part in components]
        self.bars = tuple(bars) if self.state in _WITH_ODOUR else ()
        self._note_answer()

    def _note_answer(self) -> None:
        """Keep the newest answer to the present odour, and when it was first given."""
        episode = self.episode
        unrecognised = self.state is State.UNRECOGNISED
        if not episode.odour or not (self.names or unrecognised):
            return
        result = self._results[episode.number]
        if (self.names, unrecognised) != (result.names, result.unrecognised):
            self._results[episode.number] = replace(
                result,
                names=self.names,
                unrecognised=unrecognised,
                after_s=self.board_s - episode.start_s,
            )


View = Callable[[Sequence[RigState], float], None]
"""Shows the rigs as they are; the second argument is the real seconds since the demo began."""


def odour_text(names: Sequence[str]) -> str:
    """Return the names for people: `brazil nut`, `apple + mango`, `clean air` for none."""
    return " + ".join(name.replace("_", " ") for name in names) or "clean air"


def clock(seconds: float) -> str:
    """Return minutes and seconds, for example `2:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def score(results: Iterable[NamingResult]) -> str:
    """Return how many of the taught odours were named right."""
    verdicts = [result.verdict for result in results if result.taught]
    return f"{verdicts.count(Verdict.RIGHT)} of {len(verdicts)} named right"


def exceptions(results: Iterable[NamingResult]) -> str:
    """Return what `score` leaves out: other verdicts, and smells that were never taught."""
    known = Counter(result.verdict for result in results if result.taught)
    new = [result.unrecognised for result in results if not result.taught]
    parts = [f"{known[verdict]} {verdict}" for verdict in _NOT_RIGHT if known[verdict]]
    if new:
        parts.append(f"never taught: {sum(new)} of {len(new)} unrecognised")
    return ", ".join(parts)
