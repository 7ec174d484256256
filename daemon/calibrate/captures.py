"""Daemon: the captures of clean air and of reference odours that a calibration is fitted to.

Each is an uncorrected recording in state_dir/calibration; an index beside them holds kinds and
labels. Knows files; the fits are in `calibration`.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import yaml

from hardware.checksum_line import CHECKSUM, checksum_is_right, with_checksum
from hardware.errors import ScentdError
from hardware.files import open_folder, read_regular, remove, write_atomically
from hardware.recording import RecordingError, read_recording
from hardware.typed_yaml import TypedYamlError, YamlMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from hardware.recording import Recording

INDEX = "captures.yaml"
FORMAT = 1

_FILE_NAME = re.compile(r"[a-z]+-[A-Za-z0-9]+-[0-9]+\.csv")

Kind = Literal["baseline", "reference"]
BASELINE: Kind = "baseline"
REFERENCE: Kind = "reference"

MAX_CAPTURES: dict[Kind, int] = {BASELINE: 10, REFERENCE: 60}
"""Captures of each kind that are kept; the oldest are removed."""


class CapturesError(ScentdError):
    """The captures of a calibration cannot be read, or are not sufficient."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One capture.

    Attributes
    ----------
    label: of the odour, None for clean air.
    file: name of its recording.
    taken: date and time, UTC.
    seconds: its length.
    """

    kind: Kind
    label: str | None
    file: str
    taken: str
    seconds: float

    def __post_init__(self) -> None:
        # The index is read from the disk, and the files that it names are removed.
        if _FILE_NAME.fullmatch(self.file) is None:
            raise ValueError(f"file must be the name of a capture, and {self.file!r} came")


@dataclass(frozen=True, slots=True)
class _Index:
    format: int
    captures: tuple[Captured, ...]


class Captures:
    """The captures of one rig, oldest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> tuple[Captured, ...]:
        """Return every capture; raise `CapturesError` if the index is damaged."""
        path = self.folder / INDEX
        try:
            data = read_regular(path)
            document = YamlMapping(data)
            if document.values.pop(CHECKSUM, None) and not checksum_is_right(data):
                raise CapturesError(self._damaged(path, "its checksum is wrong."))
            index = document.build(_Index)
        except FileNotFoundError:
            return ()
        except (OSError, TypedYamlError) as error:
            raise CapturesError(self._damaged(path, str(error))) from error
        if index.format != FORMAT:
            raise CapturesError(self._damaged(path, f"its format is {index.format}, not {FORMAT}."))
        return index.captures

    @staticmethod
    def _damaged(path: Path, why: str) -> str:
        return (
            f"The index of the calibration's captures, {path}, cannot be read: {why} Move it "
            "away and capture again, or restore it; the recordings beside it are complete."
        )

    def baselines(self) -> tuple[Captured, ...]:
        """Return the captures of clean air, oldest first; the newest is the rig's baseline."""
        return tuple(item for item in self.all() if item.kind == BASELINE)

    def references(self) -> tuple[Captured, ...]:
        """Return the captures of reference odours, oldest first."""
        return tuple(item for item in self.all() if item.kind == REFERENCE)

    def recording(self, captured: Captured) -> Recording:
        """Return a capture's readings; raise `CapturesError` if its file is lost or damaged."""
        try:
            return read_recording(self.folder / captured.file)
        except RecordingError as error:
            raise CapturesError(
                f"A capture of {captured.label or 'clean air'} cannot be used. {error} Put the "
                f"file back, or forget it (scentd calibrate forget {captured.label or ''}".rstrip()
                + ") and capture again."
            ) from error

    def keep(
        self, write: Callable[[Path], object], kind: Kind, label: str | None, seconds: float
    ) -> Captured:
        """Add a capture, and remove the oldest of its kind if there are too many.

        Clean air of several days shows the influence of humidity and temperature. `write` writes
        the recording to a path that does not exist yet.
        """
        os.close(open_folder(self.folder, create=True))
        now_s = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        number = 1
        while (path := self.folder / f"{kind}-{stamp}-{number}.csv").exists():
            number += 1
        write(path)
        captured = Captured(
            kind,
            label,
            path.name,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)),
            round(seconds, 1),
        )
        captures = (*self.all(), captured)
        self._remove(
            captures, [item for item in captures if item.kind == kind][: -MAX_CAPTURES[kind]]
        )
        return captured

    def forget(self, label: str | None = None) -> tuple[Captured, ...]:
        """Remove the captures of one reference odour, or all captures; return them."""
        captures = self.all()
        removed = tuple(item for item in captures if label is None or item.label == label)
        if label is not None and not removed:
            known = sorted({item.label for item in captures if item.label is not None})
            raise CapturesError(
                f"There is no reference of {label!r}. References: {', '.join(known) or 'none'}."
            )
        self._remove(captures, removed)
        return removed

    def _remove(self, captures: Iterable[Captured], removed: Collection[Captured]) -> None:
        """Write the index without some of the captures, then remove their files."""
        text = yaml.safe_dump(
            {
                "format": FORMAT,
                "captures": [asdict(item) for item in captures if item not in removed],
            },
            sort_keys=False,
            allow_unicode=True,
        )
        write_atomically(self.folder / INDEX, with_checksum(text.encode()))
        for item in removed:
            remove(self.folder / item.file)
