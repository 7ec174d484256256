"""Daemon: every setting with its description, default and rule, as text and as JSON Schema.

Types and rules come from the fields of `daemon.config.settings`, descriptions from the text below
each field in the source. Loaded only by `scentd config`.
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
    unannotated,
)

_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


class Setting(NamedTuple):
    """One setting, or a section, whose `accepts` is empty."""

    name: str
    accepts: str
    default: str
    description: str


def list_settings(kind: Any = Config, prefix: Location = ()) -> Iterator[Setting]:
    """Yield every setting of the configuration, a section before its settings."""
    for name, (hint, item) in fields_of(kind).items():
        value, rules, _ = _resolve(hint)
        location = (*prefix, name)
        description = _descriptions(kind).get(name)
        default = "required" if is_required(item) else _yaml(_default(item))
        if get_origin(value) is Mapping:
            yield Setting(dotted_name(location), "", "", description or "")
            value, location, description = get_args(value)[1], (*location, ANY_NAME), None
        section = dataclasses.is_dataclass(value)
        yield Setting(
            dotted_name(location),
            "" if section else _accepts(value, rules),
            default,
            description or (_first_line(value) if section else ""),
        )
        if section:
            yield from list_settings(value, location)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:scentd:schema:config",
        "title": "scentd.yaml",
        **_schema(Config),
    }


def _schema(hint: Any) -> dict[str, Any]:
    value, notes, optional = _resolve(hint)
    origin, inner = get_origin(value), get_args(value)
    schema: dict[str, Any]
    if dataclasses.is_dataclass(value):
        items = fields_of(value)  # type: ignore[arg-type]
        schema = {
            "description": _first_line(value),
            "type": "object",
            "additionalProperties": False,
            "required": [name for name, (_, item) in items.items() if is_required(item)],
            "properties": {name: _property(value, name) for name in items},
        }
    elif origin is Mapping:
        schema = {"type": "object", "additionalProperties": _schema(inner[1])}
    elif origin is tuple:
        schema = {"type": "array", "items": _schema(inner[0])}
    elif origin is Literal:
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
    if optional:
        schema["type"] = [schema["type"], "null"]
    return schema


def _property(kind: Any, name: str) -> dict[str, Any]:
    hint, item = fields_of(kind)[name]
    schema = _schema(hint)
    default = {"default": value} if (value := _default(item)) is not None else {}
    description = _descriptions(kind).get(name, schema.get("description"))
    return {**schema, "description": description, **default}


def _resolve(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Return a type without annotations and None, its annotations, and whether None is allowed."""
    value, notes = unannotated(hint)
    if get_origin(value) in (Union, UnionType) and NoneType in get_args(value):
        value, inner, _ = _resolve(get_args(value)[0])
        return value, notes + inner, True
    return value, notes, False


def _default(item: dataclasses.Field[Any]) -> Any:
    """Return a field's default; None if it has none or makes it at run time."""
    return None if item.default is dataclasses.MISSING else item.default


def _yaml(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _accepts(value: Any, notes: tuple[Any, ...]) -> str:
    """Describe what a setting accepts: "whole number, 5 to 3600"."""
    origin, inner = get_origin(value), get_args(value)
    if origin is Literal:
        name = ", ".join(dict.fromkeys(map(str, inner)))
    elif origin is tuple:
        name = "list"
    else:
        name = ", or ".join(_NAMES[member] for member in inner or (value,))
    return "".join([name, *(_describe_rule(note) for note in notes if isinstance(note, Rule))])


def _describe_rule(rule: Rule) -> str:
    match rule.keywords:
        case {"minimum": low, "maximum": high}:
            return f", {low:.10g} to {high:.10g}"
        case {"exclusiveMinimum": low, "exclusiveMaximum": high}:
            return f", above {low:.10g} and below {high:.10g}"
    return f" ({rule.mend})"


def _first_line(kind: Any) -> str:
    return str(inspect.getdoc(kind)).split("\n", 1)[0]


@cache
def _descriptions(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, from its source."""
    found: dict[str, str] = {}
    (tree,) = ast.parse(inspect.getsource(kind)).body
    for pair in pairwise(ast.iter_child_nodes(tree)):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found
