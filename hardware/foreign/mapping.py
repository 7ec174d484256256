"""Ground floor: what the columns of a foreign file mean, from a YAML file of a few lines.

May import the channel table, units, columns and the reader of typed YAML. Opens no recording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from hardware.channels import CHANNEL_NAMES, channel_index, find_channel
from hardware.errors import UsageError
from hardware.typed_yaml import TypedYamlError, YamlMapping
from hardware.units import MAPPING_UNITS, mapping_scale

if TYPE_CHECKING:
    from pathlib import Path

AS_STATED = "as stated"
"""The unit that the file itself states for a column."""

TIME_UNITS = Literal["iso", "s", "ms", "us"]
KINDS = Literal["csv", "json", "edge-impulse", "bmerawdata"]
KIND_TIMES = {"edge-impulse": "timestamp", "bmerawdata": "time_ms"}
"""The column of the time, in milliseconds, of the kinds that always have one."""
FILE_PATTERNS: dict[str, tuple[str, ...]] = {
    "csv": ("*.csv", "*.csv.gz", "*.tsv", "*.txt", "*.xlsx"),
    "json": ("*.json", "*.json.gz", "*.jsonl", "*.ndjson"),
    "edge-impulse": ("*.json", "*.csv"),
    "bmerawdata": ("*.bmerawdata",),
}
"""Names of the files of each kind in a folder."""


class MappingError(UsageError):
    """A mapping of columns cannot be used."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where one channel comes from.

    Attributes
    ----------
    column: as the file's header spells it; in nested JSON the keys joined by dots. Of several, the
        first that the file has.
    unit: of the numbers: one of `MAPPING_UNITS`, a unit that a heading may have, or `as stated`.
    optional: whether files may lack it.
    """

    column: tuple[str, ...] | str
    unit: str = "as sent"
    optional: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names that are looked for, in order."""
        return (self.column,) if isinstance(self.column, str) else self.column


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    r"""How files of another project become recordings.

    Attributes
    ----------
    description: whose files these are.
    channels: by channel of the table, where it comes from; a name alone stands for a column as
        sent. Absent channels stay empty. Without any, `prefix` alone finds the board's own names.
    kind: of the files: a table with a header, a JSON list of one object per reading, a sample of
        Edge Impulse, or raw data of BME AI-Studio.
    prefix: what the names of one board's columns begin with, in a file of several boards.
    rows: in JSON, the key of the list of readings (joined by dots), if the file is no list.
    sensor, heater_step: in raw data of BME AI-Studio; by default the first sensor, and its last
        step of those nearest 320 degC, the temperature of the board's own heater plate.
    time: column of the time, None if there is none; two columns where date and time are apart.
    time_unit: of that column: an ISO date, seconds, milliseconds or microseconds; by default as its
        heading and its values say.
    interval_ms: between readings, where there is no column of the time.
    name: regular expression over the file's path with the groups `label` and perhaps `session`;
        without it the label is the name of the folder.
    labels: full name by the label that `name` finds.
    join_gap_s: files of one label and session whose times follow within this many seconds are
        slices of one recording and are joined; 0 joins nothing.
    """

    description: str
    channels: Mapping[str, Column | str] = field(default_factory=dict)
    kind: KINDS = "csv"
    prefix: str = ""
    rows: str | None = None
    sensor: int | None = None
    heater_step: int | None = None
    time: tuple[str, ...] | str | None = None
    time_unit: TIME_UNITS | None = None
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
        if not self.channels and not self.prefix:
            raise ValueError("channels names no column: give at least one channel its column")
        for name, column in self.columns.items():
            scale = mapping_scale(channel_index(name), column.unit)
            if scale is None and column.unit != AS_STATED:
                raise ValueError(
                    f"unit must be one of {', '.join(MAPPING_UNITS)}, {AS_STATED}, or a unit of "
                    f"{name} as headings state it; got {column.unit!r}"
                )
        timed = self.kind in {"csv", "json"} and bool(self.channels)
        if (timed and self.time is None and self.interval_ms is None) or (
            self.time is not None and self.interval_ms is not None
        ):
            raise ValueError("give exactly one of time (a column) and interval_ms (a number)")
        if self.interval_ms is not None and not self.interval_ms > 0:
            raise ValueError(f"interval_ms must be above 0, got {self.interval_ms:g}")
        self._check_name()

    def _check_name(self) -> None:
        if self.name is None:
            return
        try:
            groups = re.compile(self.name).groupindex
        except re.error as error:
            raise ValueError(f"name is no regular expression: {error}") from error
        if "label" not in groups:
            raise ValueError("name must hold a group (?P<label>...)")

    @property
    def columns(self) -> dict[str, Column]:
        """The columns by channel, those named alone in full."""
        return {
            name: Column(column) if isinstance(column, str) else column
            for name, column in self.channels.items()
        }

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The columns of the time, none if there are none."""
        time = KIND_TIMES.get(self.kind) if self.time is None else self.time
        if time is None:
            return ()
        return (time,) if isinstance(time, str) else time

    @property
    def stated_time_unit(self) -> str | None:
        """The unit of the time, None where heading and values must tell."""
        by_kind = "ms" if self.time is None and self.kind in KIND_TIMES else None
        return self.time_unit or by_kind

    def label_and_session(self, path: Path) -> tuple[str, str | None]:
        """Return label and session of a file by its path.

        Raises
        ------
        MappingError: `name` does not match the path.
        """
        if self.name is None:
            return path.absolute().parent.name, None
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
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MappingError(
            f"The mapping {path} cannot be read: {error.strerror or error}. Check its path."
        ) from error
    except UnicodeDecodeError as error:
        raise MappingError(f"The mapping {path} is no text in UTF-8 ({error.reason}).") from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> ForeignFormat:
    try:
        return YamlMapping(text).build(ForeignFormat)
    except TypedYamlError as error:
        raise MappingError(
            f"The mapping {source} cannot be used: {error} docs/recordings.md has an example."
        ) from error
