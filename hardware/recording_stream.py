"""Ground floor: the frames of a recording's files, decoded anew for every pass.

May import the line protocol, the text of files and numpy. A first look infers what the columns of
the time mean, a first pass measures the recording, and each further one yields its frames, so that
a day of readings takes no more memory than half an hour. Must know nothing of models or labels.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, CHANNELS, GAS_INDICES, N_CHANNELS
from hardware.clock import Clock, infer_clock
from hardware.columns import TIMESTAMP_MS_COLUMN, Columns, find_columns
from hardware.encoding import encode_csv_header
from hardware.errors import ScentdError
from hardware.frames import Quality
from hardware.protocol import LineCounts, LineDecoder
from hardware.table_rows import ColumnFinder, RowReader
from hardware.table_text import TextError, text_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardware.frames import SensorFrame

RATE_WITHOUT_TIMESTAMPS_HZ = 1.0
"""The published single-substance recordings have no timestamps: one row per second."""

_MAX_LINE_BYTES = 1 << 20
"""Of a file, whose rows may carry a text of any length beside the channels."""
_LOOK_BYTES = 1 << 19
_OUTSIDE_SHARE = 0.5
_KEPT = 20_000
"""Readings of a short recording (half an hour at 10 Hz) stay in memory, some 10 MB, and are
decoded once."""
_FEW = 8
"""Rows up to which times in any order are read: a board's clock may be set while it sends."""
_OWN_HEADER = encode_csv_header(timestamps=True)

TextReader = Callable[[Path, IO[bytes] | None, Callable[[str], None]], Iterator[bytes]]


class RecordingError(ScentdError):
    """A recording cannot be read, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How files become lines, and lines readings.

    Attributes
    ----------
    find: what the columns mean.
    text: yields a file's lines in UTF-8, and calls back with clauses on what it chose.
    interval_ms: between readings, where no column has the time.
    mend: what to do about a file that does not fit.
    """

    find: ColumnFinder = find_columns
    text: TextReader = text_pieces
    interval_ms: float | None = None
    mend: str = "Repair the file, or describe its columns in a mapping file (--map)."


OWN_LAYOUT = Layout()
"""Recordings of the board: the channel table's names, or lines as the board sends them."""


class RecordingStream:
    """One recording, in one file or in several segments.

    Parameters
    ----------
    paths: the segments in order. What is no regular file, such as a pipe, is copied to a temporary
        one.
    layout: of the files.

    Attributes
    ----------
    path: the first file.
    counts: of the decoder.
    next_number: what a frame after the last one would be numbered, see `LineDecoder`.
    present: channels of which there is any number.
    timestamped: whether every reading has a time.
    first_ms: time of the first reading, 0 without times.
    nominal_rate_hz: from the median step of the times, else 1 Hz (the published layout).
    published: whether this is one of the published layouts, which lie within one exposure.
    torn: whether the last line is incomplete, as after a power cut, and left out.
    notes: sentences on what is not as in a recording of scentd: what columns were taken for.

    Raises
    ------
    RecordingError
        A file is missing, unreadable or empty, has no known columns, or has no data rows.
    """

    def __init__(self, paths: Sequence[Path], layout: Layout = OWN_LAYOUT) -> None:
        self._paths = [Path(path) for path in paths]
        self._layout = layout
        self._streams = [_copy_of_pipe(path) for path in self._paths]
        self.path = self._paths[0]
        self.torn = False
        self._said: dict[str, None] = {}
        self._clocks, clock_notes = self._infer_clocks()
        decoder = self._decoder()
        times, qualities = array("q"), Counter[bytes]()
        columns: dict[Columns, None] = {}
        self._count = 0
        kept: list[SensorFrame] = []
        for frame in self._frames(decoder, columns):
            self._count += 1
            if self._count <= _KEPT:
                kept.append(frame)
            qualities[frame.quality.tobytes()] += 1
            if frame.device_ms is not None:
                times.append(frame.device_ms)
        self._kept = kept if self._count <= _KEPT else []
        self.counts: LineCounts = decoder.counts
        self.next_number = decoder.next_number
        if not self._count:
            raise RecordingError(self._why_no_frames(decoder))
        self.timestamped = len(times) == self._count
        self.first_ms = times[0] if self.timestamped else 0
        self._refuse_reversed(times)
        self.nominal_rate_hz = nominal_rate_hz(
            np.array(times, np.int64) if self.timestamped else None
        )
        by_channel = _by_channel(qualities)
        self.present = tuple(
            name
            for name, counts in zip(CHANNEL_NAMES, by_channel, strict=True)
            if counts[Quality.MISSING] < self._count
        )
        mixture = bool(columns) and all(header.is_published_mixture for header in columns)
        self.published = layout is OWN_LAYOUT and (mixture or not self.timestamped)
        self.notes = (
            *self._said,
            *(line for header in columns for line in header.describe()),
            *clock_notes,
            *self._without_time(columns),
            *_outside(by_channel),
        )

    def __len__(self) -> int:
        return self._count

    @property
    def assumed_rate_hz(self) -> float | None:
        """The nominal rate if there are no timestamps from which to measure one, else None."""
        return None if self.timestamped else self.nominal_rate_hz

    def frames(self) -> Iterator[SensorFrame]:
        """Yield the frames, equal to those that a live decoder gave."""
        if self._kept:
            yield from self._kept
            return
        # A file that grows in the meantime ends where it was measured.
        yield from islice(self._frames(self._decoder(), {}), self._count)

    def arrivals(self) -> Iterator[tuple[SensorFrame, float]]:
        """Yield the frames with their times of arrival in milliseconds, at the nominal rate."""
        return frame_arrivals(self.frames(), self.nominal_rate_hz, timestamped=self.timestamped)

    # Reading

    def _decoder(self) -> LineDecoder:
        rows = RowReader(self._layout.find, self._clocks)
        return LineDecoder(rows, max_line_bytes=_MAX_LINE_BYTES)

    def _frames(self, decoder: LineDecoder, columns: dict[Columns, None]) -> Iterator[SensorFrame]:
        for number in range(len(self._paths)):
            tail, own = b"\n", False
            for data in self._pieces(number):
                own = own or (tail == b"\n" and data.startswith(_OWN_HEADER))
                tail = data[-1:] or tail
                yield from self._timed(decoder.feed(data))
                if decoder.columns is not None:
                    columns.setdefault(decoder.columns)
            if own and tail != b"\n":
                decoder.drop_partial_line()
                self.torn = True
            yield from self._timed(decoder.finish())
            if decoder.columns is not None:
                columns.setdefault(decoder.columns)

    def _timed(self, frames: list[SensorFrame]) -> list[SensorFrame]:
        """Return frames with the times of a constant interval, if the layout states one."""
        interval_ms = self._layout.interval_ms
        if interval_ms is None:
            return frames
        return [replace(f, device_ms=round(f.frame_seq * interval_ms)) for f in frames]

    def _pieces(self, number: int) -> Iterator[bytes]:
        try:
            yield from self._layout.text(
                self._paths[number], self._streams[number], self._said.setdefault
            )
        except TextError as error:
            raise RecordingError(str(error)) from error

    def _infer_clocks(self) -> tuple[dict[Columns, Clock | None], list[str]]:
        """Return what the first rows show of each header's time, and what to say of it."""
        samples: dict[Columns, list[str]] = {}
        decoder = LineDecoder(
            RowReader(self._layout.find, samples=samples), max_line_bytes=_MAX_LINE_BYTES
        )
        looked = rows = 0
        for data in self._pieces(0):
            rows += len(decoder.feed(data))
            looked += len(data)
            if looked >= _LOOK_BYTES or rows >= RowReader.SAMPLES:
                break
        decoder.finish()
        clocks: dict[Columns, Clock | None] = {}
        notes = []
        for columns, texts in samples.items():
            clocks[columns] = clock = infer_clock(texts, columns.clock)
            if clock is None and columns.mapped:
                raise RecordingError(self._unreadable_times(columns, texts))
            notes += _clock_notes(columns, clock, texts)
        return clocks, notes

    def _without_time(self, columns: dict[Columns, None]) -> list[str]:
        # The published recordings of single substances are rows of the whole table, at 1 Hz.
        known = (
            header.clock_fields or (header.is_whole_table and not header.ignored)
            for header in columns
        )
        if self.timestamped or self._layout.interval_ms or (columns and all(known)):
            return []
        return [f"no time: one reading in {1 / self.nominal_rate_hz:g} s is assumed"]

    def _unreadable_times(self, columns: Columns, texts: Sequence[str]) -> str:
        names = " and ".join(repr(columns.names[field]) for field in columns.clock_fields)
        words = "times" if columns.clock is None else columns.clock.words
        return (
            f"The times of {self.path} in column {names} ({', '.join(texts[:3])}) are not {words}. "
            "Correct time_unit in the mapping: iso for dates, s, ms or us."
        )

    def _refuse_reversed(self, times: array[int]) -> None:
        back = sum(after < before for before, after in pairwise(times))
        if back > _OUTSIDE_SHARE * len(times) and len(times) > _FEW:
            raise RecordingError(
                f"The rows of {self.path} run backwards in time. Sort them, the oldest first."
            )

    def _why_no_frames(self, decoder: LineDecoder) -> str:
        path, counts = self.path, self.counts
        first_bytes = next((data for data in self._pieces(0) if data.strip()), b"")
        if not first_bytes:
            return f"Expected a recording at {path}, but the file is empty. Record it again."
        expected = (
            f"Expected a header naming some of {', '.join(CHANNEL_NAMES)} (optionally "
            "timestamp_ms), or lines as the board sends them."
        )
        other = _other_format(first_bytes.lstrip()) if self._layout is OWN_LAYOUT else None
        if decoder.problem is not None and other is None:
            return (
                f"{path} holds no reading that can be read: {decoder.problem} ({_damage(counts)}). "
                f"{'' if counts.headers or self._layout is not OWN_LAYOUT else f'{expected} '}"
                f"{self._layout.mend}"
            )
        if counts.headers:
            return (
                f"{path} has a header but no data row that fits it ({_damage(counts)}). "
                "Record it again, or repair the rows."
            )
        first_line = first_bytes.lstrip().splitlines()[0][:200].decode("utf-8", "replace")
        return (
            f"{path} has no columns of the board. It begins with {first_line!r}. {expected} "
            f"{f'This is {other}.' if other else self._layout.mend}"
        )


def _copy_of_pipe(path: Path) -> IO[bytes] | None:
    """Return a temporary copy of what can be read only once, None for a file."""
    try:
        if stat.S_ISREG(path.stat().st_mode) or path.is_dir():
            return None
        copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the stream
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
    except OSError as error:
        raise RecordingError(
            f"Expected a recording at {path}, but it cannot be read "
            f"({error.strerror or error}). Check the path and its permissions."
        ) from error
    return copy


def _clock_notes(columns: Columns, clock: Clock | None, texts: Sequence[str]) -> list[str]:
    names = [columns.names[field] for field in columns.clock_fields]
    name = " and ".join(map(repr, names))
    if clock is None:
        return [f"column {name} ({', '.join(texts[:3])}) tells no time that can be read"]
    known = columns.clock is not None and columns.clock.words == clock.words
    plain = known and names == [TIMESTAMP_MS_COLUMN] and not columns.mapped
    if plain and not clock.spread_ms:
        return []
    words = clock.words if known else f"{clock.words}, by its values"
    spread = (
        f"; rows with equal times are {clock.spread_ms:.0f} ms apart" if clock.spread_ms else ""
    )
    return [f"time from column {name} ({words}){spread}"]


def _by_channel(qualities: Counter[bytes]) -> NDArray[np.int64]:
    """Return how many readings of each channel have each quality, int64[12, qualities]."""
    counts = np.zeros((N_CHANNELS, len(Quality)), np.int64)
    for pattern, number in qualities.items():
        for channel, quality in enumerate(pattern):
            counts[channel, quality] += number
    return counts


def _outside(by_channel: NDArray[np.int64]) -> list[str]:
    """Say which gas channels are mostly outside their range: another unit, or a dead sensor."""
    notes = []
    for channel, counts in ((CHANNELS[index], by_channel[index]) for index in GAS_INDICES):
        there = int(counts.sum() - counts[Quality.MISSING])
        outside = int(counts[Quality.OUT_OF_RANGE] + counts[Quality.SATURATED])
        if outside > _OUTSIDE_SHARE * there:
            notes.append(
                f"{channel.name} is outside {channel.low:g} to {channel.high:g} {channel.unit} in "
                f"{outside} of {there} readings, which are not used: a dead "
                "sensor, or another unit, which a mapping file (--map) can convert"
            )
    return notes


def frame_arrivals(
    frames: Iterable[SensorFrame], rate_hz: float, *, timestamped: bool
) -> Iterator[tuple[SensorFrame, float]]:
    """Yield the frames of a recording with their times of arrival in milliseconds, at a rate.

    In a recording without times a damaged row keeps its place, so that the others keep theirs.
    """
    period_ms = 1000.0 / rate_hz
    first = None
    for number, frame in enumerate(frames):
        first = frame.frame_seq if first is None else first
        place = number if timestamped else max(number, frame.frame_seq - first)
        yield frame, place * period_ms


def nominal_rate_hz(timestamp_ms: NDArray[np.int64] | None) -> float:
    """Return the rate of the median forward step, which pauses and clock jumps do not affect.

    Return that of the published recordings where there are no times.
    """
    if timestamp_ms is None:
        return RATE_WITHOUT_TIMESTAMPS_HZ
    steps_ms = np.diff(timestamp_ms)
    forward_ms = steps_ms[steps_ms > 0]
    if forward_ms.size == 0:
        return RATE_WITHOUT_TIMESTAMPS_HZ
    return 1000.0 / float(np.median(forward_ms))


def _other_format(first_bytes: bytes) -> str | None:
    """Return what a file without columns probably is."""
    if first_bytes.startswith((b"{", b"[")):
        if b'"rawDataHeader"' in first_bytes or b'"configHeader"' in first_bytes:
            return "a file of BME AI-Studio; name its format: --format bmerawdata"
        if b'"interval_ms"' in first_bytes or b'"payload"' in first_bytes:
            return "a file of Edge Impulse; name its format: --format edge-impulse"
        return "JSON; name its format (--format) or describe it in a mapping file (--map)"
    if first_bytes[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the recording; fetch the file itself"
    return None


def _damage(counts: LineCounts) -> str:
    kinds = ("malformed", "checksum", "binary", "overlong", "text")
    found = [f"{getattr(counts, kind)} {kind}" for kind in kinds if getattr(counts, kind)]
    return ", ".join(found) or "nothing follows it"
