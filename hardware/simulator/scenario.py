"""Simulator: what is in the air and when, and its text form.

May import errors. Pure; must know nothing of boards or tables.

A scenario is a comma-separated list of episodes. An episode is what is in the air and for how
many seconds: ``almond:60``, ``air:30``, half the usual concentration ``almond=.5:60``, several
substances at once ``banana=.5+mango=.5:60``. The two published kinds of recording write some names
differently, clove and cloves; a scenario may use either for any board.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

AIR = "air"
"""Clean air; it has no concentration and is not part of a mixture."""

MAX_CONCENTRATION = 100.0
"""Relative to the recordings; the fitted power law does not hold for more."""

_EXAMPLE = "almond:60,air:30,banana=.5+mango=.5:60"


@dataclass(frozen=True, slots=True)
class Episode:
    """Something in the air for a while.

    Attributes
    ----------
    components: substance and concentration, relative to that of the recordings (1.0); empty
        for clean air.
    duration_s: seconds, above zero.
    """

    components: tuple[tuple[str, float], ...]
    duration_s: float

    def __str__(self) -> str:
        """Return the text form, which parses back to the same value."""
        names = [
            name if concentration == 1 else f"{name}={concentration!r}"
            for name, concentration in self.components
        ]
        return f"{'+'.join(names) or AIR}:{self.duration_s!r}"


def parse_scenario(text: str, substances: Collection[str]) -> tuple[Episode, ...]:
    """Return the episodes of a scenario's text, with names from `substances` and ``air``.

    A name is understood in the singular and in the plural; the episodes have the board's own.

    Raises
    ------
    UsageError
        Anything that cannot be read, naming the episode.

    Examples
    --------
    >>> air = parse_scenario("almond:60,air:30", {"almond"})[1]
    >>> [air.components, air.duration_s]
    [(), 30.0]
    """
    items = [item.strip() for item in text.split(",")]
    if not any(items):
        raise UsageError(f"A scenario needs at least one episode, as in {_EXAMPLE}; got {text!r}.")
    return tuple(_episode(item, substances) for item in items)


def _episode(item: str, substances: Collection[str]) -> Episode:
    mixture, colon, seconds = item.rpartition(":")
    duration_s = _positive(seconds)
    if not colon or duration_s is None:
        raise UsageError(
            f"Episode {item!r} must end in ':' and a number of seconds above zero; "
            f"write it as in {_EXAMPLE}."
        )
    if mixture.strip() == AIR:
        return Episode((), duration_s)
    components = tuple(_component(part.strip(), item, substances) for part in mixture.split("+"))
    names = [name for name, _ in components]
    if len(set(names)) < len(names):
        raise UsageError(f"Episode {item!r} names a substance twice; add its concentrations up.")
    return Episode(components, duration_s)


def _component(part: str, item: str, substances: Collection[str]) -> tuple[str, float]:
    name, equals, number = part.partition("=")
    name = name.strip()
    if name == AIR:
        raise UsageError(
            f"Episode {item!r} mixes air with something: air is what everything is in. "
            "Leave it out, or give it an episode of its own."
        )
    substance = find_substance(name, substances)
    if substance is None:
        raise UsageError(
            f"Episode {item!r} names {name!r}, which this board has no fingerprint of. "
            f"It knows: {AIR}, {', '.join(sorted(substances))}."
        )
    concentration = _positive(number) if equals else 1.0
    if concentration is None or concentration > MAX_CONCENTRATION:
        raise UsageError(
            f"Episode {item!r} gives {name} the concentration {number!r}; it must be a number "
            f"above 0 and at most {MAX_CONCENTRATION:g}, 1 being that of the recordings."
        )
    return substance, concentration


def find_substance(name: str, substances: Collection[str]) -> str | None:
    """Return a board's own name of a substance written in the singular or plural, or None.

    Examples
    --------
    >>> find_substance("cloves", {"clove", "chives"})
    'clove'
    """
    forms = (name, name.removesuffix("s"), f"{name}s")
    return next((form for form in forms if form in substances), None)


def _positive(text: str) -> float | None:
    """Return a finite number above zero, or None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
