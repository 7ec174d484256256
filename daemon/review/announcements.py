"""Daemon: the announcements of a rig: what was published, when, and in which stretch of readings.

An announcement is an event `recognised`, `unrecognised` or `listed`. They are kept in the state
folder, so that the owner can say of yesterday's whether they were right. Runs in the pipeline's
thread, which waits for no disk; a disk error costs the record, never the recognition.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.mqtt.payloads import format_utc
from daemon.review.journal import Journal
from daemon.system.logs import get_logger
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemon.mqtt.payloads import Envelope
    from models.results import Event

FILE = "announcements.jsonl"

KEPT = 1000
"""Announcements in memory and, at least, on the disk: half a megabyte, a month of thirty a day."""

ANNOUNCING = frozenset({EventType.RECOGNISED, EventType.UNRECOGNISED, EventType.LISTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One announcement.

    Attributes
    ----------
    boot_id, seq, unix_ms: of the published event.
    type: `recognised`, `unrecognised` or `listed`.
    t_ms: of the reading that showed it.
    onset_ms: reading at which the exposure was detected; that of the announcement without one.
    ended_ms, ended_seq: of the end of the exposure, None while it lasts.
    segment: the recording that holds the reading, None without one.
    run: counts how often the time of the readings began anew since the start of the process.
    detail: of a list of names.
    """

    boot_id: str
    seq: int
    unix_ms: int
    type: str
    t_ms: int
    onset_ms: int
    ended_ms: int | None = None
    ended_seq: int | None = None
    segment: str | None = None
    run: int = 0
    model: str | None = None
    label: str | None = None
    probability: float | None = None
    detail: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the announcement for good."""
        return self.boot_id, self.seq

    @property
    def day(self) -> str:
        """The UTC day: 2026-01-31."""
        return format_utc(self.unix_ms)[:10]


class AnnouncementLog:
    """The announcements of a rig, this boot's and those of earlier ones.

    Parameters
    ----------
    folder: of the file.
    write: calls a function that uses the disk, in another thread where a disk may hang.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Callable[[], None]], object] = lambda task: task(),
    ) -> None:
        self._journal = Journal(folder / FILE, 2 * KEPT)
        self._kept: deque[Announcement] = deque(maxlen=KEPT)
        self._to_disk = write
        self._log = get_logger("review")
        self._onset_ms: int | None = None
        self._newest_ms = -1
        self._failing = False
        self.run = 0

    def load(self) -> None:
        """Read what earlier processes kept."""
        try:
            records = self._journal.read()
        except OSError as error:
            self._log.error(f"The announcements of earlier days cannot be read: {error}.")
            return
        for record in records:
            if "ended_ms" in record and "type" not in record:
                self._end(record.get("boot_id"), record.get("ended_ms"), record.get("ended_seq"))
            elif (announcement := _parsed(record)) is not None:
                self._kept.append(announcement)

    def __len__(self) -> int:
        return len(self._kept)

    def newest_first(self) -> Iterator[Announcement]:
        """Yield the announcements, the newest first."""
        return reversed(self._kept)

    def begin_run(self, t_ms: int) -> None:
        """Take notice of the time of a reading: where it runs backwards, another run began."""
        if t_ms < self._newest_ms:
            self.run += 1
            self._onset_ms = None
        self._newest_ms = t_ms

    def first_of_exposure(self, announcement: Announcement) -> Announcement:
        """Return the first announcement of the same exposure."""
        first = announcement
        for item in self.newest_first():
            if item.boot_id == first.boot_id and item.seq < first.seq:
                if (item.run, item.onset_ms) != (first.run, first.onset_ms):
                    break
                first = item
        return first

    def add(self, event: Event, segment: str | None, envelope: Envelope) -> Announcement | None:
        """Add an event that was published; events that announce nothing only bound exposures.

        Returns
        -------
        the first announcement of the exposure that the event ends, None of any other event.
        """
        if event.type is EventType.ONSET:
            self._onset_ms = event.t_ms
        elif event.type is EventType.ENDED:
            self._onset_ms = None
            first = self._end(envelope.boot_id, event.t_ms, envelope.seq)
            if first is not None:
                self._write(
                    {
                        "boot_id": envelope.boot_id,
                        "ended_ms": event.t_ms,
                        "ended_seq": envelope.seq,
                    }
                )
            return first
        elif event.type in ANNOUNCING:
            announcement = Announcement(
                boot_id=envelope.boot_id,
                seq=envelope.seq,
                unix_ms=envelope.unix_ms,
                type=str(event.type),
                t_ms=event.t_ms,
                onset_ms=event.t_ms if self._onset_ms is None else self._onset_ms,
                segment=segment,
                run=self.run,
                model=event.model,
                label=event.label,
                probability=event.probability,
                detail=event.detail,
            )
            self._kept.append(announcement)
            self._write({name: v for name, v in asdict(announcement).items() if v is not None})
        return None

    def _end(self, boot_id: object, ended_ms: object, ended_seq: object) -> Announcement | None:
        """End the announcements of a boot that last; return the first of them."""
        first = None
        if not isinstance(ended_ms, int) or not isinstance(ended_seq, int):
            return None
        for place in range(len(self._kept) - 1, -1, -1):
            announcement = self._kept[place]
            if announcement.boot_id != boot_id or announcement.ended_ms is not None:
                break
            first = replace(announcement, ended_ms=ended_ms, ended_seq=ended_seq)
            self._kept[place] = first
        return first

    def _write(self, record: dict[str, Any]) -> None:
        self._to_disk(partial(self._append, record))

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._journal.append(record, durable=False)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._log.warning(
                    f"Announcements are not kept: {error}. What is wrong or right about them can "
                    "be stated until the service stops."
                )
            self._failing = True


_KINDS: dict[str, type | tuple[type, ...]] = {
    "boot_id": str,
    "seq": int,
    "unix_ms": int,
    "type": str,
    "t_ms": int,
    "onset_ms": int,
    "ended_ms": int,
    "ended_seq": int,
    "segment": str,
    "run": int,
    "model": str,
    "label": str,
    "probability": (int, float),
    "detail": str,
}


def _parsed(record: dict[str, Any]) -> Announcement | None:
    """Return the announcement of a line; None for a line of another content."""
    if any(name not in _KINDS or not isinstance(v, _KINDS[name]) for name, v in record.items()):
        return None
    try:
        return Announcement(**record)
    except TypeError:
        return None
