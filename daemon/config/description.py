"""Daemon: every setting with its description, default and rule, as text and as JSON Schema.

Made from `daemon.config.settings`: types and rules from the fields, descriptions from the text
below each field in the source. Loaded only by `scentd config`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from daemon.config.settings import Config
from hardware.safe_yaml import Location, read_yaml
from hardware.typed_yaml import (
    ANY_NAME,
    Example,
    Rule,
    dotted_name,
    fields_of,
    is_required,
    to_plain,
    unannotated,
)

_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


class Setting(NamedTuple):
    """One setting or section, as people read it.

    Attributes
    ----------
    name: with its sections, "mqtt.port".
    accepts: type and rule; empty for a section.
    default: as YAML; "required" or empty where there is none.
    description: what it is for.
    """

    name: str
    accepts: str
    default: str
    description: str


def settings_of(kind: Any = Config, prefix: Location = ()) -> Iterator[Setting]:
    """Yield every setting of the configuration, a section before what is inside it."""
    for name, (hint, item) in fields_of(kind).items():
        value, rules = _bare(hint)
        location = (*prefix, name)
        description = _descriptions(kind).get(name)
        default = "required" if is_required(item) else _yaml(_default(item))
        if get_origin(value) is Mapping:
            yield Setting(dotted_name(location), "", "", description or "")
            value, location = get_args(value)[1], (*location, ANY_NAME)
            description = None
        if dataclasses.is_dataclass(value):
            yield Setting(dotted_name(location), "", default, description or _first_line(value))
            yield from settings_of(value, location)
        else:
            yield Setting(dotted_name(location), _accepts(value, rules), default, description or "")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:scentd:schema:config",
        "title": "scentd.yaml",
        **_schema(Config),
    }


def _schema(hint: Any) -> dict[str, Any]:
    value, notes = _bare(hint)
    inner = get_args(value)
    schema: dict[str, Any]
    if dataclasses.is_dataclass(value):
        schema = {
            "description": _first_line(value),
            "type": "object",
            "additionalProperties": False,
            "required": [n for n, (_, item) in fields_of(value).items() if is_required(item)],  # type: ignore[arg-type]
            "properties": {n: _property(value, n) for n in fields_of(value)},  # type: ignore[arg-type]
        }
    elif get_origin(value) is Mapping:
        schema = {"type": "object", "additionalProperties": _schema(inner[1])}
    elif get_origin(value) is tuple:
        schema = {"type": "array", "items": _schema(inner[0])}
    elif get_origin(value) is Literal:
        schema = {"enum": list(inner)}
    else:
        schema = {"type": [_TYPES[member] for member in inner] if inner else _TYPES[value]}
    for note in notes:
        if isinstance(note, Rule):
            schema |= note.keywords
        elif isinstance(note, Example):
            schema["examples"] = [read_yaml(note.text)]
    if "pattern" in schema:
        schema["pattern"] = f"^(?:{schema['pattern']})$"
    if _is_optional(hint):
        schema["type"] = [schema["type"], "null"]
    return schema


def _property(kind: Any, name: str) -> dict[str, Any]:
    hint, item = fields_of(kind)[name]
    schema = _schema(hint)
    default = {"default": value} if (value := _default(item)) is not None else {}
    description = _descriptions(kind).get(name, schema.get("description"))
    return {**schema, "description": description, **default}


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type hint without its annotations and without None, and the annotations."""
    value, notes = unannotated(hint)
    if _is_optional(hint):
        value, inner = _bare(get_args(value)[0])
        return value, notes + inner
    return value, notes


def _is_optional(hint: Any) -> bool:
    value, _ = unannotated(hint)
    return get_origin(value) in (Union, UnionType) and NoneType in get_args(value)


def _default(item: dataclasses.Field[Any]) -> Any:
    """Return a field's default; None where it is none, or made at run time."""
    return None if item.default is dataclasses.MISSING else to_plain(item.default)


def _accepts(hint: Any, notes: tuple[Any, ...]) -> str:
    """Describe what a setting accepts: "whole number, 5 to 3600"."""
    value, _ = unannotated(hint)
    origin, inner = get_origin(value), get_args(value)
    if origin is Literal:
        name = ", ".join(dict.fromkeys(map(str, inner)))
    elif origin is tuple:
        name = "list"
    else:
        name = ", or ".join(_NAMES[member] for member in inner or (value,))
    return "".join([name, *(_rule(note) for note in notes if isinstance(note, Rule))])


def _rule(rule: Rule) -> str:
    match rule.keywords:
        case {"minimum": low, "maximum": high}:
            return f", {low:.10g} to {high:.10g}"
        case {"exclusiveMinimum": low, "exclusiveMaximum": high}:
            return f", above {low:.10g} and below {high:.10g}"
    return f" ({rule.mend})"


def _yaml(value: Any) -> str:
    return {None: "", True: "true", False: "false"}.get(value, str(value))


def _first_line(kind: Any) -> str:
    return str(inspect.getdoc(kind)).split("\n", 1)[0]


@cache
def _descriptions(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, from its source."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)  # noqa: S101 - for mypy
    return {
        item.target.id: " ".join(text.value.value.split())
        for item, text in pairwise(tree.body)
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
