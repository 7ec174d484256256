"""Soak: the readings that the service decoded, against the lines that the board sent.

Pure. The board noted every line with the faults that were active. An undamaged line must become a
reading; a damaged one must if a decoder here reads it in its place. The only excuse is the edge of
a connection: what the board sent just before its port or the process went, or as the port was
opened. A reading is known by the board's number and the order; the service logs the number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.mqtt import topics
from daemon.soak.claims import EDGE_S
from hardware.protocol import LineDecoder
from hardware.simulator.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from daemon.soak.observed import Boot, MadeMessage
    from hardware.frames import SensorFrame
    from hardware.simulator.board import SentLine

_DAMAGING = frozenset({FaultKind.DROP, FaultKind.TRUNCATE, FaultKind.GARBAGE})
_EXAMPLES = 3
_LINES_TO_COMPLETE = 3
"""A line whose end is missing is complete once the next one begins."""

_REMEMBERED_LINES = 64
"""Lines in which a decoder may find a number again, at most."""

_BEHIND_S = 5.0
"""A service that had to wait for a processor in this time before its end may be behind by that."""

_MOST_BEHIND_S = 15.0

_OPENS_WITHIN_S = 1.0
"""The port is open this long, at most, before the service's log says so."""


class BootReading(NamedTuple):
    """A reading that a boot should have decoded.

    Attributes
    ----------
    place: of its `sample` among the messages that the boot made; None if it decoded none.
    """

    frame: SensorFrame
    place: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingReport:
    """How many of the lines that were sent to the service became readings.

    Attributes
    ----------
    sent: lines that a listener could read, in whole or in part.
    decoded: readings that the service made of them.
    destroyed: lines that cannot be read, by the fault that damaged them.
    unread: lines at the edge of a connection, that nobody read.
    missing: all other lines that became no reading.
    invented: readings of which there was no line.
    examples: of the missing lines, in words.
    """

    sent: int
    decoded: int
    destroyed: Mapping[str, int]
    unread: int
    missing: int
    invented: int
    examples: Sequence[str]

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong."""
        wrong = {
            f"{self.missing} readings that the board sent were not decoded, such as "
            f"{'; '.join(self.examples)}": self.missing,
            f"{self.invented} readings were decoded that the board never sent": self.invented,
            "no reading was decoded": self.decoded == 0,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


class _Connection(NamedTuple):
    """The samples of a boot between two openings of the port: places and messages."""

    opened_s: float
    samples: list[tuple[int, MadeMessage]]


@dataclass(slots=True)
class _Found:
    """Places of lines: within a connection, such that a decoder reads them, and without a reading.

    Attributes
    ----------
    missing: with the reason, in words.
    """

    within: set[int] = field(default_factory=set)
    decodable: set[int] = field(default_factory=set)
    missing: dict[int, str] = field(default_factory=dict)
    destroyed: Counter[str] = field(default_factory=Counter)
    unread: int = 0
    invented: int = 0


def compare_readings(
    boots: Sequence[Boot],
    lines: Sequence[SentLine],
    late_s: Callable[[float, float], float] = lambda _start_s, _end_s: 0.0,
) -> tuple[ReadingReport, list[list[BootReading]]]:
    """Compare the lines with the readings; return, per boot, those that it should have decoded.

    `late_s` returns how late this machine was between two times.
    """
    places, found = _Places(lines), _Found()
    of_boots = [_readings_of(boot, lines, places, found) for boot in boots]
    _account_for_others(lines, list(_edges(boots, lines)), late_s, found)
    report = ReadingReport(
        sent=sum(bool(line.data) for line in lines),
        decoded=sum(m.topic == topics.SAMPLE for boot in boots for m in boot.made),
        destroyed=dict(found.destroyed),
        unread=found.unread,
        missing=len(found.missing),
        invented=found.invented,
        examples=[
            f"number {lines[place].frame_seq} of {lines[place].sent_s:.2f} s ({why})"
            for place, why in sorted(found.missing.items())[:_EXAMPLES]
        ],
    )
    return report, of_boots


def _readings_of(
    boot: Boot, lines: Sequence[SentLine], places: _Places, found: _Found
) -> list[BootReading]:
    """Return the readings that a boot should have decoded, and note their lines."""
    readings: list[BootReading] = []
    decoder = LineDecoder()
    for connection in _connections(boot):
        span = places.span(connection.samples)
        frames = _decode(decoder, lines, span)
        found.within.update(span)
        found.decodable.update(place for place, _ in frames)
        matched, of_none = _match([frame for _, frame in frames], connection.samples)
        found.invented += of_none
        found.missing.update(
            (place, "between two that were decoded")
            for (place, _), reading in zip(frames, matched, strict=True)
            if reading.place is None
        )
        readings += matched
    return readings


def _account_for_others(
    lines: Sequence[SentLine],
    edges: Sequence[tuple[float, float]],
    late_s: Callable[[float, float], float],
    found: _Found,
) -> None:
    """Note why the other lines became no reading."""
    unfinished: str | None = None
    for place, line in enumerate(lines):
        if not line.data:
            continue
        # The line after many without an end is part of one that is too long to be decoded.
        damage = _damage(line) or unfinished
        unfinished = None if line.data.endswith(b"\n") else damage
        if place in found.decodable:
            continue
        if damage is not None:
            found.destroyed[damage] += 1
        elif place in found.within:
            if _is_repeated(lines, place):
                found.destroyed["two reboots"] += 1
            else:
                found.missing[place] = "undamaged, and yet no decoder reads it"
        elif any(
            start_s - EDGE_S - late_s(start_s - _BEHIND_S, end_s) <= line.sent_s <= end_s
            for start_s, end_s in edges
        ):
            found.unread += 1
        else:
            near_s = min((abs(line.sent_s - edge) for pair in edges for edge in pair), default=0.0)
            found.missing[place] = f"{near_s:.2f} s from the next start or end of a connection"


def _connections(boot: Boot) -> Iterator[_Connection]:
    """Yield the connections to the board in which the boot decoded anything."""
    samples = [
        (place, message)
        for place, message in enumerate(tuple(boot.made))
        if message.topic == topics.SAMPLE
    ]
    starts = [opening.place for opening in boot.openings]
    by_opening: defaultdict[int, list[tuple[int, MadeMessage]]] = defaultdict(list)
    for place, message in samples:
        by_opening[bisect_right(starts, place)].append((place, message))
    for number, found in sorted(by_opening.items()):
        yield _Connection(boot.openings[number - 1].at_s if number else 0.0, found)


class _Places:
    """Finds the line of a reading by its number and the time at which it was decoded."""

    def __init__(self, lines: Sequence[SentLine]) -> None:
        self._by_number: defaultdict[int, list[int]] = defaultdict(list)
        self._lines = lines
        for place, line in enumerate(lines):
            if line.data:
                self._by_number[line.frame_seq].append(place)

    def _find(self, sample: MadeMessage) -> list[int]:
        """Return the lines with the sample's number that were sent before it, the latest first."""
        found = self._by_number.get(sample.frame_seq or 0, ())
        return [place for place in reversed(found) if self._lines[place].sent_s <= sample.at_s]

    def span(self, samples: Sequence[tuple[int, MadeMessage]]) -> range:
        """Return the places of the lines from the first sample to the last.

        A board that restarts gives a number again. A service that is behind may have decoded the
        earlier line; then the number of samples tells.
        """
        first = next(iter(self._find(samples[0][1])), None)
        if first is None:
            return range(0)
        last = samples[-1][1]
        spans = [range(first, place + 1) for place in self._find(last) if place >= first]
        near = [
            span
            for span in spans
            if span is spans[0] or last.at_s - self._lines[span[-1]].sent_s < _MOST_BEHIND_S
        ]
        return min(near, key=lambda span: abs(len(span) - len(samples)), default=range(0))


def _decode(
    decoder: LineDecoder, lines: Sequence[SentLine], span: range
) -> list[tuple[int, SensorFrame]]:
    """Decode the lines of one connection, to the reading of the last one; return their places."""
    frames: list[tuple[int, SensorFrame]] = []
    for place in range(span.start, min(span.stop + _LINES_TO_COMPLETE, len(lines))):
        if place >= span.stop and frames and frames[-1][0] == span.stop - 1:
            break
        for frame in decoder.feed(lines[place].data):
            # A line without its end becomes a reading when the next one begins.
            of = next(
                (p for p in (place, place - 1) if lines[p].frame_seq == frame.frame_seq), place
            )
            frames.append((of, frame))
    decoder.drop_partial_line()
    return frames


def _match(
    frames: Sequence[SensorFrame], samples: Sequence[tuple[int, MadeMessage]]
) -> tuple[list[BootReading], int]:
    """Match the readings that can be decoded with those that were; return them, and the rest."""
    expected = [frame.frame_seq for frame in frames]
    decoded = [message.frame_seq for _, message in samples]
    places: list[int | None] = [None] * len(frames)
    matched = 0
    matcher = SequenceMatcher(None, expected, decoded, autojunk=False)
    for block in matcher.get_matching_blocks():
        matched += block.size
        for step in range(block.size):
            places[block.a + step] = samples[block.b + step][0]
    readings = [BootReading(frame, place) for frame, place in zip(frames, places, strict=True)]
    return readings, len(samples) - matched


def _damage(line: SentLine) -> str | None:
    """Return what damaged a line, None for one that must be read."""
    damaging = sorted(fault.value for fault in line.faults & _DAMAGING)
    if damaging:
        return "+".join(damaging)
    return None if line.whole else "no room"


def _is_repeated(lines: Sequence[SentLine], place: int) -> bool:
    """Return whether a board that restarted twice gave a number and a time of its clock again.

    A decoder takes such a line for a repeat of the earlier one and drops it.
    """
    recent = lines[max(0, place - _REMEMBERED_LINES) : place]
    return _number_and_clock(lines[place]) in [_number_and_clock(line) for line in recent]


def _number_and_clock(line: SentLine) -> list[bytes]:
    return line.data.rpartition(b"$SCENT,")[2].split(b",")[1:3]


def _edges(boots: Iterable[Boot], lines: Sequence[SentLine]) -> Iterator[tuple[float, float]]:
    """Yield the times at which a connection began or ended: start and end of each change."""
    for boot in boots:
        for opening in boot.openings:
            yield opening.at_s - _OPENS_WITHIN_S, opening.at_s + EDGE_S
        if boot.ended_s is not None:
            yield boot.ended_s
    for line, after in pairwise(lines):
        if after.plugged != line.plugged:
            yield line.sent_s, line.sent_s
    if lines:
        yield lines[-1].sent_s, lines[-1].sent_s
