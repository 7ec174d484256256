"""Ground floor: the board's line protocol, decoded and encoded.

May import the channel table, frames, the CRC and numpy. Must never open a port or a
file, read a clock, or raise on anything a board sends: damage is counted, by kind.

Three dialects are told apart line by line, so that a board which reboots into its
banner, or comes back with other firmware, is followed:

- ``scent``: ``$SCENT,<version>,<seq>,<device_ms>,<values>*<CRC-16 hex>``, see
  `docs/protocol.md`;
- ``labelled``: the upstream firmware's ``name:value`` pairs;
- ``csv``: numbers under a header that names the columns, or exactly twelve numbers
  in the channel table's order.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass
from operator import ge, le
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, CHANNELS, N_CHANNELS, Part, find_channel
from hardware.crc import crc16
from hardware.errors import UsageError
from hardware.frames import Quality, SensorFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_LINE_BYTES = 4096
"""A line of any dialect is below 300 bytes; 4 KiB leaves room for chatty banners and
still bounds what a board that never sends a newline can make us hold."""

LATEST_VERSION = 2
MQ_CHANNELS: tuple[int, ...] = tuple(
    index for index, channel in enumerate(CHANNELS) if channel.part is Part.MQ
)

_UINT32 = 1 << 32
_HALF_UINT32 = 1 << 31
_NEAR_BOOT_FRAMES = 128
"""A sequence number below this can be a fresh boot's: at 10 Hz a board prints that many
frames in 13 s, longer than a host takes to reopen its port."""
_RECENT_FRAMES = 16
"""How far back a repeated line is recognised; repeats come from a driver's buffer."""

_START = b"$SCENT,"
_CRC_FIELD_BYTES = 5  # '*' and four hex digits
_SCENT_PREFIX_FIELDS = 4  # 'SCENT', version, sequence, clock
_VALUES_BY_VERSION = {b"1": N_CHANNELS, b"2": N_CHANNELS + len(MQ_CHANNELS)}
_MAX_TIMESTAMP_MS = 2.0**53  # integers above it are not exact in the float they arrive as
_TIMESTAMP_MS_COLUMN = "timestamp_ms"
_CLOCK_COLUMNS = frozenset({_TIMESTAMP_MS_COLUMN, "timestamp"})

_LOW = tuple(channel.low for channel in CHANNELS)
_HIGH = tuple(channel.high for channel in CHANNELS)
_SATURATES_AT = tuple(
    math.inf if channel.saturates_at is None else channel.saturates_at for channel in CHANNELS
)
# As plain integers: converting an enumeration's member costs more than all the rest of judging.
_MISSING, _OUT_OF_RANGE, _SATURATED = (
    int(Quality.MISSING),
    int(Quality.OUT_OF_RANGE),
    int(Quality.SATURATED),
)
_ALL_OK: NDArray[np.uint8] = np.frombuffer(bytes(N_CHANNELS), np.uint8)
_FLOATS = struct.Struct(f"={N_CHANNELS}f")
_ONE_FLOAT = struct.Struct("=f")
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class LineCounts:
    """What a decoder has seen so far.

    Every line is exactly one of: a frame, a duplicate, blank, a header, or one of the kinds
    of damage; `lost` and `restarts` count events between lines.

    Attributes
    ----------
    lines: lines ended so far, and pieces of lines that ran into each other.
    frames: lines that became a `SensorFrame`.
    blank: empty lines; upstream firmware separates its blocks by them.
    headers: lines that name columns.
    text: readable lines of no known form (boot messages, error messages).
    checksum: lines of our dialect whose CRC does not match.
    malformed: lines that look like data but cannot be read.
    version: intact lines of our dialect in a version newer than this decoder.
    overlong: lines longer than the limit, dropped.
    binary: lines with bytes that are not printable text.
    lost: frames missing between sequence numbers.
    duplicates: repeated frames, dropped.
    restarts: times the board's sequence, or its dialect, began anew.
    """

    lines: int = 0
    frames: int = 0
    blank: int = 0
    headers: int = 0
    text: int = 0
    checksum: int = 0
    malformed: int = 0
    version: int = 0
    overlong: int = 0
    binary: int = 0
    lost: int = 0
    duplicates: int = 0
    restarts: int = 0

    @property
    def damaged(self) -> int:
        """Lines that carried, or may have carried, a reading and could not be used."""
        return self.checksum + self.malformed + self.version + self.overlong + self.binary


@dataclass(frozen=True, slots=True)
class _Columns:
    """A CSV header: which field of a row is which channel.

    Attributes
    ----------
    names: the columns as the header spells them.
    channels: channel index per field, None for a field to be ignored.
    clock_field: index of a field that names a time (with or without unit), None without one.
    clock_is_ms: whether that field is in milliseconds and can be read.
    """

    names: tuple[str, ...]
    channels: tuple[int | None, ...]
    clock_field: int | None
    clock_is_ms: bool

    def without_clock(self) -> _Columns:
        """Return the columns of rows that lack the time which their header promises."""
        if self.clock_field is None:
            return self
        kept = [i for i in range(len(self.names)) if i != self.clock_field]
        return _Columns(
            tuple(self.names[i] for i in kept),
            tuple(self.channels[i] for i in kept),
            clock_field=None,
            clock_is_ms=False,
        )


_TABLE_COLUMNS = _Columns(CHANNEL_NAMES, tuple(range(N_CHANNELS)), None, clock_is_ms=False)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a frame stands in the board's sequence."""

    lost: int
    restarted: bool


_NEXT = _Place(lost=0, restarted=False)


class _Sequence:
    """Follow the board's uint32 frame counter through loss, repeats, wraps and reboots."""

    __slots__ = ("_last_ms", "_last_seq", "_recent")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next frame is the first."""
        self._last_seq: int | None = None
        self._last_ms = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT_FRAMES)

    def place(self, seq: int, device_ms: int) -> _Place | None:
        """Return the frame's place, or None for a repeat of a frame already seen."""
        place = self._judge(seq, device_ms)
        if place is not None:
            if place.restarted:
                self._recent.clear()
            self._last_seq = seq
            self._last_ms = device_ms
            self._recent.append((seq, device_ms))
        return place

    def _judge(self, seq: int, device_ms: int) -> _Place | None:
        if self._last_seq is None:
            return _NEXT
        step = (seq - self._last_seq) % _UINT32
        if step == 1:
            return _NEXT
        if step == 0 or step >= _HALF_UINT32:
            # A repeated line carries the clock it had the first time. A counter that went
            # back with any other clock is a board that started anew, even two frames after
            # its last start.
            if (seq, device_ms) in self._recent:
                return None
            return _Place(lost=0, restarted=True)
        if seq < _NEAR_BOOT_FRAMES and self._looks_rebooted(step, device_ms):
            return _Place(lost=0, restarted=True)
        return _Place(lost=step - 1, restarted=False)

    def _looks_rebooted(self, step: int, device_ms: int) -> bool:
        """Whether a small number ahead of the last one is a new boot rather than a gap.

        Either the counter would have had to wrap over a gap of hours, or the clock went back
        as well. A backward clock alone, with no frame missing, is a clock fault.
        """
        if step > _NEAR_BOOT_FRAMES * 2:
            return True
        return (device_ms - self._last_ms) % _UINT32 >= _HALF_UINT32


class LineDecoder:
    r"""Turn bytes into frames, whatever their chunking and whatever is between the frames.

    Lines end at ``\n``, ``\r\n`` or a lone ``\r``. How the bytes are cut into calls of `feed`
    makes no difference to the frames or the counts. Nothing a board sends raises.

    Parameters
    ----------
    max_line_bytes: a longer line is dropped and counted; no more than this is ever held.

    Examples
    --------
    >>> decoder = LineDecoder()
    >>> decoder.feed(b"Setting up sensors...\n$SCENT,1,7,700,216,305,494,830,2,38,,25.5,")
    []
    >>> [frame] = decoder.feed(b"1022.75,28,69.5,-48*98FC\n")
    >>> frame.device_ms, float(frame.values[0]), decoder.counts.text
    (700, 216.0, 1)
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        if max_line_bytes < 1:
            raise UsageError(
                f"A line decoder needs room for at least one byte, got {max_line_bytes}."
            )
        self._max_line_bytes = max_line_bytes
        self._pending = b""
        self._overlong = False
        self._after_cr = False
        self._tally: dict[str, int] = dict.fromkeys(LineCounts.__dataclass_fields__, 0)
        self._dialect: str | None = None
        self._sequence = _Sequence()
        self._unnumbered = 0
        self._header: _Columns | None = None
        self._row: _Columns | None = None
        self._headerless_allowed = True

    @property
    def counts(self) -> LineCounts:
        """A snapshot of what has been seen so far."""
        return LineCounts(**self._tally)

    @property
    def dialect(self) -> str | None:
        """The dialect of the latest frame: 'scent', 'labelled' or 'csv'; None before any."""
        return self._dialect

    def feed(self, data: bytes) -> list[SensorFrame]:
        """Take any number of bytes and return the frames that they complete."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        frames: list[SensorFrame] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            self._end_line(frames)
            start = end + 1
        self._hold(data[start:])
        return frames

    def finish(self) -> list[SensorFrame]:
        """Return the frame of a last line that lacks its newline; the decoder may be fed on."""
        frames: list[SensorFrame] = []
        if self._pending or self._overlong:
            self._end_line(frames)
        self._after_cr = False
        return frames

    # Lines

    def _hold(self, piece: bytes) -> None:
        """Add to the line under construction, or drop it once it is too long."""
        if self._overlong:
            return
        if len(self._pending) + len(piece) > self._max_line_bytes:
            self._pending = b""
            self._overlong = True
            self._count_line("overlong")
        elif piece:
            self._pending += piece

    def _end_line(self, frames: list[SensorFrame]) -> None:
        line, self._pending = self._pending, b""
        if self._overlong:
            self._overlong = False
            return
        # A line of ours that lost its newline, or follows a half line, is still a line.
        start = 0
        while (inner := line.find(_START, start + 1)) > 0:
            self._decode_into(frames, line[start:inner])
            start = inner
        self._decode_into(frames, line[start:])

    def _decode_into(self, frames: list[SensorFrame], line: bytes) -> None:
        line = line.strip()
        if line.startswith(_START):
            frame = self._scent(line)
        elif line:
            frame = self._plain(line)
        else:
            self._count_line("blank")
            return
        if frame is not None:
            frames.append(frame)

    def _count_line(self, kind: str) -> None:
        self._tally["lines"] += 1
        self._tally[kind] += 1

    def _speaks(self, dialect: str) -> bool:
        """Note the dialect of a good line; return whether the board changed to it just now."""
        changed = self._dialect is not None and self._dialect != dialect
        self._dialect = dialect
        if changed:
            self._sequence.forget()
            self._unnumbered = 0
            self._tally["restarts"] += 1
        return changed

    # Our own dialect

    def _scent(self, line: bytes) -> SensorFrame | None:
        if line[-_CRC_FIELD_BYTES : 1 - _CRC_FIELD_BYTES] != b"*":
            self._count_line("malformed")
            return None
        body = line[1:-_CRC_FIELD_BYTES]
        if line[1 - _CRC_FIELD_BYTES :].upper() != b"%04X" % crc16(body):
            self._count_line("checksum")
            return None
        fields = body.split(b",")
        if len(fields) < _SCENT_PREFIX_FIELDS:
            self._count_line("malformed")
            return None
        n_values = _VALUES_BY_VERSION.get(fields[1])
        if n_values is None:
            newer = fields[1].isdigit() and int(fields[1]) > LATEST_VERSION
            self._count_line("version" if newer else "malformed")
            return None
        seq = _uint32(fields[2])
        device_ms = _uint32(fields[3]) if len(fields) == _SCENT_PREFIX_FIELDS + n_values else None
        numbers = _numbers(fields[_SCENT_PREFIX_FIELDS:])
        if seq is None or device_ms is None or numbers is None:
            self._count_line("malformed")
            return None
        return self._scent_frame(seq, device_ms, numbers)

    def _scent_frame(self, seq: int, device_ms: int, numbers: list[float]) -> SensorFrame | None:
        changed = self._speaks("scent")
        place = self._sequence.place(seq, device_ms)
        if place is None:
            self._count_line("duplicates")
            return None
        self._count_line("frames")
        self._tally["lost"] += place.lost
        self._tally["restarts"] += place.restarted
        volts = numbers[N_CHANNELS:]
        values = _float32(numbers[:N_CHANNELS])
        return SensorFrame(
            seq,
            device_ms,
            values,
            judge_range(values),
            place.lost,
            place.restarted or changed,
            (volts[0], volts[1], volts[2]) if volts else None,
        )

    # The dialects without checksum or sequence

    def _plain(self, line: bytes) -> SensorFrame | None:
        text = _printable(line)
        if text is None:
            self._count_line("binary")
            return None
        frame = self._labelled(line) if ":" in text else None
        if frame is None:  # a row may well hold a colon, in a date
            frame = self._row_of_numbers(line)
        if frame is None and self._take_header(text):
            self._count_line("headers")
            return None
        if frame is None:
            self._count_line("malformed" if _resembles_data(text) else "text")
        return frame

    def _labelled(self, line: bytes) -> SensorFrame | None:
        numbers = [math.nan] * N_CHANNELS
        seen: set[int] = set()
        pairs = line.split(b",")
        for pair in pairs:
            name, colon, value = pair.partition(b":")
            parsed = _number(value)
            if not colon or parsed is None or b"_" in value:
                return None
            channel = find_channel(name.decode())
            if channel in seen:
                return None  # two lines ran into each other
            if channel is not None:
                seen.add(channel)
                numbers[channel] = parsed
        # A boot message may well hold "name: number"; readings name mostly channels.
        if len(seen) * 2 < len(pairs) or not seen:
            return None
        return self._unnumbered_frame("labelled", numbers, None)

    def _row_of_numbers(self, line: bytes) -> SensorFrame | None:
        if b"_" in line:
            return None  # Python reads '1_000'; no board writes it, damaged bytes may
        fields = line.split(b",")
        columns = self._columns_for(len(fields))
        if columns is None:
            return None
        if columns.clock_field is not None and not columns.clock_is_ms:
            fields[columns.clock_field] = b""  # a date, or seconds: no clock to rely on
        numbers = _numbers(fields)
        if numbers is None:
            return None
        device_ms: int | None = None
        if columns.clock_is_ms and columns.clock_field is not None:
            clock = numbers[columns.clock_field]
            if not abs(clock) <= _MAX_TIMESTAMP_MS:
                return None
            device_ms = round(clock)
        if columns.channels != _TABLE_COLUMNS.channels:
            by_channel = [math.nan] * N_CHANNELS
            for channel, number in zip(columns.channels, numbers, strict=True):
                if channel is not None:
                    by_channel[channel] = number
            numbers = by_channel
        self._row = columns
        return self._unnumbered_frame("csv", numbers, device_ms)

    def _columns_for(self, n_fields: int) -> _Columns | None:
        """Return what a row of `n_fields` means under the latest header, None for a misfit."""
        if self._row is not None:
            return self._row if len(self._row.names) == n_fields else None
        if self._header is None:
            fits = self._headerless_allowed and n_fields == N_CHANNELS
            return _TABLE_COLUMNS if fits else None
        # Upstream's header promises a timestamp that its rows do not carry. The first row
        # decides; from then on a row with another number of fields is a damaged one.
        for columns in (self._header, self._header.without_clock()):
            if len(columns.names) == n_fields:
                return columns
        return None

    def _take_header(self, text: str) -> bool:
        """Take a line that names columns; return whether it was one."""
        names = tuple(name.strip() for name in text.removeprefix("\ufeff").split(","))
        if len(names) == 1 or any(_number(name.encode()) is not None for name in names if name):
            return False
        channels = tuple(find_channel(name) for name in names)
        clocks = [i for i, name in enumerate(names) if name.casefold() in _CLOCK_COLUMNS]
        known = [channel for channel in channels if channel is not None]
        recognised = (
            known
            and len(set(known)) == len(known)
            and len(clocks) <= 1
            and 2 * (len(known) + len(clocks)) >= len(names)
        )
        if not recognised:
            # Numbers below a header of other columns are not ours, even if there are twelve.
            if self._header is None and len(names) >= N_CHANNELS:
                self._headerless_allowed = False
            return False
        clock_field = clocks[0] if clocks else None
        clock_is_ms = (
            clock_field is not None and names[clock_field].casefold() == _TIMESTAMP_MS_COLUMN
        )
        header = _Columns(names, channels, clock_field, clock_is_ms)
        if header != self._header:
            self._header = header
            self._row = None
        return True

    def _unnumbered_frame(
        self, dialect: str, numbers: list[float], device_ms: int | None
    ) -> SensorFrame:
        changed = self._speaks(dialect)
        self._count_line("frames")
        values = _float32(numbers)
        frame = SensorFrame(self._unnumbered, device_ms, values, judge_range(values), None, changed)
        self._unnumbered += 1
        return frame


def judge_range(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what each channel's number is worth by itself.

    Parameters
    ----------
    values: float32[12] in the channel table's order.

    Returns
    -------
    uint8[12], read-only: OK, MISSING (NaN), SATURATED (at the channel's end of scale, or
    infinite) or OUT_OF_RANGE.
    """
    numbers = values.tolist()
    if all(map(le, _LOW, numbers)) and all(map(ge, _HIGH, numbers)):
        return _ALL_OK
    verdict = bytearray(N_CHANNELS)
    for index, number in enumerate(numbers):
        if not _LOW[index] <= number <= _HIGH[index]:
            verdict[index] = _judge_unbelievable(number, _SATURATES_AT[index])
    return np.frombuffer(bytes(verdict), np.uint8)


def _judge_unbelievable(number: float, saturates_at: float) -> int:
    if math.isnan(number):
        return _MISSING
    return _SATURATED if number >= saturates_at else _OUT_OF_RANGE


def _float32(numbers: list[float]) -> NDArray[np.float32]:
    """Return twelve numbers as a read-only float32[12]; too large a number becomes infinite."""
    try:
        packed = _FLOATS.pack(*numbers)
    except OverflowError:
        packed = _FLOATS.pack(
            *(
                math.copysign(math.inf, number) if abs(number) > _MAX_FLOAT32 else number
                for number in numbers
            )
        )
    return np.frombuffer(packed, np.float32)


def _numbers(fields: Sequence[bytes]) -> list[float] | None:
    """Return the fields as numbers, NaN for empty ones; None if any is not a number."""
    try:
        return list(map(float, fields))
    except ValueError:
        numbers = []
    for field in fields:
        number = _number(field)
        if number is None:
            return None
        numbers.append(number)
    return numbers


def _number(field: bytes) -> float | None:
    """Return a field as a number, NaN where it is empty, None where it is not a number."""
    try:
        number = float(field)
    except ValueError:
        field = field.strip()
        if not field:
            return math.nan
        # Arduino's Print writes 'ovf' for what does not fit its conversion: off the scale.
        return math.inf if field == b"ovf" else None
    return number


def _uint32(field: bytes) -> int | None:
    if not field.isdigit():
        return None
    number = int(field)
    return number if number < _UINT32 else None


def _printable(line: bytes) -> str | None:
    """Return the line as text, None if it holds bytes that text does not."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").replace("\t", " ")  # spreadsheets write the mark
    return text if text.isprintable() else None


def _resembles_data(text: str) -> bool:
    """Whether an unreadable line was probably a reading rather than a message."""
    if text.startswith("$"):
        return True
    fields = text.split(",")
    if len(fields) == 1:
        return False
    readable = sum(
        _number(field.rpartition(":")[2].encode()) is not None for field in fields if field
    )
    return readable * 2 >= len(fields)


# Encoding


def format_number(value: float) -> str:
    """Return the shortest decimal that reads back as the same float32; integers without '.0'.

    `scent_line.h` follows the same steps, so that both write the same bytes: whole numbers
    below 1e10 in full, others with the fewest of 6 to 9 significant digits. NaN is an empty
    string (absent), infinity 'inf' or '-inf'.
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    value = _as_float32(value)
    if value.is_integer() and abs(value) < 1e10:  # noqa: PLR2004 - stated in the docstring
        return f"{value:.0f}"
    for digits in (6, 7, 8):
        text = f"{value:.{digits}g}"
        if _as_float32(float(text)) == value:
            return text
    return f"{value:.9g}"


def _as_float32(value: float) -> float:
    try:
        (rounded,) = _ONE_FLOAT.unpack(_ONE_FLOAT.pack(value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def encode_scent(
    frame_seq: int,
    device_ms: int,
    values: Sequence[float] | NDArray[np.float32],
    *,
    version: int = 1,
    mq_volts: Sequence[float] | None = None,
) -> bytes:
    r"""Return one line of our own dialect, newline included.

    Parameters
    ----------
    frame_seq, device_ms: counters of the board; both wrap at 2**32, as the board's do.
    values: 12 numbers in the channel table's order and units; NaN becomes an empty field.
    version: 1, or 2 to append the volts at the MQ parts' pins.
    mq_volts: three voltages (MQ-135, MQ-9, MQ-3) for version 2; absent ones are NaN.

    Raises
    ------
    UsageError
        Wrong number of values or volts, or a version that does not exist.

    Examples
    --------
    >>> absent = float("nan")
    >>> encode_scent(7, 700, [216, 305, 494, 830, 2, 38, absent, 25.5, 1022.75, 28, 69.5, -48])
    b'$SCENT,1,7,700,216,305,494,830,2,38,,25.5,1022.75,28,69.5,-48*98FC\n'
    """
    if version not in (1, LATEST_VERSION):
        raise UsageError(
            f"The line protocol has versions 1 to {LATEST_VERSION}, not {version}; "
            "see docs/protocol.md."
        )
    fields = _formatted(values)
    if version == LATEST_VERSION:
        volts = [math.nan] * len(MQ_CHANNELS) if mq_volts is None else list(mq_volts)
        if len(volts) != len(MQ_CHANNELS):
            raise UsageError(
                f"A version 2 line carries {len(MQ_CHANNELS)} MQ voltages, got {len(volts)}."
            )
        fields += [format_number(volt) for volt in volts]
    elif mq_volts is not None:
        raise UsageError("A version 1 line has no room for MQ voltages; encode version 2.")
    head = f"SCENT,{version},{frame_seq % _UINT32},{device_ms % _UINT32},"
    body = (head + ",".join(fields)).encode()
    return b"$%s*%04X\n" % (body, crc16(body))


UPSTREAM_LABELS: tuple[str, ...] = tuple(
    {"C2H5OH": "C2H50H", "Gas_Resistance": "BME Gas Resistance (VOC)"}.get(name, name)
    for name in CHANNEL_NAMES
)
"""The channel names as the upstream firmware prints them."""


def encode_labelled(values: Sequence[float] | NDArray[np.float32]) -> bytes:
    """Return one line of the upstream dialect, in its spelling and with its line end."""
    pairs = (
        f"{label}:{text or 'nan'}"
        for label, text in zip(UPSTREAM_LABELS, _formatted(values), strict=True)
    )
    return (",".join(pairs) + "\r\n").encode()


def encode_csv_header(timestamps: bool = True) -> bytes:
    """Return the header line of a recording, with or without its `timestamp_ms` column."""
    names = (_TIMESTAMP_MS_COLUMN, *CHANNEL_NAMES) if timestamps else CHANNEL_NAMES
    return (",".join(names) + "\n").encode()


def encode_csv(
    values: Sequence[float] | NDArray[np.float32], timestamp_ms: int | None = None
) -> bytes:
    """Return one row of a recording; absent values are empty, infinity is 'inf'."""
    fields = _formatted(values)
    if timestamp_ms is not None:
        fields.insert(0, str(timestamp_ms))
    return (",".join(fields) + "\n").encode()


def _formatted(values: Sequence[float] | NDArray[np.float32]) -> list[str]:
    if len(values) != N_CHANNELS:
        raise UsageError(
            f"A line carries {N_CHANNELS} values in the channel table's order, got {len(values)}; "
            "use NaN for a channel that is absent."
        )
    return [format_number(float(value)) for value in values]
