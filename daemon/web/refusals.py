"""Daemon: counts the requests that the web server refuses, and logs the first of each kind.

A client that sends requests in a loop must not fill the log.
"""

from __future__ import annotations

import time
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_EVERY_S = 600.0
"""Seconds after which a refusal of the same kind is logged again, with the number since then."""


class Refusal(StrEnum):
    """Why a request is refused, or a page is cut."""

    HOST = "unknown_host"
    CALLER = "not_the_proxy"
    ORIGIN = "other_site"
    TOKEN = "no_token"  # noqa: S105 - the name of a reason
    WRONG_TOKEN = "wrong_token"  # noqa: S105 - the name of a reason
    BODY = "body"
    LABEL = "label"
    PATH = "path"
    TOO_MANY = "too_many_pages"
    SLOW = "slow_page"


class RefusalLog:
    """Counts refusals by kind, and logs them seldom."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[Refusal] = Counter()
        self._clock = clock
        self._log = get_logger("web")
        self._logged: dict[Refusal, tuple[float, int]] = {}

    def add(self, kind: Refusal, detail: str) -> None:
        """Count a refusal; log it if none of its kind was logged in the last ten minutes."""
        self.counts[kind] += 1
        logged_s, count = self._logged.get(kind, (-LOG_EVERY_S, 0))
        if self._clock() - logged_s < LOG_EVERY_S:
            return
        self._logged[kind] = self._clock(), self.counts[kind]
        self._log.warning(
            "a request is refused",
            kind=str(kind),
            detail=detail[:200],
            since_last_line=self.counts[kind] - count,
        )
