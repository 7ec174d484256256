"""Daemon: reads the messages of a damaged outbox without SQLite, and counts those that are lost.

Every row has a checksum of its own, so rows are recognised wherever they lie, whatever has become
of the structure around them. Two formats of SQLite are read here, the record of a table and the
write-ahead log: https://www.sqlite.org/fileformat2.html, sections 2.1, 1.6 and 4.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.mqtt.outbox_rows import Tally, entry_of, stored_tally, tally_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.mqtt.outbox_values import Entry

PAGE_BYTES = 4096
"""Of every outbox: SQLite's default, and set when the file is made."""

_WAL_HEADER = 32
_FRAME_HEADER = 24
_SLOT = _FRAME_HEADER + PAGE_BYTES
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_STALE_LOGS = 1000
"""A log that is begun again counts its first salt up by one; what lies behind its end is older."""

_MESSAGE_COLUMNS, _TALLY_COLUMNS = 10, 4

_LOCAL_MOST = PAGE_BYTES - 35
_LOCAL_LEAST = (PAGE_BYTES - 12) * 32 // 255 - 23
_INT = rb"[\x01-\x06\x08\x09]"
_SIZED = rb"(?:[\x0c-\x7f]|[\x80-\xff][\x00-\x7f]|[\x80-\xff]{2}[\x00-\x7f])"
_RECORD = re.compile(
    # The length of a record's header, then the types of its values: the id is kept elsewhere and
    # stands as NULL. Inside a look-ahead, so that a chance match hides no true one.
    rb"(?=[\x0b-\x0f]\x00" + _INT * 2 + _SIZED + _INT * 2 + _SIZED + _INT * 3 + rb"|\x05\x00"
    + _INT * 3 + rb")",
    re.DOTALL,
)  # fmt: skip


class Salvaged:
    """What can be read of a damaged outbox.

    Attributes
    ----------
    ids: of the messages that are intact, ascending.
    lost: messages that the file held and that are not among them, as far as it still tells.
    """

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._places: dict[int, tuple[int, int]] = {}
        newest = tally = Tally(0, 0)
        damaged: set[int] = set()
        for image, start, row in pages.rows():
            if len(row) == _TALLY_COLUMNS:
                tally = max(tally, stored_tally(row) or tally, key=lambda one: one.newest)
            elif (entry := entry_of(row)) is not None:
                newest = max(newest, tally_of(row) or newest, key=lambda one: one.newest)
                self._places.setdefault(entry.id, (image, start))
            else:
                damaged.add(row[0])
        # What lies below the oldest was delivered before, and only its bytes are still there.
        self.ids = sorted(one for one in self._places if one >= newest.oldest)
        if tally.newest > newest.newest:
            self.lost = max(0, tally.held - len(self.ids))
            return
        missing = max(0, newest.held - len(self.ids))
        newer = sum(newest.newest + n in damaged for n in range(1, len(damaged) + 1))
        # The damage may lie in the id itself: a row that seems newer may be one that is missing.
        explained = min(newer, max(0, missing - (len(damaged) - newer)))
        self.lost = missing + newer - explained

    def entries(self) -> Iterator[Entry]:
        """Yield the intact messages in order, while the file is open."""
        for entry_id in self.ids:
            image, start = self._places[entry_id]
            entry = entry_of(self._pages.record(self._pages.read(image), start))
            if entry is not None:
                yield entry


@contextmanager
def salvaged(path: Path, log: Path) -> Iterator[Salvaged]:
    """Open a damaged outbox, and its write-ahead log, for reading; raise no error but OSError."""
    descriptors = [_open_regular(path), _open_regular(log)]
    try:
        yield Salvaged(_Pages(*descriptors))
    finally:
        for descriptor in filter(None, descriptors):
            os.close(descriptor)


def log_is_whole(log: Path) -> bool:
    """Tell whether SQLite will read all of a write-ahead log.

    It stops, silently, at the first frame whose checksum is wrong. That is right for the end that a
    power cut left, but what lies behind a damaged frame would be lost without being counted.
    """
    descriptor = _open_regular(log)
    if descriptor is None:
        return True
    try:
        frames = list(_frames(descriptor))
        return not frames or all(frame.sound for frame in frames)
    finally:
        os.close(descriptor)


class _Frame(NamedTuple):
    """One page in the log: its number, where it begins, and whether its checksum is right."""

    page: int
    start: int
    sound: bool


class _Pages:
    """The pages of a file and of its log, by the number of their image.

    The images below `_log_from` are the file's own pages.
    """

    def __init__(self, file: int | None, log: int | None) -> None:
        self._file, self._log = file, log
        size = 0 if file is None else os.fstat(file).st_size
        self._log_from = -(-size // PAGE_BYTES)
        frames = [] if log is None else list(_frames(log))
        self._starts = [frame.start for frame in frames]
        self._image_of: dict[int, int] = {}
        superseded: set[int] = set()
        by_page: dict[int, list[int]] = defaultdict(list)
        for number in range(self._log_from):
            by_page[number + 1].append(number)
        for number, frame in enumerate(frames, start=self._log_from):
            if frame.sound:
                # The newest sound version of a page is the only one needed.
                superseded.update(by_page[frame.page])
                by_page[frame.page] = []
            by_page[frame.page].append(number)
        for page, images in by_page.items():
            if images:
                self._image_of[page] = images[-1]
        self._images = [n for n in range(self._log_from + len(frames)) if n not in superseded]

    def rows(self) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """Yield everything that has the form of a row, intact or not, the newest images first.

        With every row its image, and where in it the row's record begins.
        """
        for image in reversed(self._images):
            data = self.read(image)
            for match in _RECORD.finditer(data):
                if row := self.record(data, match.start()):
                    yield image, match.start(), row

    def read(self, image: int) -> bytes:
        """Return the bytes of an image."""
        if image < self._log_from:
            return b"" if self._file is None else _read(self._file, PAGE_BYTES, image * PAGE_BYTES)
        start = self._starts[image - self._log_from]
        return b"" if self._log is None else _read(self._log, PAGE_BYTES, start)

    def record(self, data: bytes, start: int) -> tuple[Any, ...]:
        """Return the values of the record whose header begins at `start` of a page's bytes.

        Empty if they cannot be read.
        """
        header_end = start + data[start]
        types, place = [], start + 1
        while place < header_end and place < len(data):
            kind, place = _varint(data, place)
            types.append(kind)
        if place != header_end or len(types) not in (_TALLY_COLUMNS, _MESSAGE_COLUMNS):
            return ()
        sizes = [_size_of(kind) for kind in types]
        length = data[start] + sum(sizes)
        content = self._content(data, start, length)
        row_id = _varint_before(data, start)
        if content is None or row_id is None:
            return ()
        values: list[Any] = [row_id]
        place = data[start] + sizes[0]
        for kind, size in zip(types[1:], sizes[1:], strict=True):
            values.append(_value(kind, content[place : place + size]))
            place += size
        return tuple(values)

    def _content(self, data: bytes, start: int, length: int) -> bytes | None:
        """Return a record's bytes, those on overflow pages included."""
        if length <= _LOCAL_MOST:
            content = data[start : start + length]
            return content if len(content) == length else None
        surplus = _LOCAL_LEAST + (length - _LOCAL_LEAST) % (PAGE_BYTES - 4)
        local = surplus if surplus <= _LOCAL_MOST else _LOCAL_LEAST
        parts, left = [data[start : start + local]], length - local
        following = data[start + local : start + local + 4]
        while left > 0:
            image = self._image_of.get(int.from_bytes(following, "big"))
            if image is None or len(parts) > length // (PAGE_BYTES - 4) + 1:
                return None
            page = self.read(image)
            following, part = page[:4], page[4 : 4 + left]
            parts.append(part)
            left -= len(part) or left
        content = b"".join(parts)
        return content if len(content) == length else None


def _frames(descriptor: int) -> Iterator[_Frame]:
    """Yield the frames of a log up to the last that was written, sound or not."""
    header = _read(descriptor, _WAL_HEADER, 0)
    if len(header) < _WAL_HEADER:
        return
    magic, _, _, _, salt, other_salt, *stored = struct.unpack(">8I", header)
    order = _MAGIC.get(magic, "<")
    running = _log_checksum(order, header[:24], (0, 0))
    sound = magic in _MAGIC and running == tuple(stored)
    count = (os.fstat(descriptor).st_size - _WAL_HEADER) // _SLOT
    for number in range(count):
        start = _WAL_HEADER + number * _SLOT
        frame = _read(descriptor, _SLOT, start)
        page, _, first, second, *stored = struct.unpack(">6I", frame[:_FRAME_HEADER])
        stale = second != other_salt and 0 < (salt - first) & 0xFFFFFFFF < _STALE_LOGS
        # Behind its end a file may have zeros after a power cut, or frames of an earlier log.
        if stale or not frame.strip(b"\0"):
            continue
        running = _log_checksum(
            order, frame[_FRAME_HEADER:], _log_checksum(order, frame[:8], running)
        )
        same = running == tuple(stored) and (first, second) == (salt, other_salt)
        yield _Frame(page, start + _FRAME_HEADER, sound and same)
        running = (stored[0], stored[1])  # so that the frames behind a damaged one are recognised


def _log_checksum(order: str, data: bytes, before: tuple[int, int]) -> tuple[int, int]:
    first, second = before
    for one, two in struct.iter_unpack(f"{order}2I", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return SQLite's variable-length integer at `start`, and where it ends."""
    value = 0
    for place in range(start, min(start + 8, len(data))):
        value = value << 7 | data[place] & 0x7F
        if data[place] < 0x80:  # noqa: PLR2004 - the last byte of the number
            return value, place + 1
    ninth = data[start + 8 : start + 9]
    return (value << 8 | ninth[0] if ninth else value), start + 9


def _varint_before(data: bytes, end: int) -> int | None:
    """Return the variable-length integer that ends at `end`, None if there is none."""
    start = end - 1
    while start > 0 and end - start < 9 and data[start - 1] >= 0x80:  # noqa: PLR2004 - as above
        start -= 1
    if start < 0:
        return None
    value, after = _varint(data, start)
    if after != end:
        return None
    return value - (1 << 64) if value >= 1 << 63 else value


_INT_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)


def _size_of(kind: int) -> int:
    """Return the bytes of a value, given its serial type."""
    return _INT_SIZES[kind] if kind < len(_INT_SIZES) else (kind - 12) // 2


def _value(kind: int, data: bytes) -> int | bytes:
    if kind in (8, 9):  # the constants 0 and 1
        return kind - 8
    return int.from_bytes(data, "big", signed=True) if kind < len(_INT_SIZES) else data


def _open_regular(path: Path) -> int | None:
    """Open a file for reading; None if it does not exist or is no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _read(descriptor: int, size: int, start: int) -> bytes:
    """Return up to `size` bytes; a sector that the card cannot read is as good as zeros."""
    try:
        return os.pread(descriptor, size, start)
    except OSError:
        return bytes(size)
