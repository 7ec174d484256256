"""Ground floor: what the name of a smell may be.

May import the standard library alone. Pure.
"""

from __future__ import annotations

import re

from hardware.errors import UsageError

MAX_LABEL_LENGTH = 64
"""Characters of the name of a smell."""

_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')


def checked_label(text: str) -> str:
    """Return the name of a smell without the space around it.

    Raises
    ------
    UsageError: it cannot be a name.
    """
    label = text.strip()
    if not label or len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        raise UsageError(
            f"A smell's name has 1 to {MAX_LABEL_LENGTH} printable characters, got {text[:80]!r}."
        )
    return label


def folder_name(label: str) -> str:
    """Return a name of a folder for a smell, which is that folder alone and hidden nowhere.

    >>> folder_name("../tea / milk")
    '_.._tea _ milk'
    """
    name = _NOT_IN_NAMES.sub("_", label)
    return f"_{name}" if name.startswith(".") else name
