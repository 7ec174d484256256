"""Daemon: a file of JSON objects, one a line, to which is only appended; bounded.

Knows files of state, but no announcement and no clock.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from hardware.files import FILE_MODE, open_regular, read_regular, write_atomically
from hardware.safe_json import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.system.background import Data


class Journal:
    """An append-only file that keeps at least its newest `most` records.

    Parameters
    ----------
    path: of the file; made with the first record.
    most: records kept. The file is written anew when it holds twice as many.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._count = 0
        self._torn = False

    def read(self) -> list[Data]:
        """Return the newest records, the oldest first; a damaged line is left out.

        Raises
        ------
        OSError: the file is there and cannot be read.
        """
        try:
            content = read_regular(self._path)
        except FileNotFoundError:
            content = b""
        lines = content.split(b"\n")
        # After a power cut the last line may have no end: the next record begins a new one.
        self._torn = bool(lines.pop())
        self._count = len(lines)
        return [record for line in lines[-self._most :] if (record := _record(line)) is not None]

    def append(self, record: Data, *, durable: bool) -> None:
        """Append a record; `durable` waits until the disk has it.

        Raises
        ------
        OSError: the disk refuses, or a link lies on the way.
        """
        line = _line(record)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = open_regular(self._path, flags, FILE_MODE)
        try:
            # One write of the operating system: a killed process leaves no half of a line.
            os.write(descriptor, b"\n" + line if self._torn else line)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._torn = False
        self._count += 1
        if self._count > 2 * self._most:
            kept = self.read()
            write_atomically(self._path, b"".join(map(_line, kept)))
            self._count = len(kept)


def _line(record: Data) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _record(line: bytes) -> Data | None:
    try:
        record = read_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
