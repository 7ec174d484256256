"""training/: what a search may try, read from a YAML file and checked against a configuration.

Loads neither torch nor optuna.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from hardware.errors import UsageError
from hardware.typed_yaml import TypedYamlError, YamlMapping, build
from training.config import TrainConfig, config_as_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one field of a configuration: some choices, or a range.

    Attributes
    ----------
    choices: tried as they are; empty for a range.
    low, high: ends of a range.
    log: even in the logarithm.
    whole: the field takes whole numbers only.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What a search may try.

    `fields` by dotted name, "optimiser.learning_rate"; `robust_weight` is the share of the score
    that comes from simulated other sessions.
    """

    fields: Mapping[str, Range]
    robust_weight: float = 0.3


def load_space(path: Path, config: TrainConfig) -> SearchSpace:
    """Read a search space and try the ends of its ranges on the configuration.

    Raises
    ------
    UsageError: the file is missing or has problems, all of which are listed.
    """
    try:
        raw = YamlMapping(path.read_bytes()).values
    except OSError as error:
        raise UsageError(f"Expected a search space at {path}: {error.strerror}.") from error
    except TypedYamlError as error:
        raise UsageError(f"{path} cannot be used: {error}") from error
    if not isinstance(raw.get("fields"), dict) or not raw["fields"]:
        raise UsageError(
            f"Expected {path} to hold `fields:`, a mapping of a configuration's fields to what "
            "they may be. training/configs/search-space.yaml is an example."
        )
    problems = [
        f"{key} is not known (there are: fields, robust_weight)"
        for key in raw
        if key not in ("fields", "robust_weight")
    ]
    weight = raw.get("robust_weight", 0.3)
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        problems.append(f"robust_weight must lie in 0..1, got {weight!r}")
    fields = {}
    for name, entry in raw["fields"].items():
        if span := _read_range(config, name, entry, problems):
            fields[name] = span
    if problems:
        raise UsageError(f"{path} has problems:\n" + "\n".join(f"  {p}" for p in problems))
    return SearchSpace(fields, float(weight))


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration with some fields (by dotted name) set.

    Raises
    ------
    UsageError: a field does not exist or does not take its value.
    """
    result, problems = _try_settings(config, settings)
    if result is None or problems:
        raise UsageError("These settings are not possible: " + "; ".join(problems) + ".")
    return result


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML to be pasted into a configuration."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = float(f"{value:.4g}") if isinstance(value, float) else value
    return yaml.safe_dump(nested, sort_keys=False)


def _try_settings(
    config: TrainConfig, settings: Mapping[str, Any]
) -> tuple[TrainConfig | None, list[str]]:
    """Return the configuration with fields set, and the problems of those."""
    raw = config_as_dict(config)
    problems: list[str] = []
    for name, value in settings.items():
        *parents, last = name.split(".")
        place: Any = raw
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place:
            place[last] = value
        else:
            problems.append(f"{name} is no field of a configuration")
    try:
        return build(TrainConfig, raw), problems
    except TypedYamlError as error:
        return None, [*problems, *(problem.text.rstrip(".") for problem in error.problems)]


def _read_range(config: TrainConfig, name: str, entry: Any, problems: list[str]) -> Range | None:
    """Read the values of a field and try their ends; add what is wrong to `problems`."""
    keys = set(entry) if isinstance(entry, dict) else set()
    if keys == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        span = Range(tuple(entry["choices"]))
    elif {"low", "high"} <= keys <= {"low", "high", "log"} and all(
        type(entry[key]) in (int, float) for key in ("low", "high")
    ):
        ends = entry["low"], entry["high"]
        # A range between whole numbers has fractions if the field takes fractions.
        whole = all(type(end) is int for end in ends) and bool(
            _try_settings(config, {name: 0.5})[1]
        )
        span = Range((), *ends, log=bool(entry.get("log")), whole=whole)
    else:
        problems.append(f"{name} must be {{choices: [...]}} or {{low: , high: , log: }}")
        return None
    if not span.choices and (span.low >= span.high or (span.log and span.low <= 0)):
        problems.append(f"{name} must have low < high, and low > 0 with log")
        return None
    ends = span.choices or (span.low, span.high)
    wrong = [problem for end in ends for problem in _try_settings(config, {name: end})[1]]
    problems += dict.fromkeys(wrong)
    return None if wrong else span
