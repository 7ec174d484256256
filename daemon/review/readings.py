"""Daemon: the readings of an announcement's exposure, from the last minutes or from recordings.

Knows the history and the recordings' folder; nothing of what the readings are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.smell_learning import LEAST_EXPOSURE_S
from calibration.stored_readings import LEAD_S, MAX_EXPOSURE_S, recording_bytes
from daemon.recording.segments import list_segments
from hardware.recording_labels import LabelledStretch, change_labels
from hardware.recording_rows import OWN_HEADER, rows_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.board.history import History
    from daemon.review.announcements import Announcement

ONSET_DELAY_MS = 20_000
"""An onset is detected up to 15 s after the smell began to rise (`models.clean_air`)."""

UNKNOWN_END_MS = 120_000
"""Readings after an announcement whose exposure has no known end: the service was stopped."""

LEAST_LEAD_MS = 60_000
"""Clean air before an exposure that is enough to begin with."""

LEAST_MS = 1000 * LEAST_EXPOSURE_S
"""A shorter exposure teaches nothing."""

SLACK_MS = 5_000
"""How much of the clean air before an exposure may be missing."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Readings of an exposure, and of the time before it.

    Attributes
    ----------
    content: a recording, as CSV, whose rows keep their times.
    start_ms: time since its first reading from which on the smell may be there.
    seconds: from there to its end.
    """

    content: bytes
    start_ms: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Span:
    """Times of the readings that are wanted: of the lead, of the smell, of its end."""

    lead_ms: int
    start_ms: int
    end_ms: int


def _span(announcement: Announcement, unknown_end_ms: int) -> _Span:
    start_ms = max(0, announcement.onset_ms - ONSET_DELAY_MS)
    longest_ms = start_ms + int(MAX_EXPOSURE_S * 1000)
    ended_ms = unknown_end_ms if announcement.ended_ms is None else announcement.ended_ms
    return _Span(max(0, start_ms - int(LEAD_S * 1000)), start_ms, min(ended_ms, longest_ms))


def stretch_from_history(
    announcement: Announcement, history: History, *, least_lead_ms: int = LEAST_LEAD_MS
) -> Stretch | None:
    """Return the readings of an exposure of this run; None where they are not all there.

    At least `least_lead_ms` before the smell must be there, or all that the board has sent.
    """
    # An exposure without an end lasts until now.
    span = _span(announcement, history.newest_ms or 0)
    readings = history.since(span.lead_ms - 1)
    inside = readings.t_ms <= span.end_ms
    t_ms, values = readings.t_ms[inside], readings.values[inside]
    if len(t_ms) == 0 or t_ms[0] > max(span.start_ms - least_lead_ms, 0) + SLACK_MS:
        return None
    first_ms, last_ms = int(t_ms[0]), int(t_ms[-1])
    if last_ms - span.start_ms < LEAST_MS:
        return None
    return Stretch(
        recording_bytes(t_ms, values),
        max(0, span.start_ms - first_ms),
        (last_ms - span.start_ms) / 1000.0,
    )


def label_exposure(announcement: Announcement, label: str, folder: Path, clip: Path | None) -> None:
    """Label the exposure in its clip and in the segment of the announcement, for the trainer.

    Nothing is labelled in what is not there any more.

    Raises
    ------
    ScentdError, OSError: the labels cannot be read or written.
    """
    span = _span(announcement, announcement.t_ms + UNKNOWN_END_MS)
    stretch = LabelledStretch(span.start_ms, span.end_ms, label, "feedback")
    name = announcement.segment
    paths = [] if clip is None else [clip]
    if name is not None and any(item.name == name for item in list_segments(folder)):
        paths.append(folder / name)
    for path in paths:
        change_labels(path, lambda labels: labels.with_stretch(stretch))


def stretch_from_recordings(
    announcement: Announcement, folder: Path, clip: Path | None = None
) -> Stretch | None:
    """Return the readings of an exposure from its clip or the segments around it; None without.

    Raises
    ------
    RowsError: a recording cannot be read.
    """
    span = _span(announcement, announcement.t_ms + UNKNOWN_END_MS)
    found = None if clip is None else _stretch_of(span, [clip])
    return found or _stretch_of(span, _segments_around(announcement, folder))


def _segments_around(announcement: Announcement, folder: Path) -> list[Path]:
    """Return the segment that holds an announcement, with those before and after it."""
    segments = list_segments(folder)
    there = [item for item in segments if item.name == announcement.segment]
    if not there:
        return []
    run, number = there[0].run, there[0].number
    around = {
        item.number: item.path
        for item in segments
        if item.run == run and abs(item.number - number) <= 1
    }
    return [path for _, path in sorted(around.items())]


def _stretch_of(span: _Span, paths: Sequence[Path]) -> Stretch | None:
    rows = list(rows_between(paths, span.lead_ms, span.end_ms))
    if not rows or rows[0][0] > span.start_ms or rows[-1][0] - span.start_ms < LEAST_MS:
        return None
    return Stretch(
        OWN_HEADER + b"".join(line for _, line in rows),
        span.start_ms - rows[0][0],
        (rows[-1][0] - span.start_ms) / 1000.0,
    )
