"""Calibration: the taught smells of one rig as values: exposures, smells, and the set of them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import yaml

from hardware.checksum_line import CHECKSUM, checksum_is_right, with_checksum
from hardware.errors import ScentdError
from hardware.files import read_regular
from hardware.typed_yaml import TypedYamlError, YamlMapping, to_plain
from models.clean_air import CleanAirSource
from models.signals import GAS_NAMES

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray


FORMAT = 3
FORMAT_WITHOUT_AIR = 2
"""The format of earlier versions, in which exposures have no clean air."""
FORMAT_OF_ONE_MODEL = 1
"""Of earlier versions: what one model was taught."""

_EXPOSURE_ID = re.compile(r"[0-9a-f]{16}")

NEGATIVES = "not a taught smell"
"""Label under which the library keeps exposures that must not be given the name of a taught smell.
It is never announced itself."""

MAX_EXPOSURES = 16
"""Of one smell; a new exposure then replaces the oldest."""


class SmellError(ScentdError):
    """The requested change of the taught smells is not possible."""


class StoreDamagedError(ScentdError):
    """The store's index cannot be read; its exposures and earlier versions are still there."""


def signals_by_name(signals: NDArray[np.float64]) -> dict[str, float]:
    """Return log-conductances float64[8] by gas channel, without those that are not known."""
    return {
        name: round(float(value), 4)
        for name, value in zip(GAS_NAMES, signals, strict=True)
        if math.isfinite(value)
    }


@dataclass(frozen=True, slots=True)
class TaughtAir:
    """Clean air before an exposure, as it was known when the exposure was taught.

    Attributes
    ----------
    signals: log-conductance by gas channel; a channel whose clean air is not known is left out.
    source: where it was known from, one of `CleanAirSource`.
    age_s: seconds from its measurement to the first stored reading; 0 where the stored readings
        show it themselves, None for that of a calibration.
    calibration: id of the correction through which it was seen, empty for none.
    """

    signals: Mapping[str, float]
    source: str
    age_s: float | None = 0.0
    calibration: str = ""

    def __post_init__(self) -> None:
        # It may come from another rig.
        unknown = set(self.signals) - set(GAS_NAMES)
        if unknown:
            raise ValueError(f"no gas channel is called {', '.join(sorted(unknown))}")
        if self.source not in set(CleanAirSource):
            raise ValueError(f"clean air comes from {', '.join(CleanAirSource)}")
        numbers = [*self.signals.values(), self.age_s or 0.0]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("clean air and its age are finite numbers")

    @classmethod
    def of(
        cls,
        signals: NDArray[np.float64],
        source: str,
        age_s: float | None = 0.0,
        calibration: str = "",
    ) -> Self:
        """Return the clean air of log-conductances float64[8], NaN where unknown."""
        return cls(signals_by_name(signals), str(source), age_s, calibration)

    def array(self) -> NDArray[np.float64]:
        """Return the log-conductances float64[8], NaN where unknown."""
        return np.array([self.signals.get(name, np.nan) for name in GAS_NAMES])

    def before(self, later_s: float) -> Self | None:
        """Return it with the age that it had so many seconds earlier; None if it was not yet."""
        if self.age_s is None:
            return self
        age_s = round(self.age_s - later_s, 1)
        return dataclasses.replace(self, age_s=age_s) if age_s > 0.0 else None

    @property
    def is_earlier(self) -> bool:
        """Whether it was measured before the stored readings, which do not show it."""
        return self.age_s is None or self.age_s > 0.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure from which a smell was learnt.

    Attributes
    ----------
    id: of its files, from their content.
    date: UTC, when it was taught.
    source: where the readings came from.
    start_ms: time in the stored readings from which on they are learnt.
    seconds: duration of the smell.
    windows: learnt from it.
    as_trained: the readings are of another rig and were corrected by its own profile.
    session: one rig, one place, one day: exposures of one session resemble each other.
    clean_air: before it; None where it was not known, or was taught by an earlier version.
    first_id: its id before its readings were corrected for an export; empty where that is `id`.
    other_board: it came from a rig whose board is not known to be this one.
    """

    id: str
    date: str
    source: str
    start_ms: int
    seconds: float
    windows: int
    as_trained: bool = False
    session: str = ""
    clean_air: TaughtAir | None = None
    first_id: str = ""
    other_board: bool = False

    @property
    def ids(self) -> set[str]:
        """The ids under which it may be known already."""
        return {self.id, self.first_id} - {""}

    @property
    def sitting(self) -> str:
        """The session, by default the day on which it was taught."""
        return self.session or self.date[:10]

    def __post_init__(self) -> None:
        # The index is read from the disk, and the id is a part of paths.
        for name in (self.id, self.first_id or self.id):
            if _EXPOSURE_ID.fullmatch(name) is None:
                raise ValueError(f"an id is of 16 hexadecimal digits, and {name!r} came")


@dataclass(frozen=True, slots=True)
class Smell:
    """One taught smell, or the negatives. While in shadow it is previewed, but has no effect."""

    label: str
    shadow: bool
    exposures: tuple[Exposure, ...]

    @property
    def is_negative(self) -> bool:
        """Whether its exposures are none of the taught smells."""
        return self.label == NEGATIVES


@dataclass(frozen=True, slots=True)
class SmellSet:
    """The content of an index: one version of everything that a rig was taught.

    Attributes
    ----------
    version: counts the changes.
    date: UTC, of the last change.
    change: description of the last change, for people.
    smells: in the order in which they were taught.
    hidden: shipped labels, by their shipped names, of every model that has them.
    renamed: published name by shipped name.
    """

    version: int = 0
    date: str = ""
    change: str = "nothing yet"
    smells: tuple[Smell, ...] = ()
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def taught(self) -> tuple[Smell, ...]:
        """The smells without the negatives."""
        return tuple(smell for smell in self.smells if not smell.is_negative)

    def __contains__(self, label: str) -> bool:
        """Whether a smell of this label was taught."""
        return any(smell.label == label for smell in self.smells)

    def smell(self, label: str) -> Smell:
        """Return a taught smell.

        Raises
        ------
        SmellError: there is none of this label.
        """
        for smell in self.smells:
            if smell.label == label:
                return smell
        names = ", ".join(smell.label for smell in self.smells) or "none yet"
        raise SmellError(f"This rig was not taught a smell called {label!r}. Taught: {names}.")

    @staticmethod
    def describe_teaching(label: str) -> str:
        """Return the description of a change that adds an exposure, for people."""
        return "kept what is none of the taught smells" if label == NEGATIVES else f"taught {label}"

    def latest_in_shadow(self) -> str:
        """Return the label of the smell in shadow that was taught last.

        Raises
        ------
        SmellError: no smell is in shadow.
        """
        shadow = [smell for smell in self.smells if smell.shadow]
        if not shadow:
            raise SmellError(
                "No smell is in shadow: all that were taught are announced already. Teach one "
                "first, or name the smell."
            )
        return max(shadow, key=lambda smell: max(one.date for one in smell.exposures)).label

    def with_exposures(
        self, label: str, exposures: tuple[Exposure, ...], *, promote: bool
    ) -> SmellSet:
        """Return the set with exposures added to a smell, which may be new.

        A new smell is in shadow unless `promote` is set; a known one leaves the shadow if it is.
        """
        if label not in self:
            new = Smell(label, not promote, exposures[-MAX_EXPOSURES:])
            return dataclasses.replace(self, smells=(*self.smells, new))
        known, ids = self.smell(label), {exposure.id for exposure in exposures}
        others = tuple(exposure for exposure in known.exposures if exposure.id not in ids)
        return self.with_change(
            label,
            shadow=known.shadow and not promote,
            exposures=(*others, *exposures)[-MAX_EXPOSURES:],
        )

    def with_change(self, label: str, /, **changes: object) -> SmellSet:
        """Return the set with fields of one taught smell changed."""
        changed = dataclasses.replace(self.smell(label), **changes)  # type: ignore[arg-type]
        smells = tuple(changed if smell.label == label else smell for smell in self.smells)
        return dataclasses.replace(self, smells=smells)

    def without(self, label: str, exposure_id: str | None = None) -> SmellSet:
        """Return the set without a taught smell, or without one exposure of it."""
        if exposure_id is not None:
            return self.without_exposure(label, exposure_id)
        forgotten = self.smell(label)
        return dataclasses.replace(self, smells=tuple(s for s in self.smells if s != forgotten))

    def without_exposure(self, label: str, exposure_id: str) -> SmellSet:
        """Return the set without one exposure of a smell, and without the smell if it was the last.

        Raises
        ------
        SmellError: there is no such smell or exposure.
        """
        smell = self.smell(label)
        others = tuple(item for item in smell.exposures if item.id != exposure_id)
        if len(others) == len(smell.exposures):
            ids = ", ".join(item.id for item in smell.exposures)
            raise SmellError(f"{label} has no exposure {exposure_id!r}. Its exposures: {ids}.")
        return self.with_change(label, exposures=others) if others else self.without(label)

    def with_all_of(self, other: SmellSet) -> SmellSet:
        """Return the set with the smells, hidden and renamed labels of another one."""
        merged = self
        for smell in other.smells:
            merged = merged.with_exposures(smell.label, smell.exposures, promote=not smell.shadow)
        return dataclasses.replace(
            merged,
            hidden=tuple(sorted({*self.hidden, *other.hidden})),
            renamed={**self.renamed, **other.renamed},
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index file, as `from_yaml` does."""
        try:
            data = read_regular(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _damaged(str(path), f"{error.strerror}.") from error
        return cls.from_yaml(data, str(path))

    @classmethod
    def from_yaml(cls, data: bytes, source: str) -> Self:
        """Read an index.

        Raises
        ------
        StoreDamagedError: it is none, or of a format that this scentd does not read.
        """
        try:
            document = YamlMapping(data)
            if CHECKSUM in document.values and not checksum_is_right(data):
                raise _damaged(source, "its text does not belong to its checksum.")
            document.values.pop(CHECKSUM, None)
            version = document.values.pop("format", None)
            if version == FORMAT_OF_ONE_MODEL:
                document.values.pop("model", None)
            if version in (FORMAT, FORMAT_WITHOUT_AIR, FORMAT_OF_ONE_MODEL):
                return document.build(cls)
            problem = f"it is not of format {FORMAT}."
        except TypedYamlError as error:
            problem = str(error)
        raise _damaged(source, problem)

    def to_yaml(self) -> bytes:
        """Return the index's bytes."""
        content = {"format": FORMAT, **to_plain(self)}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        return with_checksum(text.encode())


def _damaged(source: str, problem: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{source} cannot be read: {problem} Nothing of what was taught is lost: "
        "`scentd enroll --rollback` puts the newest whole version in its place."
    )
