"""Demo: what one rig's messages add up to: what was played, what was said, and whether it is right.

Pure: messages and the programme in, values for the screen out. Whether a name is right is
judged here and nowhere else; the service knows nothing of the programme.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.mqtt import topics
from hardware.channels import CHANNEL_NAMES
from models.decision_spec import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.demo.scenario import DemoEpisode, DemoSchedule

COLUMNS = 64
"""Columns of history kept per channel."""

_COLUMNS_PER_ACT = 20
"""So wide is an odour with the air before it: what an 80-column terminal has room for."""


@dataclass(frozen=True, slots=True)
class NamingResult:
    """One odour, and the last name it was given while it lasted.

    Attributes
    ----------
    played: the names in it, sorted.
    said: the names given, sorted; empty when none was.
    after_s: seconds of the board's time from its onset to that name.
    over: whether the odour has gone; until then the name may still change.
    """

    played: tuple[str, ...]
    said: tuple[str, ...]
    after_s: float
    over: bool

    @property
    def right(self) -> bool:
        """Whether the names are those of what was played, all of them and no other."""
        return self.said == self.played

    @property
    def partly(self) -> bool:
        """Whether some names are right, but not all, or not only these."""
        return not self.right and not set(self.said).isdisjoint(self.played)


class RigState:
    """One rig, as heard over MQTT.

    Attributes
    ----------
    state: as published, None before the first prediction.
    bars: label and share of the newest prediction, the largest first: candidates of a substance,
        or components of a mixture.
    reason: why the state is fault or disabled.
    health: the newest `health` payload.
    board_present: whether the board sends readings.
    heard: messages so far.
    """

    def __init__(self, programme: DemoSchedule) -> None:
        self.programme = programme
        self.state: State | None = None
        self.bars: tuple[tuple[str, float], ...] = ()
        self.reason: str | None = None
        self.health: dict[str, Any] = {}
        self.board_present = False
        self.heard = 0
        self.readings = 0
        self._board_s = 0.0
        self._said: tuple[str, ...] = ()
        self._answers: dict[int, tuple[DemoEpisode, tuple[str, ...], float]] = {}
        rig = programme.rig
        self._column_s = (rig.air_s + rig.odour_s) / _COLUMNS_PER_ACT
        self._columns: deque[tuple[int, tuple[float | None, ...]]] = deque(maxlen=COLUMNS)

    @property
    def act(self) -> DemoEpisode:
        """What is in the air, as of the newest reading heard."""
        return self.programme.act_at(self._board_s)

    @property
    def board_s(self) -> float:
        """The board's time, as of the newest reading heard."""
        return self._board_s

    @property
    def said(self) -> tuple[str, ...]:
        """The names given now, sorted; empty when none is."""
        return self._said

    @property
    def verdicts(self) -> list[NamingResult]:
        """Return every odour so far, the one in the air included once it has a name."""
        now = self.act
        told = [
            NamingResult(act.odour, said, after_s, over=act.number != now.number)
            for act, said, after_s in self._answers.values()
        ]
        return [verdict for verdict in told if verdict.over or verdict.said]

    def hear(self, topic: str, payload: Any) -> None:
        """Take one message; `topic` is below the rig's prefix."""
        self.heard += 1
        if topic == topics.SAMPLE:
            self._read(payload["frame_seq"], payload["values"])
        elif topic in (topics.SUBSTANCE, topics.MIXTURE):
            self._predicted(topic, payload)
        elif topic == topics.HEALTH:
            self.health = payload
        elif topic == topics.SENSOR_STATUS:
            self.board_present = payload == "online"

    def history(self, channel: str, width: int) -> Sequence[float | None]:
        """Return up to `width` readings of a channel, evenly spaced, the newest last."""
        index = CHANNEL_NAMES.index(channel)
        return [values[index] for _, values in list(self._columns)[-width:]]

    def _read(self, frame_seq: int, values: dict[str, float | None]) -> None:
        self._at(frame_seq)
        self.readings += 1
        column = int(self._board_s / self._column_s)
        row = tuple(values[name] for name in CHANNEL_NAMES)
        if self._columns and self._columns[-1][0] == column:
            self._columns.pop()
        self._columns.append((column, row))

    def _at(self, frame_seq: int) -> None:
        # The boards of the demo never restart, so the sequence number is their time.
        self._board_s = max(self._board_s, frame_seq / self.programme.rig.rate_hz)
        act = self.act
        if act.odour:
            self._answers.setdefault(act.number, (act, (), 0.0))

    def _predicted(self, topic: str, payload: dict[str, Any]) -> None:
        self.state = State(payload["state"])
        self.reason = payload["reason"]
        if topic == topics.SUBSTANCE:
            self._at(payload["frame_seq"])
            said = (payload["label"],) if payload["label"] is not None else ()
            self.bars = tuple((item["label"], item["probability"]) for item in payload["top"])
        else:
            parts = payload["components"]
            said = tuple(sorted(part["label"] for part in parts))
            self.bars = tuple((part["label"], part["proportion"]) for part in parts)
        self._said = said
        act = self.act
        if act.odour and said:
            _, before, after_s = self._answers[act.number]
            if said != before:
                after_s = self._board_s - act.start_s
            self._answers[act.number] = (act, said, after_s)
