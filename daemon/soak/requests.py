"""Soak: requests to the service during the faults, and their answers.

A request must be answered once, correctly and in time, unless a fault of broker or process came
between. One that was lost with a connection is never carried out later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.mqtt import topics
from daemon.soak.claims import ANSWER_WITHIN_S, extended
from daemon.soak.observed import is_calm, longest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.sandbox.subscriber import ReceivedMessage
    from daemon.soak.observed import Period

_COMMANDS = {"status": "ok", "nothing": "error"}
"""Commands that are sent in turn, and the status of the right answer."""


@dataclass(slots=True)
class _Asked:
    """A request and the statuses of its answers, with their times."""

    command: str
    at_s: float
    answers: list[tuple[str, float]] = field(default_factory=list)

    @property
    def until_s(self) -> float:
        """When it was answered, or should have been."""
        return self.answers[0][1] if self.answers else self.at_s + 2 * ANSWER_WITHIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """Requests and answers.

    Attributes
    ----------
    asked: requests sent.
    answered: of them, those answered.
    undisturbed: those during which nothing disturbed broker or process.
    unanswered: of the undisturbed, those without an answer in time.
    repeated: of the undisturbed, those answered more than once.
    wrong: answers with the wrong status.
    answer_s: the longest time to an answer of the undisturbed.
    """

    asked: int
    answered: int
    undisturbed: int
    unanswered: int
    repeated: int
    wrong: int
    answer_s: float

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong."""
        wrong = {
            f"{self.unanswered} of {self.undisturbed} undisturbed requests were not answered "
            f"within {ANSWER_WITHIN_S:g} s": self.unanswered,
            f"{self.repeated} undisturbed requests were answered more than once": self.repeated,
            f"{self.wrong} requests were answered wrongly": self.wrong,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


class SentRequests:
    """The requests of a run."""

    def __init__(self) -> None:
        self._asked: list[_Asked] = []

    def next(self, now_s: float) -> tuple[str, str]:
        """Return the next request: its topic below the rig's prefix, and its payload."""
        number = len(self._asked)
        command = list(_COMMANDS)[number % len(_COMMANDS)]
        self._asked.append(_Asked(command, now_s))
        return f"{topics.REQUEST}/{command}", json.dumps({"transaction": number})

    def add_answers(self, received: Iterable[ReceivedMessage], since_1970_s: float) -> None:
        """Note the answers among the received messages; their times are on the steady clock."""
        for message in received:
            _, topic = message.rig_topic
            if topic.startswith(f"{topics.RESPONSE}/") and isinstance(message.value, dict):
                asked = self._asked[message.value["transaction"]]
                asked.answers.append((message.value["status"], message.at_s + since_1970_s))

    def report(
        self,
        disturbed: Sequence[Period],
        late_s: Callable[[float, float], float] = lambda _start_s, _end_s: 0.0,
    ) -> RequestReport:
        """Judge the answers; `late_s` returns how late this machine was between two times."""
        calm = [asked for asked in self._asked if is_calm(disturbed, asked.at_s, asked.until_s)]
        took_s = [asked.answers[0][1] - asked.at_s for asked in calm if asked.answers]
        in_time = sum(
            asked.answers[0][1] - asked.at_s
            <= extended(ANSWER_WITHIN_S, late_s(asked.at_s, asked.answers[0][1]))
            for asked in calm
            if asked.answers
        )
        return RequestReport(
            asked=len(self._asked),
            answered=sum(bool(asked.answers) for asked in self._asked),
            undisturbed=len(calm),
            unanswered=len(calm) - in_time,
            # After a later fault an answer may come again, as every message may.
            repeated=sum(
                len(asked.answers) > 1 and is_calm(disturbed, asked.at_s, asked.answers[1][1])
                for asked in calm
            ),
            wrong=sum(
                status != _COMMANDS[asked.command]
                for asked in self._asked
                for status, _ in asked.answers
            ),
            answer_s=longest(took_s),
        )
