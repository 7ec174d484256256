"""Ground floor: YAML from outside, read safely: plain values, or one kind of error.

May import yaml. Knows no file and no format: profiles, manifests, stores and configurations are
all read through here.
"""

from __future__ import annotations

import reprlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where libyaml is there; it makes no objects but plain ones."""

_INT = "tag:yaml.org,2002:int"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


LONGEST_NUMBER = 80
"""Characters of a whole number: what is longer can be neither a float nor written out again."""

MOST_ITEMS = 1_000_000
"""Of a document with its anchors written out; a dozen lines of them can stand for billions."""


def read_yaml(text: str | bytes) -> Any:
    """Return what a YAML document says.

    Raises
    ------
    yaml.YAMLError
        Whatever is wrong with it.
    """
    return read_yaml_with_nodes(text)[1]


def read_yaml_with_nodes(text: str | bytes) -> tuple[yaml.Node | None, Any]:
    """Return a document's tree, which knows the lines, and what it says.

    Raises
    ------
    yaml.YAMLError
        Whatever is wrong with it.
    """
    with _yaml_errors():
        loader = LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, None
            _count_items(node, {})
            return node, loader.construct_document(node)
        finally:
            loader.dispose()


def _count_items(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return how many items a tree holds, its anchors written out, or refuse it."""
    if (known := counted.get(id(node))) is not None:
        return known
    counted[id(node)] = MOST_ITEMS  # an anchor inside itself finds this, and is endless
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif node.tag == _INT and len(node.value) > LONGEST_NUMBER:
        raise yaml.YAMLError(f"a whole number has {len(node.value)} characters")
    items = 1 + sum(_count_items(part, counted) for part in inner)
    if items > MOST_ITEMS:
        raise yaml.YAMLError(f"its anchors stand for more than {MOST_ITEMS} items")
    counted[id(node)] = items
    return items


@contextmanager
def _yaml_errors() -> Iterator[None]:
    """Let everything that reading YAML can raise be a `yaml.YAMLError`.

    PyYAML's constructors leave it to int(), datetime() and others to refuse a scalar that only
    looks right (2001-99-99, a number of 5000 digits), and a deep nesting ends its recursion.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def shown(value: Any) -> str:
    """Return a value for an error message, never long: anchors can make a few lines endless."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes out no number of thousands of digits
        return f"a very large {type(value).__name__}"
