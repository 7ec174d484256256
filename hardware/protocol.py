"""Ground floor: the decoder of the board's line protocol.

May import the rest of this folder's line protocol and numpy. Must never open a port or a file,
read a clock, or raise on anything that a board sends: damage is counted by kind.

The dialect is recognised for every line, so that a board may reboot into its banner or return with
other firmware:

- ``scent``: ``$SCENT,<version>,<seq>,<device_ms>,<values>*<CRC-16 hex>``, see
  `docs/serial-protocol.md`;
- ``labelled``: the upstream firmware's ``name:value`` pairs;
- ``csv``: numbers under a header that names the columns, or exactly twelve numbers
  in the channel table's order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.channels import MQ_INDICES, N_CHANNELS, find_channel
from hardware.crc import crc16
from hardware.encoding import LATEST_VERSION
from hardware.frames import SensorFrame
from hardware.readings import float32_row, parse_number, parse_numbers, parse_uint32, range_quality
from hardware.sequence import FrameSequence
from hardware.table_rows import RowReader

if TYPE_CHECKING:
    from hardware.columns import Columns

MAX_LINE_BYTES = 4096
"""A line of any dialect is below 300 bytes; 4 KiB leaves room for long banners and bounds the
memory that a board without newlines can take."""

_START = b"$SCENT,"
_CRC_FIELD_BYTES = 5  # '*' and four hex digits
_SCENT_PREFIX_FIELDS = 4  # 'SCENT', version, sequence, clock
_VALUES_BY_VERSION = {b"1": N_CHANNELS, b"2": N_CHANNELS + len(MQ_INDICES)}


@dataclass(frozen=True, slots=True)
class LineCounts:
    """Counts of a decoder.

    Every line is exactly one of: a frame, a duplicate, blank, a header, text, or one of the kinds
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
    restarts: times the board's sequence started anew, or its dialect changed.
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


class LineDecoder:
    r"""Turn bytes into frames.

    Lines end at ``\n``, ``\r\n`` or a lone ``\r``. How the bytes are split into calls of `feed`
    makes no difference to the frames or the counts.

    Parameters
    ----------
    rows: reads the CSV dialect; by default as a live board's.
    max_line_bytes: a longer line is dropped.

    Examples
    --------
    >>> decoder = LineDecoder()
    >>> decoder.feed(b"Setting up sensors...\n$SCENT,1,7,700,216,305,494,830,2,38,,25.5,")
    []
    >>> [frame] = decoder.feed(b"1022.75,28,69.5,-48*98FC\n")
    >>> frame.device_ms, float(frame.values[0]), decoder.counts.text
    (700, 216.0, 1)
    """

    def __init__(
        self, rows: RowReader | None = None, *, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        self._pending = b""
        self._overlong = False
        self._after_cr = False
        self._tally: dict[str, int] = dict.fromkeys(LineCounts.__dataclass_fields__, 0)
        self._dialect: str | None = None
        self._sequence = FrameSequence()
        self._unnumbered = 0
        self._max_line_bytes = max_line_bytes
        self._rows = RowReader() if rows is None else rows

    @property
    def counts(self) -> LineCounts:
        """The counts so far."""
        return LineCounts(**self._tally)

    @property
    def dialect(self) -> str | None:
        """The dialect of the latest frame: 'scent', 'labelled' or 'csv'; None before any."""
        return self._dialect

    @property
    def next_number(self) -> int:
        """The number of the next frame, in the dialects that number none: damaged rows count."""
        return self._unnumbered

    @property
    def columns(self) -> Columns | None:
        """The columns of the CSV dialect's latest header, None before any."""
        return self._rows.columns

    @property
    def problem(self) -> str | None:
        """Why rows of the CSV dialect are refused, as a clause; None while none was."""
        return self._rows.problem

    def feed(self, data: bytes) -> list[SensorFrame]:
        """Decode any number of bytes and return the frames that they complete."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        frames: list[SensorFrame] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            self._end_line(frames)
            start = end + 1
        self._append(data[start:])
        return frames

    def finish(self) -> list[SensorFrame]:
        """Return the frame of a last line without a newline; more bytes may follow."""
        frames: list[SensorFrame] = []
        if self._pending or self._overlong:
            self._end_line(frames)
        self._after_cr = False
        return frames

    def drop_partial_line(self) -> None:
        """Drop a last line without a newline, which is known to be incomplete."""
        self._pending = b""
        self._overlong = False

    # Lines

    def _append(self, piece: bytes) -> None:
        """Append to the pending line, or drop it once it is too long."""
        if self._overlong:
            return
        if len(self._pending) + len(piece) > self._max_line_bytes:
            self._pending = b""
            self._overlong = True
            self._rows.lose_line()
            self._count_line("overlong")
        elif piece:
            self._pending += piece

    def _end_line(self, frames: list[SensorFrame]) -> None:
        line, self._pending = self._pending, b""
        if self._overlong:
            self._overlong = False
            return
        # A line of our dialect may follow an incomplete one without a newline between them.
        start = 0
        while (inner := line.find(_START, start + 1)) > 0:
            self._decode_into(frames, line[start:inner])
            start = inner
        self._decode_into(frames, line[start:])

    def _decode_into(self, frames: list[SensorFrame], line: bytes) -> None:
        if not line.strip():
            self._count_line("blank")
            return
        line = line.strip(b" \r\n\f\v")  # a tab may separate an empty field
        frame = self._scent(line) if line.startswith(_START) else self._plain(line)
        if frame is not None:
            frames.append(frame)

    def _count_line(self, kind: str) -> None:
        self._tally["lines"] += 1
        self._tally[kind] += 1

    def _set_dialect(self, dialect: str) -> bool:
        """Set the dialect of an intact line; return whether the board changed to it."""
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
        seq = parse_uint32(fields[2])
        device_ms = (
            parse_uint32(fields[3]) if len(fields) == _SCENT_PREFIX_FIELDS + n_values else None
        )
        numbers = parse_numbers(fields[_SCENT_PREFIX_FIELDS:])
        if seq is None or device_ms is None or numbers is None:
            self._count_line("malformed")
            return None
        return self._scent_frame(seq, device_ms, numbers)

    def _scent_frame(self, seq: int, device_ms: int, numbers: list[float]) -> SensorFrame | None:
        changed = self._set_dialect("scent")
        step = self._sequence.advance(seq, device_ms)
        if step is None:
            self._count_line("duplicates")
            return None
        self._count_line("frames")
        self._tally["lost"] += step.lost
        self._tally["restarts"] += step.restarted
        volts = numbers[N_CHANNELS:]
        values = float32_row(numbers[:N_CHANNELS])
        return SensorFrame(
            seq,
            device_ms,
            values,
            range_quality(values),
            step.lost,
            step.restarted or changed,
            (volts[0], volts[1], volts[2]) if volts else None,
        )

    # The dialects without checksum or sequence

    def _plain(self, line: bytes) -> SensorFrame | None:
        frame = self._labelled(line) if b":" in line else None
        if frame is None:  # a row may contain a colon, in a date
            row = self._rows.read(line)
            if row is not None:
                return self._unnumbered_frame("csv", row.numbers, row.time_ms)
        if frame is not None:
            return frame
        if self._rows.read_header(line):
            self._count_line("headers")
            return None
        text = _printable(line)
        if text is None:
            self._count_line("binary")
        elif _resembles_data(text) or self._rows.resembles_row(line):
            self._count_line("malformed")
            self._unnumbered += self._dialect in {"csv", "labelled"}  # its time stays
        else:
            self._count_line("text")
            self._sequence.see_message()
        return None

    def _labelled(self, line: bytes) -> SensorFrame | None:
        numbers = [math.nan] * N_CHANNELS
        seen: set[int] = set()
        pairs = line.split(b",")
        for pair in pairs:
            name, colon, value = pair.partition(b":")
            parsed = parse_number(value)
            if not colon or parsed is None or b"_" in value:
                return None
            channel = find_channel(name.decode("utf-8", "replace"))
            if channel in seen:
                return None  # two lines without a newline between them
            if channel is not None:
                seen.add(channel)
                numbers[channel] = parsed
        # A boot message may contain "name: number"; a reading names mostly channels.
        if len(seen) * 2 < len(pairs) or not seen:
            return None
        return self._unnumbered_frame("labelled", numbers, None)

    def _unnumbered_frame(
        self, dialect: str, numbers: list[float], device_ms: int | None
    ) -> SensorFrame:
        changed = self._set_dialect(dialect)
        self._count_line("frames")
        values = float32_row(numbers)
        frame = SensorFrame(
            self._unnumbered, device_ms, values, range_quality(values), None, changed
        )
        self._unnumbered += 1
        return frame


def _printable(line: bytes) -> str | None:
    """Return the line as text, None if it is not printable text."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").replace("\t", " ").replace("\u00a0", " ")
    return text if text.isprintable() else None


def _resembles_data(text: str) -> bool:
    """Whether an unreadable line was probably a reading rather than a message."""
    if text.startswith("$"):
        return True
    pairs = text.split(",")
    if len(pairs) == 1:
        return False
    readable = sum(
        parse_number(pair.rpartition(":")[2].encode()) is not None for pair in pairs if pair
    )
    return readable * 2 >= len(pairs)
