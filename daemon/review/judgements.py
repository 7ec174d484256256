"""Daemon: what the owner said about announcements, and the rig's score by day.

Kept for good within bounds, in a file to which is only appended. What is said again about the same
announcement replaces what was said before.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daemon.mqtt.payloads import format_utc
from daemon.request_fields import RequestError
from daemon.review.journal import Journal
from daemon.system.logs import get_logger
from models.results import EventType

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.review.announcements import Announcement, AnnouncementLog
    from daemon.system.background import Data

FILE = "feedback.jsonl"

KEPT = 2000
"""Judgements in memory and, at least, on the disk."""

DAYS = 60
"""Days of the score at most, the newest."""


class FeedbackVerdict(StrEnum):
    """Whether an announcement was right."""

    RIGHT = "right"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the owner said about one announcement.

    Attributes
    ----------
    boot_id, seq: of the announcement.
    announced: its label; None of one without a name.
    day: its UTC day.
    label: the true name, None where it was not given.
    note: of the owner.
    given_ms: when it was said, milliseconds since 1970.
    """

    boot_id: str
    seq: int
    announced: str | None
    day: str
    verdict: str
    label: str | None
    note: str | None
    given_ms: int

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the announcement."""
        return self.boot_id, self.seq

    @property
    def truth(self) -> str | None:
        """The true name, where it is known."""
        return self.label or (self.announced if self.verdict == FeedbackVerdict.RIGHT else None)

    def data(self) -> Data:
        """Return it as a response states it."""
        return {
            "boot_id": self.boot_id,
            "seq": self.seq,
            "announced": self.announced,
            "verdict": self.verdict,
            "label": self.label,
            "note": self.note,
            "given": format_utc(self.given_ms),
        }


class Judgements:
    """All judgements of a rig.

    Parameters
    ----------
    folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / FILE, KEPT)
        self._kept: OrderedDict[tuple[str, int], Judgement] = OrderedDict()
        self._log = get_logger("review")

    def load(self) -> None:
        """Read what was said before."""
        try:
            records = self._journal.read()
        except OSError as error:
            self._log.error(f"The feedback of earlier days cannot be read: {error}.")
            return
        for record in records:
            if (judgement := _parsed(record)) is not None:
                self.keep(judgement)

    def write(self, judgement: Judgement) -> None:
        """Keep a judgement on disk; it counts once `keep` was called too.

        Raises
        ------
        OSError: the disk refuses.
        """
        self._journal.append(asdict(judgement), durable=True)

    def keep(self, judgement: Judgement) -> None:
        """Keep in memory a judgement that the disk has."""
        self._kept.pop(judgement.key, None)
        self._kept[judgement.key] = judgement
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def of(self, announcement: Announcement) -> Judgement | None:
        """Return what was said about an announcement."""
        return self._kept.get(announcement.key)

    def score(self, announcements: AnnouncementLog) -> Data:
        """Return how many names were announced, and were right and wrong, by day and in all."""
        # A single smell is announced by itself, and as the only component of a mixture.
        names = {
            (item.day, item.boot_id, item.run, item.onset_ms, item.label or item.detail)
            for item in announcements.newest_first()
            if item.type == EventType.RECOGNISED
        }
        announced = Counter(day for day, *_ in names)
        judged = {verdict: Counter[str]() for verdict in FeedbackVerdict}
        for judgement in self._kept.values():
            judged[FeedbackVerdict(judgement.verdict)][judgement.day] += 1
        right, wrong = judged[FeedbackVerdict.RIGHT], judged[FeedbackVerdict.WRONG]
        days = sorted({*announced, *right, *wrong})[-DAYS:]
        total = {"right": right.total(), "wrong": wrong.total()}
        both = total["right"] + total["wrong"]
        return {
            **total,
            "share_right": round(total["right"] / both, 4) if both else None,
            "days": [
                {
                    "day": day,
                    "announced": announced[day],
                    "right": right[day],
                    "wrong": wrong[day],
                }
                for day in days
            ],
        }


def judge(
    announcement: Announcement, verdict: str, label: str | None, note: str | None
) -> Judgement:
    """Return a judgement; RequestError where verdict and label contradict each other."""
    announced = announcement.label
    if announced is not None and verdict == FeedbackVerdict.WRONG and label == announced:
        raise RequestError(f"{announced} was announced. It is right, or its true label is another.")
    if (
        announced is not None
        and verdict == FeedbackVerdict.RIGHT
        and label not in (None, announced)
    ):
        raise RequestError(f"{announced} was announced, so it cannot be right that it was {label}.")
    return Judgement(
        boot_id=announcement.boot_id,
        seq=announcement.seq,
        announced=announced,
        day=announcement.day,
        verdict=verdict,
        label=label,
        note=note,
        given_ms=time.time_ns() // 1_000_000,
    )


def _parsed(record: dict[str, Any]) -> Judgement | None:
    """Return the judgement of a line; None for a line of another content."""
    texts = ("boot_id", "day", "verdict")
    if not all(isinstance(record.get(name), str) for name in texts):
        return None
    if not all(isinstance(record.get(name), int) for name in ("seq", "given_ms")):
        return None
    if record["verdict"] not in tuple(FeedbackVerdict):
        return None
    try:
        return Judgement(**record)
    except TypeError:
        return None
