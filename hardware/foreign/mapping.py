"""Ground floor: what the columns of a foreign file mean, from a YAML file of a few lines.

May import the channel table and the reader of typed YAML. Opens no recording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from hardware.channels import CHANNEL_NAMES, GROVE_FULL_SCALE, find_channel
from hardware.errors import UsageError
from hardware.typed_yaml import TypedYamlError, YamlMapping

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

UNITS: dict[str, float] = {
    "as sent": 1.0,
    "volt of 3.3": GROVE_FULL_SCALE / 3.3,
    "volt of 5": GROVE_FULL_SCALE / 5.0,
    "count / 1000": 1000.0,
    "ohm": 1e-3,
    "kPa": 10.0,
    "Pa": 1e-2,
}
"""Factor from a foreign unit to that of the channel table."""

TIME_UNITS = Literal["iso", "s", "ms", "us"]


class MappingError(UsageError):
    """A mapping of columns cannot be used."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where one channel comes from.

    Attributes
    ----------
    column: as the file's header spells it; in nested JSON the keys joined by dots.
    unit: one of `UNITS`.
    """

    column: str
    unit: str = "as sent"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}")

    def convert(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values in the channel table's unit."""
        return values * UNITS[self.unit]


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    r"""How files of another project become recordings.

    Attributes
    ----------
    description: whose files these are.
    channels: by channel of the table, where it comes from; absent channels stay empty. Several
        columns may be listed by name where the project changed its headings.
    kind: of the files: a table with a header, or a JSON list of one object per reading.
    time: column of the time, None if there is none.
    time_unit: of that column: an ISO date, seconds, milliseconds or microseconds.
    interval_ms: between readings, where there is no column of the time.
    name: regular expression over the file's path with the groups `label` and perhaps `session`;
        without it the label is the name of the folder.
    labels: full name by the label that `name` finds.
    join_gap_s: files of one label and session whose times follow within this many seconds are
        slices of one recording and are joined; 0 joins nothing.
    """

    description: str
    channels: Mapping[str, Column]
    kind: Literal["csv", "json"] = "csv"
    time: str | None = None
    time_unit: TIME_UNITS = "ms"
    interval_ms: float | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    join_gap_s: float = 0.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.channels if find_channel(name) is None]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} is no channel of the table: {', '.join(CHANNEL_NAMES)}"
            )
        if not self.channels:
            raise ValueError("channels names no column: give at least one channel its column")
        if (self.time is None) == (self.interval_ms is None):
            raise ValueError("give exactly one of time (a column) and interval_ms (a number)")
        if self.name is not None and "(?P<label>" not in self.name:
            raise ValueError("name must hold a group (?P<label>...)")

    def label_and_session(self, path: Path) -> tuple[str, str | None]:
        """Return label and session of a file by its path.

        Raises
        ------
        MappingError: `name` does not match the path.
        """
        if self.name is None:
            return path.parent.name, None
        match = re.search(self.name, str(path))
        if match is None:
            raise MappingError(
                f"The name of {path} does not match the mapping's name ({self.name}), so its label "
                "is unknown. Correct the expression, or leave such files out."
            )
        groups = match.groupdict()
        label = groups["label"]
        return self.labels.get(label, label), groups.get("session")


def shipped_formats() -> tuple[str, ...]:
    """Return the names of the formats that scentd knows."""
    folder = files("hardware.foreign")
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def shipped_format(name: str) -> ForeignFormat:
    """Return a format by its name.

    Raises
    ------
    MappingError: there is none of this name.
    """
    if name not in shipped_formats():
        raise MappingError(
            f"There is no format {name!r}. Known: {', '.join(shipped_formats())}. For another one "
            "write a mapping file and name it by --map."
        )
    text = (files("hardware.foreign") / f"{name}.yaml").read_text(encoding="utf-8")
    return _parse(text, name)


def read_mapping(path: Path) -> ForeignFormat:
    """Read a mapping file.

    Raises
    ------
    MappingError: it cannot be read, or not be used; with every problem and its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"The mapping {path} cannot be read: {error}.") from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> ForeignFormat:
    try:
        return YamlMapping(text).build(ForeignFormat)
    except TypedYamlError as error:
        raise MappingError(f"The mapping {source} cannot be used: {error}") from error
