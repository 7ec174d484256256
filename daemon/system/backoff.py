"""Daemon: how long to wait before trying again: doubling and jittered, or evenly spread.

Pure: knows no clock and no thread.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

JITTER = 0.5
"""A wait is shortened at random by up to this share of itself."""


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Waits of first_s, 2 * first_s, 4 * first_s ... up to longest_s seconds, each jittered."""

    first_s: float
    longest_s: float
    source: random.Random = field(default_factory=random.Random)
    _failures: int = 0

    def next_s(self) -> float:
        """Return how many seconds to wait after one more failure."""
        # Without the limit of 32, the power overflows after many failures.
        wait_s = min(self.longest_s, self.first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return wait_s * (1.0 - JITTER * self.source.random())

    def reset(self) -> None:
        """Begin with the shortest wait again, after a success."""
        self._failures = 0


@dataclass(slots=True, kw_only=True)
class EvenWaits:
    """Waits that keep the attempts of many clients apart: the first is random, the others equal.

    Clients that failed together try again at times spread evenly over `every_s`, and equal waits
    keep them so: n clients make n / every_s attempts a second, whenever the server is back. Waits
    that are each random would bunch up the attempts for a while (the density of a renewal process).

    Attributes
    ----------
    first_s: shortest wait.
    every_s: the first wait is between first_s and first_s + every_s, every later one is every_s.
    source: of randomness.
    """

    first_s: float
    every_s: float
    source: random.Random = field(default_factory=random.Random)
    _is_spread: bool = False

    def next_s(self) -> float:
        """Return how many seconds to wait after one more failure."""
        if self._is_spread:
            return self.every_s
        self._is_spread = True
        return self.first_s + self.every_s * self.source.random()

    def reset(self) -> None:
        """Draw the next wait at random again, after a success."""
        self._is_spread = False
