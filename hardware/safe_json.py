"""Ground floor: JSON from outside, and JSON files of state that vouch for themselves.

May import the standard library alone. YAML is read by `hardware.safe_yaml`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

_CHECKSUM = "sha256"


def read_json(text: str | bytes) -> Any:
    """Return the values of a JSON document.

    Raises
    ------
    ValueError: whatever is wrong with it: no JSON, no UTF-8, nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_state(values: dict[str, Any]) -> bytes:
    """Return the content of a state file: an object, with a checksum of all its values."""
    return json.dumps({**values, _CHECKSUM: _digest(values)}).encode()


def read_state(text: bytes) -> dict[str, Any]:
    """Return the object that `write_state` wrote, or one without a checksum.

    Raises
    ------
    ValueError: it is no JSON object, or not the one that was written.
    """
    values = read_json(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - the one error of bad content
    if values.pop(_CHECKSUM, None) not in (None, _digest(values)):
        raise ValueError("it is damaged: its checksum is wrong")
    return values


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
