"""Ground floor: labels of a recording, which say from when to when which smell was there; in YAML.

The file lies beside the recording: `coffee.csv.labels.yaml` for `coffee.csv` and `coffee.csv.gz`.
Times are those of the rows (`timestamp_ms`). Stretches do not overlap: a later label replaces what
it covers. What no stretch covers is unlabelled.

May import the standard library and the typed reader of YAML. Must never read the recording itself.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from hardware.errors import ScentdError
from hardware.files import locked_folder, read_regular, remove, write_atomically
from hardware.labels import checked_label
from hardware.typed_yaml import YamlMapping, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Self

LABELS_SUFFIX = ".labels.yaml"

FORMAT = 1

MOST_STRETCHES = 500
MOST_BYTES = 256_000
"""Largest file of labels; 500 stretches with the longest names take half of it."""

MAX_AUTHOR_LENGTH = 64

LEAD_MS = 60_000
"""Unlabelled readings before a stretch that belong to its exposure: they show clean air."""


class LabelsError(ScentdError):
    """The labels of a recording cannot be read, or cannot be what was asked for."""


@dataclass(frozen=True, slots=True)
class LabelledStretch:
    """A part of a recording in which one smell was there.

    Attributes
    ----------
    start_ms, end_ms: times of its first and last reading.
    label: of the smell.
    author: who or what says so: a person, `page`, `feedback`, `record`.
    """

    start_ms: int
    end_ms: int
    label: str
    author: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise ValueError(
                f"a stretch ends after it begins, from 0 on; {self.start_ms} to {self.end_ms} came"
            )
        if len(self.author) > MAX_AUTHOR_LENGTH or not self.author.isprintable():
            raise ValueError(f"an author has at most {MAX_AUTHOR_LENGTH} printable characters")
        if checked_label(self.label) != self.label:
            raise ValueError(f"a label has no space around it, and {self.label!r} came")


@dataclass(frozen=True, slots=True)
class RecordingLabels:
    """The labelled stretches of one recording, in the order of time."""

    stretches: tuple[LabelledStretch, ...] = ()

    def __post_init__(self) -> None:
        if len(self.stretches) > MOST_STRETCHES:
            raise ValueError(f"a recording has at most {MOST_STRETCHES} labelled stretches")
        ends = [stretch.end_ms for stretch in self.stretches]
        starts = [stretch.start_ms for stretch in self.stretches]
        if any(end > start for end, start in zip(ends, starts[1:], strict=False)):
            raise ValueError("the stretches are not in the order of time, or overlap")

    @classmethod
    def of(cls, stretches: Iterable[LabelledStretch]) -> Self:
        """Return the labels of stretches, each of which replaces what it covers of those before."""
        labels = cls()
        for stretch in stretches:
            labels = labels.with_stretch(stretch)
        return labels

    def at(self, t_ms: int) -> str | None:
        """Return the label at a time; None where nothing is labelled."""
        for stretch in self.stretches:
            if stretch.start_ms <= t_ms <= stretch.end_ms:
                return stretch.label
        return None

    def as_json(self) -> list[dict[str, object]]:
        """Return the stretches as JSON states them."""
        return [dataclasses.asdict(stretch) for stretch in self.stretches]

    def without(self, start_ms: int, end_ms: int) -> Self:
        """Return the labels with nothing labelled between two times."""
        kept: list[LabelledStretch] = []
        for stretch in self.stretches:
            if stretch.end_ms <= start_ms or stretch.start_ms >= end_ms:
                kept.append(stretch)
                continue
            if stretch.start_ms < start_ms:
                kept.append(dataclasses.replace(stretch, end_ms=start_ms))
            if stretch.end_ms > end_ms:
                kept.append(dataclasses.replace(stretch, start_ms=end_ms))
        return dataclasses.replace(self, stretches=tuple(kept))

    def with_stretch(self, stretch: LabelledStretch) -> Self:
        """Return the labels with one more stretch, which replaces what it covers."""
        others = self.without(stretch.start_ms, stretch.end_ms).stretches
        ordered = sorted((*others, stretch), key=lambda item: item.start_ms)
        return dataclasses.replace(self, stretches=tuple(ordered))

    def between(self, start_ms: int, end_ms: int) -> Self:
        """Return the labels of a part of the recording."""
        return self.without(0, start_ms).without(end_ms, 1 << 62)

    def lead_start_ms(self, stretch: LabelledStretch, lead_ms: int = LEAD_MS) -> int:
        """Return where the unlabelled readings begin that belong to a stretch."""
        ends = [item.end_ms for item in self.stretches if item.end_ms <= stretch.start_ms]
        return max(0, stretch.start_ms - lead_ms, *(end + 1 for end in ends))


def labels_path(recording: Path) -> Path:
    """Return the file of a recording's labels."""
    return recording.with_name(recording.name.removesuffix(".gz") + LABELS_SUFFIX)


def read_labels(recording: Path) -> RecordingLabels:
    """Return the labels of a recording; none where nothing is labelled.

    Raises
    ------
    LabelsError: the file is there and cannot be read, or is no file of labels.
    """
    path = labels_path(recording)
    try:
        document = YamlMapping(read_regular(path, MOST_BYTES))
        version = document.values.pop("format", None)
        if version == FORMAT:
            return document.build(RecordingLabels)
        problem = f"it is not of format {FORMAT}"
    except FileNotFoundError:
        return RecordingLabels()
    except OSError as error:
        problem = error.strerror or str(error)
    except ScentdError as error:
        problem = str(error)
    raise LabelsError(f"The labels in {path.name} cannot be read: {problem}. Correct or remove it.")


def write_labels(recording: Path, labels: RecordingLabels) -> None:
    """Write the labels of a recording, whole or not at all; without any, remove the file.

    Raises
    ------
    OSError: the disk refuses, or a link lies on the way.
    """
    path = labels_path(recording)
    if not labels.stretches:
        remove(path)
        return
    content = {"format": FORMAT, **to_plain(labels)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_atomically(path, text.encode())


def change_labels(
    recording: Path, edit: Callable[[RecordingLabels], RecordingLabels]
) -> RecordingLabels:
    """Change the labels of a recording, while no other process can, and return them.

    Raises
    ------
    LabelsError: they cannot be read, or the change cannot be made.
    OSError: the disk refuses.
    """
    with locked_folder(recording.parent):
        try:
            labels = edit(read_labels(recording))
        except ValueError as error:
            raise LabelsError(f"These labels cannot be kept: {error}.") from error
        write_labels(recording, labels)
    return labels
