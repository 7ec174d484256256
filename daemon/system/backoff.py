"""Daemon: how long to wait before trying again: doubling, bounded, and jittered.

Pure: knows no clock and no thread. Without jitter, all rigs of a fleet would reconnect to a
restarted broker at the same instant.
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
