"""Daemon: `request/sample`: raw readings on `sample` for a while.

A page asks for them as long as it is open. Knows only how long; the service publishes them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.system.background import Data

SAMPLE = "sample"
"""Name of the request."""

SAMPLE_SECONDS = (1.0, 600.0)
"""Shortest and longest time of one request; repeated requests extend it."""


class Samples:
    """Until when raw readings were asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = 0.0

    def extend(self, *, seconds: float) -> Data:
        """Publish readings for so many seconds from now on, or longer if that was asked before."""
        now_s = self._clock()
        self._until_s = max(self._until_s, now_s + seconds)
        return {"seconds": round(self._until_s - now_s, 1)}

    def wanted(self) -> bool:
        """Whether a reading is to be published now."""
        return self._clock() < self._until_s
