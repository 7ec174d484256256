"""Ground floor: YAML from outside, read safely: values with their lines, or one kind of error.

May import yaml. Knows no file and no format: `hardware.typed_yaml` makes dataclasses of the values.
"""

from __future__ import annotations

import reprlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where libyaml is there; it makes no objects but plain ones."""

Location = tuple[str | int, ...]
"""Keys and list positions on the way from the top of a document to a value."""

LONGEST_NUMBER = 80
"""Characters of a whole number. A longer one can neither become a float nor be written again."""

MOST_ITEMS = 1_000_000
"""Items of a document with its anchors expanded: a dozen of them can stand for billions."""

_INT = "tag:yaml.org,2002:int"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Parsed(NamedTuple):
    """A YAML document.

    Attributes
    ----------
    data: its plain values.
    lines: line of every value, counted from 1; of what an anchor repeats, only the first.
    repeated: keys that stand twice in one mapping, with the line of the second. YAML itself
        silently keeps the second.
    """

    data: Any
    lines: dict[Location, int]
    repeated: list[tuple[Location, int]]


def read_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML document, or raise `yaml.YAMLError`."""
    return parse_yaml(text).data


def parse_yaml(text: str | bytes) -> Parsed:
    """Return the plain values of a YAML document and their lines.

    Raises
    ------
    yaml.YAMLError
        Whatever is wrong with it.
    """
    parsed = Parsed(None, {}, [])
    with _yaml_errors():
        loader = LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return parsed
            _visit(node, (), parsed, {})
            return parsed._replace(data=loader.construct_document(node))
        finally:
            loader.dispose()


def _visit(node: yaml.Node, location: Location, parsed: Parsed, counted: dict[int, int]) -> int:
    """Note a tree's lines and repeated keys, and return its items with anchors expanded.

    More than `MOST_ITEMS` of them are refused.
    """
    parsed.lines.setdefault(location, node.start_mark.line + 1)
    if (known := counted.get(id(node))) is not None:
        return known
    counted[id(node)] = MOST_ITEMS  # an anchor inside itself finds this, and is endless
    items = 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            inner, line = (*location, name), key.start_mark.line + 1
            if inner in parsed.lines:
                parsed.repeated.append((inner, line))
            items += _visit(key, inner, parsed, counted) + _visit(value, inner, parsed, counted)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            items += _visit(value, (*location, index), parsed, counted)
    elif node.tag == _INT and len(node.value) > LONGEST_NUMBER:
        raise yaml.YAMLError(f"a whole number has {len(node.value)} characters")
    if items > MOST_ITEMS:
        raise yaml.YAMLError(f"its anchors stand for more than {MOST_ITEMS} items")
    counted[id(node)] = items
    return items


@contextmanager
def _yaml_errors() -> Iterator[None]:
    """Turn everything that reading YAML can raise into a `yaml.YAMLError`.

    PyYAML's constructors leave it to int(), datetime() and others to refuse a scalar that only
    looks right (2001-99-99, a number of 5000 digits), and a deep nesting ends its recursion.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def abbreviate(value: Any) -> str:
    """Return a value for an error message, shortened: anchors can make a few lines endless."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes out no number of thousands of digits
        return f"a very large {type(value).__name__}"
