"""Daemon: requests that pages send to rigs, and their answers.

A request is published at once, and its answer is given to all pages that show the rig; a page that
lost its connection asks for it later. Pure of brokers: publishing is a function.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.requests import ERROR, OK, WORKING
from hardware.errors import ScentdError
from hardware.labels import MAX_LABEL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = frozenset(
    {"status", "models", "reload", "record", "calibrate", "enroll", "sample", "feedback"}
)
"""What a page may request."""

TEXT_CHARACTERS = 500
"""Longest other text in a request: a note on an announcement."""

_LABELS = frozenset({"label", "name"})

KEPT = 64
"""Answers that are kept for pages that ask for them later."""

PATIENCE_S = 130.0
"""Longest time without an answer or progress, after which a request is given up."""

FOREIGN_EVERY_S = 10.0
"""Least time between two refreshes of the pages after answers to requests of other clients."""

_TEACH = "enroll"

_READING = frozenset({"list", "exposures", "export", "show", "score", "status"})
_READS_BY_DEFAULT = frozenset({"models", "calibrate", "record", "status", "sample"})
"""Actions that change nothing, and commands whose action by default does not."""


class RequestRefusedByPageError(ScentdError):
    """A request is not sent; `status` is that of the HTTP answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class SentRequest:
    """A request, and the newest answer to it.

    Attributes
    ----------
    action: of its payload, None for the command's default.
    label: of the smell that is taught, None in other requests.
    answer: as pages are given it.
    """

    rig: str
    command: str
    transaction: str
    action: str | None
    label: str | None
    heard_s: float
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing, as far as its action says."""
        if self.action is None:
            return self.command in _READS_BY_DEFAULT
        return self.action in _READING

    @property
    def is_open(self) -> bool:
        """Whether the last answer is still to come."""
        return self.answer.get("status") in (None, WORKING)

    def message(self) -> dict[str, Any]:
        """Return the newest answer, as pages are given it."""
        return {
            "kind": "answer",
            "rig": self.rig,
            "command": self.command,
            "action": self.action,
            "label": self.label,
            "transaction": self.transaction,
            **self.answer,
        }


class RigRequests:
    """Sends requests and keeps their answers.

    Parameters
    ----------
    send: publishes a request given rig, command and payload; returns False without a broker.
    publish: gives a message to the pages that show a rig.
    """

    def __init__(
        self,
        send: Callable[[str, str, dict[str, Any]], bool],
        publish: Callable[[str, dict[str, Any]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._publish = publish
        self._clock = clock
        self._sent: dict[str, SentRequest] = {}
        self._foreign_s: dict[tuple[str, str], float] = {}

    def begin(self, rig: str, command: str, payload: dict[str, Any]) -> SentRequest:
        """Send a request.

        Raises
        ------
        RequestRefusedByPageError: it is not sent, and why.
        """
        if command not in COMMANDS:
            raise RequestRefusedByPageError(
                404, f"There is no such request. There are: {', '.join(sorted(COMMANDS))}."
            )
        _check_texts(payload)
        action = payload.get("action")
        teaches = command == _TEACH and action in (None, "teach")
        if teaches:
            self._refuse_second(rig)
        transaction = secrets.token_hex(8)
        request = SentRequest(
            rig,
            command,
            transaction,
            action if isinstance(action, str) else None,
            str(payload.get("label")) if teaches else None,
            self._clock(),
        )
        message = {**payload, "transaction": transaction, "progress": True}
        if not self._send(rig, command, message):
            raise RequestRefusedByPageError(
                503, "The broker is not connected, so the rig cannot be asked. Try again soon."
            )
        self._sent[transaction] = request
        while len(self._sent) > KEPT:
            del self._sent[next(iter(self._sent))]
        if teaches:
            self._publish(rig, request.message())
        return request

    def answer_to(self, transaction: str) -> dict[str, Any] | None:
        """Return the newest answer to a request; None if it is not known any more."""
        request = self._sent.get(transaction)
        return None if request is None else request.message()

    def open_requests(self, rig: str) -> list[dict[str, Any]]:
        """Return the newest answers to a rig's unfinished teaching, for a page that just opened."""
        return [
            request.message()
            for request in self._sent.values()
            if request.rig == rig and request.is_open and request.label is not None
        ]

    def receive(self, rig: str, command: str, answer: dict[str, Any]) -> None:
        """Keep an answer on `response/`, and give it to the pages."""
        request = self._sent.get(str(answer.get("transaction")))
        if request is None or request.rig != rig or request.command != command:
            # Of somebody else: a command, Home Assistant, the server of other pages. Whether it has
            # changed something is not known.
            if answer.get("status") == OK:
                self._publish_foreign_change(rig, command)
            return
        request.heard_s = self._clock()
        request.answer = {name: answer.get(name) for name in ("status", "data", "error", "words")}
        self._publish(rig, request.message())
        if answer.get("status") == OK and not request.only_reads:
            self._publish(rig, {"kind": "changed", "rig": rig, "command": command})

    def _publish_foreign_change(self, rig: str, command: str) -> None:
        """Let pages read again, seldom: what they ask is foreign to another page's server."""
        now_s = self._clock()
        if now_s - self._foreign_s.get((rig, command), -FOREIGN_EVERY_S) >= FOREIGN_EVERY_S:
            self._foreign_s[rig, command] = now_s
            self._publish(rig, {"kind": "changed", "rig": rig, "command": command})

    def rig_went_offline(self, rig: str) -> None:
        """End the requests to a rig whose service has stopped."""
        for request in self._sent.values():
            if request.rig == rig and request.is_open:
                self._give_up(
                    request,
                    "The rig's service went offline before it answered. The request may have been "
                    "carried out: check that before you send it again.",
                )

    def give_up_old(self) -> None:
        """End the requests that were not answered in time; call it now and then."""
        now_s = self._clock()
        for request in self._sent.values():
            if request.is_open and now_s - request.heard_s > PATIENCE_S:
                self._give_up(
                    request,
                    f"The rig did not answer within {PATIENCE_S:g} s. Check that its service runs "
                    "and accepts requests (mqtt.requests).",
                )

    def _give_up(self, request: SentRequest, why: str) -> None:
        request.answer = {"status": ERROR, "data": None, "error": why}
        self._publish(request.rig, request.message())

    def _refuse_second(self, rig: str) -> None:
        """Refuse to teach while the same readings are being taught under another request."""
        for request in self._sent.values():
            if request.rig == rig and request.is_open and request.label is not None:
                raise RequestRefusedByPageError(
                    409,
                    f"{request.label!r} is being taught on this rig right now, by this page or "
                    "another. Wait until that has ended: the same air cannot be two smells.",
                )


def _check_texts(payload: dict[str, Any]) -> None:
    """Refuse texts that are too long, before the rig has to."""
    for name, value in payload.items():
        most = MAX_LABEL_LENGTH if name in _LABELS else TEXT_CHARACTERS
        longest = max(map(len, _texts(value)), default=0)
        if longest > most:
            raise RequestRefusedByPageError(
                422,
                f"{name[:20]} holds at most {most} characters, and {longest} came. Shorten it.",
            )


def _texts(value: object) -> list[str]:
    """Return the texts in a value and in the list that it may be."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]
