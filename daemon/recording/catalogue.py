"""Daemon: the recordings of a rig for people: list, curve, labels, cut, export.

Used by `scentd recordings` and by the page. Works on the files of one folder alone: a recording is
named by its file name, and neither a path nor a link leads out of the folder. Without numpy, and
never a whole recording in memory: the page's process is small.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES
from hardware.errors import ScentdError, UsageError
from hardware.files import remove, write_atomically
from hardware.labels import folder_name
from hardware.recording_labels import (
    LEAD_MS,
    LabelledStretch,
    LabelsError,
    RecordingLabels,
    change_labels,
    read_labels,
    write_labels,
)
from hardware.recording_rows import OWN_HEADER, read_rows, rows_between, values_of
from hardware.segment_names import parse_segment_name, recording_date

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MOST_POINTS = 600
"""Most points of a channel's curve; a screen shows fewer."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.csv(\.gz)?")

_COMPRESSED = ".gz"


class CatalogueError(ScentdError):
    """What was asked of the recordings cannot be done."""


@dataclass(frozen=True, slots=True)
class ListedRecording:
    """One recording of the folder.

    Attributes
    ----------
    name: of the file.
    bytes: on the disk.
    session: the UTC day in its name; the name up to the first dot where there is none.
    is_segment: whether the service's continuous recording wrote it.
    labels: what is labelled in it; none where the labels cannot be read.
    problem: why they cannot be read, None if they can.
    """

    name: str
    bytes: int
    session: str
    is_segment: bool
    labels: RecordingLabels
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A recording in few points.

    Attributes
    ----------
    first_ms, last_ms, readings: of the whole recording, or of the part that was asked for.
    t_ms: the mean time of every point.
    channels: the mean of every channel that has any value, by its name; None where it has none.
    """

    first_ms: int
    last_ms: int
    readings: int
    t_ms: tuple[int, ...]
    channels: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    files: paths below the target, LABEL/SESSION/NAME.csv, with the readings in each.
    unlabelled: recordings without any label, which were left out.
    """

    files: dict[str, int]
    unlabelled: tuple[str, ...]


class Catalogue:
    """The recordings of one folder.

    Parameters
    ----------
    folder: of the recordings; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the file of a recording, plain or compressed meanwhile.

        Raises
        ------
        CatalogueError: the name is none of a recording, or there is none of it.
        """
        if _NAME.fullmatch(name):
            plain = name.removesuffix(_COMPRESSED)
            for candidate in (plain, plain + _COMPRESSED):
                path = self.folder / candidate
                if path.is_file() and not path.is_symlink():
                    return path
        raise CatalogueError(
            f"There is no recording {name[:200]!r} in {self.folder.name}. "
            "`scentd recordings list` shows their names."
        )

    def list(self) -> list[ListedRecording]:
        """Return the recordings, the newest first; other files are passed over."""
        if not self.folder.is_dir():
            return []
        return [
            _listed(path)
            for path in sorted(self.folder.iterdir(), key=_age, reverse=True)
            if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        ]

    def chosen(self, names: Iterable[str] | None) -> Sequence[ListedRecording]:
        """Return the recordings of these names, all by default.

        Raises
        ------
        CatalogueError: there is no recording of a name.
        """
        listed = {item.name: item for item in self.list()}
        if names is None:
            return list(listed.values())
        return [listed[self.path(name).name] for name in names]

    def labels(self, name: str) -> RecordingLabels:
        """Return what is labelled in a recording.

        Raises
        ------
        CatalogueError, LabelsError: there is no such recording, or its labels are damaged.
        """
        return read_labels(self.path(name))

    def curve(
        self,
        name: str,
        points: int = 240,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Curve:
        """Return a recording, or a part of it, in at most so many points.

        The file is read twice, so that it never lies in memory as a whole.

        Raises
        ------
        CatalogueError, RowsError: there is no such recording or part, or it cannot be read.
        """
        path = self.path(name)
        first_ms, last_ms, readings = _extent(_part(path, start_ms, end_ms), path)
        points = max(1, min(points, MOST_POINTS, readings))
        bins = [_Bin() for _ in range(points)]
        span_ms = last_ms - first_ms + 1
        for t_ms, line in _part(path, start_ms, end_ms):
            bins[min(points - 1, (t_ms - first_ms) * points // span_ms)].add(t_ms, line)
        filled = [part for part in bins if part.count]
        channels = {}
        for place, channel in enumerate(CHANNEL_NAMES):
            means = tuple(part.mean(place) for part in filled)
            if any(value is not None for value in means):
                channels[channel] = means
        times = tuple(part.t_ms // part.count for part in filled)
        return Curve(first_ms, last_ms, readings, times, channels)

    def label(
        self, name: str, start_ms: int, end_ms: int, label: str | None, author: str = ""
    ) -> RecordingLabels:
        """Label a stretch of a recording, or with None remove the labels there.

        Raises
        ------
        CatalogueError, LabelsError, UsageError: no such recording, or no such stretch or label.
        """
        path = self.path(name)
        if label is None:
            return change_labels(path, lambda labels: labels.without(start_ms, end_ms))
        text = label.strip()
        try:
            stretch = LabelledStretch(start_ms, end_ms, text, author)
        except ValueError as error:
            raise LabelsError(f"This stretch cannot be labelled: {error}.") from error
        return change_labels(path, lambda labels: labels.with_stretch(stretch))

    def cut(self, name: str, start_ms: int, end_ms: int, target: str | None = None) -> str:
        """Write a part of a recording into a new one of the folder, and return its name.

        Its rows keep their times, and its part of the labels goes with it.

        Raises
        ------
        CatalogueError: no such recording, no reading there, or the new one exists already.
        """
        path = self.path(name)
        stem = path.name.removesuffix(_COMPRESSED).removesuffix(".csv").removesuffix(".live")
        target = target or f"{stem}-{start_ms}-{end_ms}.csv"
        if not _NAME.fullmatch(target) or target.endswith(_COMPRESSED):
            raise UsageError(
                f"Expected the name of a recording such as coffee.csv, without a folder; got "
                f"{target[:200]!r}."
            )
        new = self.folder / target
        if new.exists() or new.is_symlink():
            raise CatalogueError(f"{target} exists already. Choose another name, or remove it.")
        labels = read_labels(path).between(start_ms, end_ms)
        _write_rows(new, _part(path, start_ms, end_ms), path)
        write_labels(new, labels)
        return target

    def remove(self, name: str) -> None:
        """Remove a recording and its labels.

        Raises
        ------
        CatalogueError: there is no such recording.
        """
        path = self.path(name)
        remove(path)
        write_labels(path, RecordingLabels())

    def export(
        self, target: Path, names: Iterable[str] | None = None, *, session: str | None = None
    ) -> Exported:
        """Write every labelled stretch as `target`/LABEL/SESSION/*.csv, as the trainer reads it.

        Up to a minute of unlabelled readings before a stretch goes with it: the clean air above
        which its smell lies.

        Parameters
        ----------
        target: a folder, made if it is missing; files of earlier exports are written anew.
        names: of recordings; all by default.
        session: of all of them, by default that of each.

        Raises
        ------
        CatalogueError: nothing is labelled.
        ScentdError, OSError: a recording or its labels cannot be read, or a file be written.
        """
        sessions = {item.name: item.session for item in self.chosen(names)}
        files: dict[str, int] = {}
        unlabelled = []
        for paths in _runs([self.folder / name for name in sessions]):
            stretches: list[LabelledStretch] = []
            for path in paths:
                own = read_labels(path).stretches
                unlabelled += [] if own else [path.name]
                stretches += own
            labels = RecordingLabels.of(stretches)
            for stretch in labels.stretches:
                place = _exported_name(stretch, paths[0], session or sessions[paths[0].name])
                rows = rows_between(paths, labels.lead_start_ms(stretch, LEAD_MS), stretch.end_ms)
                files[place] = _write_rows(target / place, rows, paths[0])
        if not files:
            raise CatalogueError(
                "Nothing is labelled in these recordings, so there is nothing to export. "
                "`scentd recordings label NAME START END LABEL` labels a stretch."
            )
        return Exported(files, tuple(unlabelled))


class _Bin:
    """The sums of some successive readings."""

    __slots__ = ("count", "counts", "sums", "t_ms")

    def __init__(self) -> None:
        self.count = self.t_ms = 0
        self.sums = [0.0] * len(CHANNEL_NAMES)
        self.counts = [0] * len(CHANNEL_NAMES)

    def add(self, t_ms: int, line: bytes) -> None:
        self.count += 1
        self.t_ms += t_ms
        for place, value in enumerate(values_of(line)):
            if value is not None and math.isfinite(value):
                self.sums[place] += value
                self.counts[place] += 1

    def mean(self, place: int) -> float | None:
        return None if not self.counts[place] else round(self.sums[place] / self.counts[place], 4)


def _age(path: Path) -> tuple[bool, float | tuple[int, int], str]:
    """Return what orders recordings: the service's by run and number, others by their age."""
    place = parse_segment_name(path)
    if place is not None:
        return True, place, path.name
    try:
        return False, path.lstat().st_mtime, path.name
    except OSError:
        return False, 0.0, path.name


def _runs(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield the recordings, the oldest first; consecutive segments of one run are one recording."""
    joined: list[Path] = []
    for path in sorted(paths, key=_age):
        place, before = parse_segment_name(path), joined and parse_segment_name(joined[-1])
        if joined and not (place and before and place == (before[0], before[1] + 1)):
            yield joined
            joined = []
        joined.append(path)
    if joined:
        yield joined


def _exported_name(stretch: LabelledStretch, recording: Path, session: str) -> str:
    """Return LABEL/SESSION/NAME of a stretch."""
    stem = recording.name.removesuffix(_COMPRESSED).removesuffix(".csv").removesuffix(".live")
    name = f"{stem}-{stretch.start_ms}.csv"
    return "/".join((folder_name(stretch.label), folder_name(session), name))


def _is_segment(path: Path) -> bool:
    return parse_segment_name(path) is not None


def _listed(path: Path) -> ListedRecording:
    labels, problem = RecordingLabels(), None
    try:
        labels = read_labels(path)
    except LabelsError as error:
        problem = str(error)
    session = recording_date(path) or path.name.split(".", maxsplit=1)[0]
    return ListedRecording(
        path.name, path.lstat().st_size, session, _is_segment(path), labels, problem
    )


def _part(path: Path, start_ms: int | None, end_ms: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of a recording between two times, both included."""
    for t_ms, line in read_rows(path):
        if end_ms is not None and t_ms > end_ms:
            return
        if start_ms is None or t_ms >= start_ms:
            yield t_ms, line


def _extent(rows: Iterator[tuple[int, bytes]], path: Path) -> tuple[int, int, int]:
    """Return the first and last time of rows, and how many there are."""
    first_ms = last_ms = None
    readings = 0
    for t_ms, _ in rows:
        first_ms = t_ms if first_ms is None else first_ms
        last_ms = t_ms
        readings += 1
    if first_ms is None or last_ms is None:
        raise CatalogueError(f"There are no readings in this part of {path.name}.")
    return first_ms, last_ms, readings


def _write_rows(new: Path, rows: Iterator[tuple[int, bytes]], source: Path) -> int:
    """Write rows as a recording; return how many there were."""
    lines = [line for _, line in rows]
    if not lines:
        raise CatalogueError(f"There are no readings in this part of {source.name}.")
    write_atomically(new, OWN_HEADER + b"".join(lines))
    return len(lines)
