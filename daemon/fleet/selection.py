"""Daemon: chooses rigs of a broker by what is known of them (`--where`).

Pure: conditions as text in, a choice out. Knows the payloads `info`, `health`, `substance` and
`mixture` by the fields that it compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from daemon.mqtt import topics
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daemon.fleet.rig_state import WatchedRig

_CONDITION = re.compile(r"\s*([a-z]+)\s*(!?=)\s*(.+?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: a field of a rig, and a pattern (`*`, `?`) that a value of it matches or not.

    Attributes
    ----------
    field: one of `FIELDS`.
    pattern: as a shell writes one.
    negated: whether no value may match.
    """

    field: str
    pattern: str
    negated: bool

    def holds(self, rig: WatchedRig) -> bool:
        """Tell whether a rig fulfils it."""
        matches = any(fnmatchcase(value, self.pattern) for value in FIELDS[self.field].values(rig))
        return matches != self.negated


def parse_condition(text: str) -> Condition:
    """Parse `FIELD=PATTERN` or `FIELD!=PATTERN`.

    Raises
    ------
    UsageError: it is neither, or names no field.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--where expects FIELD=PATTERN or FIELD!=PATTERN, for example rig=lab-* or online=no, "
            f"and got {text!r}."
        )
    field, sign, pattern = match.groups()
    if field not in FIELDS:
        raise UsageError(f"--where knows {', '.join(FIELDS)}, and got {field!r}.")
    return Condition(field, pattern, sign == "!=")


def choose_rigs(rigs: Iterable[WatchedRig], conditions: Iterable[Condition]) -> list[WatchedRig]:
    """Return the rigs that fulfil every condition, sorted by id."""
    wanted = list(conditions)
    chosen = [rig for rig in rigs if all(condition.holds(rig) for condition in wanted)]
    return sorted(chosen, key=lambda rig: rig.rig_id)


def model_versions(rig: WatchedRig) -> dict[str, str]:
    """Return the versions of the models that a rig runs, by name."""
    models = (rig.info or {}).get("models")
    found = models if isinstance(models, list) else []
    return {str(one.get("name")): str(one.get("version")) for one in found if isinstance(one, dict)}


def scentd_version(rig: WatchedRig) -> str | None:
    """Return the version of a rig's scentd, None where it never said it."""
    version = (rig.info or {}).get("scentd_version")
    return None if version is None else str(version)


def _versions(rig: WatchedRig) -> list[str]:
    version = scentd_version(rig)
    return [] if version is None else [version]


def _models(rig: WatchedRig) -> list[str]:
    versions = model_versions(rig)
    return [*versions, *(f"{name}@{version}" for name, version in versions.items())]


def _of_predictions(field: str) -> Callable[[WatchedRig], list[str]]:
    def values(rig: WatchedRig) -> list[str]:
        found = [payload.get(field) for payload in rig.predictions.values()]
        return [str(value) for value in found if value is not None]

    return values


def _yes_or_no(test: Callable[[WatchedRig], bool]) -> Callable[[WatchedRig], list[str]]:
    return lambda rig: ["yes" if test(rig) else "no"]


class ComparedField(NamedTuple):
    """What can be compared.

    Attributes
    ----------
    values: returns the values that a rig has of it.
    topics: that these come from, beyond the two of status.
    """

    values: Callable[[WatchedRig], list[str]]
    topics: tuple[str, ...] = ()


_PREDICTIONS = (topics.SUBSTANCE, topics.MIXTURE)

FIELDS = {
    "rig": ComparedField(lambda rig: [rig.rig_id]),
    "online": ComparedField(_yes_or_no(lambda rig: rig.is_online)),
    "board": ComparedField(
        _yes_or_no(lambda rig: rig.is_online and rig.sensor_status == topics.ONLINE)
    ),
    "version": ComparedField(_versions, (topics.INFO,)),
    "model": ComparedField(_models, (topics.INFO,)),
    "state": ComparedField(_of_predictions("state"), _PREDICTIONS),
    "label": ComparedField(_of_predictions("label"), _PREDICTIONS),
}
"""What can be compared, by the name of the field."""


def topics_compared(conditions: Iterable[Condition]) -> frozenset[str]:
    """Return the topics that conditions are about, beyond the two of status."""
    return frozenset(topic for condition in conditions for topic in FIELDS[condition.field].topics)
