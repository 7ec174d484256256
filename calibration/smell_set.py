"""Calibration: the taught smells of one rig as values: exposures, smells, and the set of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from hardware.errors import ScentdError
from hardware.typed_yaml import TypedYamlError, YamlMapping, plain

if TYPE_CHECKING:
    from typing import Self


FORMAT = 1


class SmellError(ScentdError):
    """What is asked of the taught smells cannot be done."""


class StoreDamagedError(ScentdError):
    """The store's index cannot be read; its exposures and earlier versions are still there."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure that taught.

    Attributes
    ----------
    id: of its files, from their content.
    date: UTC, when it was taught.
    source: where the readings came from.
    start_ms: time in the kept readings from which on they teach.
    seconds: of the smell.
    windows: that it taught.
    as_trained: the readings are of another rig and were corrected by its own profile.
    """

    id: str
    date: str
    source: str
    start_ms: int
    seconds: float
    windows: int
    as_trained: bool = False


@dataclass(frozen=True, slots=True)
class Smell:
    """One taught smell. In shadow it is never said, only tried (`calibration.smell_preview`)."""

    label: str
    shadow: bool
    exposures: tuple[Exposure, ...]


@dataclass(frozen=True, slots=True)
class SmellSet:
    """What an index says: one version of everything a rig adds to a model.

    Attributes
    ----------
    model: the bundle's name.
    version: counts the changes.
    date: UTC, of the last change.
    change: what it was, for people.
    smells: taught, in the order of their teaching.
    hidden: shipped labels, by their shipped names.
    renamed: published name by shipped name.
    """

    model: str
    version: int = 0
    date: str = ""
    change: str = "nothing yet"
    smells: tuple[Smell, ...] = ()
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def smell(self, label: str) -> Smell:
        """Return a taught smell.

        Raises
        ------
        SmellError: none is called so.
        """
        for smell in self.smells:
            if smell.label == label:
                return smell
        names = ", ".join(smell.label for smell in self.smells) or "none yet"
        raise SmellError(
            f"Expected a smell that this rig was taught, and {label!r} is none. Taught: {names}."
        )

    def with_smell(self, smell: Smell, replacing: str | None = None) -> SmellSet:
        """Return the set with a smell added, or put in the place of the one called so."""
        if replacing is None:
            return dataclasses.replace(self, smells=(*self.smells, smell))
        return dataclasses.replace(
            self, smells=tuple(smell if s.label == replacing else s for s in self.smells)
        )

    def without_smell(self, label: str) -> SmellSet:
        """Return the set without a taught smell."""
        self.smell(label)
        return dataclasses.replace(
            self, smells=tuple(smell for smell in self.smells if smell.label != label)
        )

    @classmethod
    def from_yaml(cls, data: bytes, source: str) -> Self:
        """Read an index.

        Raises
        ------
        StoreDamagedError: it is none, or of a format that this scentd does not read.
        """
        try:
            document = YamlMapping(data)
            if document.values.pop("format", None) == FORMAT:
                return document.build(cls)
            problem = f"it is not of format {FORMAT}."
        except TypedYamlError as error:
            problem = str(error)
        raise StoreDamagedError(
            f"{source} cannot be read: {problem} Nothing of what was taught is lost: "
            "`scentd enroll --rollback` puts the newest whole version in its place."
        )

    def to_yaml(self) -> bytes:
        """Return the index's bytes."""
        content = {"format": FORMAT, **plain(dataclasses.asdict(self))}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        return text.encode()
