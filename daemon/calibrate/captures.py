"""Daemon: what a rig's calibration is fitted to: captures of clean air and of reference odours.

Each is a recording, as the board sent it, in state_dir/calibration, with an index beside them
that says what it is of. Knows files; what is made of them is `calibration`'s.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import yaml

from hardware.errors import ScentdError
from hardware.files import write_atomically
from hardware.recording import RecordingError, read_recording
from hardware.typed_yaml import TypedYamlError, YamlMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hardware.recording import Recording

INDEX = "captures.yaml"
FORMAT = 1

Kind = Literal["baseline", "reference"]
BASELINE: Kind = "baseline"
REFERENCE: Kind = "reference"

MOST: dict[Kind, int] = {BASELINE: 10, REFERENCE: 60}
"""Captures kept of each kind."""


class CapturesError(ScentdError):
    """The captures of a calibration cannot be read, or are not those that are needed."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One capture.

    Attributes
    ----------
    kind: clean air (`baseline`) or a reference odour.
    label: of the odour, None of clean air.
    file: its recording, beside the index.
    taken: when, UTC, seconds.
    seconds: how long it is.
    """

    kind: Kind
    label: str | None
    file: str
    taken: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Index:
    format: int
    captures: tuple[Captured, ...]


class Captures:
    """The captures of one rig, oldest first.

    Parameters
    ----------
    folder : Path
        Made with the first capture.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> tuple[Captured, ...]:
        """Return every capture.

        Raises
        ------
        CapturesError
            If the index is damaged.
        """
        path = self.folder / INDEX
        try:
            index = YamlMapping(path.read_bytes()).build(_Index)
        except FileNotFoundError:
            return ()
        except TypedYamlError as error:
            raise CapturesError(self._damaged(path, str(error))) from error
        if index.format != FORMAT:
            raise CapturesError(self._damaged(path, f"its format is {index.format}, not {FORMAT}."))
        return index.captures

    @staticmethod
    def _damaged(path: Path, told: str) -> str:
        return (
            f"The index of the calibration's captures, {path}, cannot be read: {told} Move it "
            "away and capture again, or put back what was there; the recordings beside it are "
            "whole."
        )

    def baselines(self) -> tuple[Captured, ...]:
        """Return the captures of clean air, oldest first; the newest is the rig's baseline."""
        return tuple(item for item in self.all() if item.kind == BASELINE)

    def references(self) -> tuple[Captured, ...]:
        """Return the captures of reference odours, oldest first."""
        return tuple(item for item in self.all() if item.kind == REFERENCE)

    def recording(self, captured: Captured) -> Recording:
        """Return a capture's readings.

        Raises
        ------
        CapturesError
            If its file is gone or damaged.
        """
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
        """Keep one more capture.

        Clean air of several days tells what humidity and warmth do; the oldest gives way.

        Parameters
        ----------
        write : callable
            Writes the recording to the path it is given, which is not there yet.
        kind, label, seconds
            As in `Captured`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
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
        there = (*self.all(), captured)
        too_old = [item for item in there if item.kind == kind][: -MOST[kind]]
        self._save(tuple(item for item in there if item not in too_old))
        self._remove(too_old)
        return captured

    def forget(self, label: str | None = None) -> tuple[Captured, ...]:
        """Remove the captures of one reference odour, or all there are; return what went.

        Raises
        ------
        CapturesError
            If there is no reference of that label.
        """
        there = self.all()
        gone = tuple(item for item in there if label is None or item.label == label)
        if label is not None and not gone:
            known = sorted({item.label for item in there if item.label is not None})
            raise CapturesError(
                f"There is no reference of {label!r}. There are: {', '.join(known) or 'none'}."
            )
        self._save(tuple(item for item in there if item not in gone))
        self._remove(gone)
        return gone

    def _save(self, captures: tuple[Captured, ...]) -> None:
        text = yaml.safe_dump(
            {"format": FORMAT, "captures": [asdict(item) for item in captures]},
            sort_keys=False,
            allow_unicode=True,
        )
        write_atomically(self.folder / INDEX, text.encode())

    def _remove(self, captures: Iterable[Captured]) -> None:
        for item in captures:
            (self.folder / item.file).unlink(missing_ok=True)
