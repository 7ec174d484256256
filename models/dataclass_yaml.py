"""Models: frozen dataclasses from the mappings of a YAML file, and back to plain ones.

Reading reports every problem at once. May import hardware.errors, numpy and the standard
library. Must never open a file or know a dataclass by name: manifests and training
configurations are both read through here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from hardware.errors import ScentdError
from hardware.safe_yaml import shown

_T = TypeVar("_T")


def build(cls: type[_T], raw: Any, where: str, problems: list[str]) -> _T | None:
    """Make a frozen dataclass from a mapping, nested ones included.

    Fields may be int, float, str, bool, Literal, Mapping (of anything, or of one dataclass),
    tuples, dataclasses, and any of these or None. An int is taken for a float; a float must be
    finite.

    Parameters
    ----------
    cls: the dataclass; its type hints must resolve at run time.
    raw: what the YAML reader gave.
    where: dotted path of `raw` in its file, for the problems; empty at the top.
    problems: everything that is wrong is added here, each with its dotted path.

    Returns
    -------
    The dataclass, or None where anything was added to `problems`.
    """
    if not isinstance(raw, dict):
        problems.append(f"{where or 'the file'} must be a mapping, got {shown(raw)}")
        return None
    prefix = f"{where}." if where else ""
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    before = len(problems)
    problems.extend(
        f"{prefix}{key} is not known (there are: {', '.join(known)})"
        for key in raw
        if key not in known
    )
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, item in known.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], prefix + name, problems)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name} is missing")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ScentdError as error:
        problems.append(f"{where + ': ' if where else ''}{str(error).rstrip('.')}")
        return None


def _convert(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Return `value` as `hint` asks, or None after noting what is wrong."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        (inner,) = (member for member in get_args(hint) if member is not NoneType)
        return None if value is None else _convert(inner, value, where, problems)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, problems)  # type: ignore[arg-type]
    if (origin is tuple and isinstance(value, list) and _fits(hint, value)) or (
        origin is Mapping and isinstance(value, dict)
    ):
        return _convert_items(hint, value, where, problems)
    if hint is float and _is_finite_number(value):
        return float(value)
    if (
        hint is Any
        or (origin is Literal and value in get_args(hint))
        or (hint in (int, str, bool) and type(value) is hint)
    ):
        return value
    problems.append(f"{where} must be {_described(hint)}, got {shown(value)}")
    return None


def _convert_items(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Return the items of a list as a tuple, or those of a mapping, each as `hint` asks."""
    if isinstance(value, list):
        inner = get_args(hint)[0]
        return tuple(
            _convert(inner, item, f"{where}[{place}]", problems) for place, item in enumerate(value)
        )
    kind = get_args(hint)[1]
    return {key: _convert(kind, item, f"{where}.{key}", problems) for key, item in value.items()}


def _described(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list like {hint}"
    return "a mapping" if get_origin(hint) is Mapping else str(hint.__name__)


def _fits(hint: Any, value: list[Any]) -> bool:
    """Whether a list has as many items as the tuple type `hint` asks."""
    return get_args(hint)[-1] is Ellipsis or len(get_args(hint)) == len(value)


def _is_finite_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def plain(value: Any) -> Any:
    """Reduce to what any YAML reader reads: lists, dicts, plain strings and numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, str):  # a library's version may be a subclass of its own
        return str(value)
    return value.item() if isinstance(value, np.generic) else value
