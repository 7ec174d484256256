"""Ground floor: numbers of things in messages: `1 reading`, `2 readings`. Imports nothing."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is shown as 1."""
    shown = f"{number:.3g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun}{'' if shown == '1' else 's'}"
