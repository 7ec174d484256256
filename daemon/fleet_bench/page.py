"""Daemon: measures the page's server, `scentd web`, on a broker with many rigs."""

from __future__ import annotations

import importlib.util
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.sandbox import process_usage
from daemon.sandbox.web_process import WebProcess
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 1.0
LONGEST_S = 120.0
_EVERY_RIG = b"\nscentd_readings_total{"
"""Begins a line of `/metrics` for each rig whose `health` has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRun:
    """The page's server.

    Attributes
    ----------
    took_s: from its start until it knew the state of every rig.
    scrape_s: for `/metrics`.
    resident_mb: afterwards.
    percent: of one core, for all messages of the rigs.
    """

    took_s: float
    scrape_s: float
    resident_mb: float
    percent: float


def measure_page(config: Path, rigs: int, duration_s: float) -> PageRun | None:
    """Start it for the broker of a configuration; return None without the extra `web`.

    Raises
    ------
    ScentdError: it did not come to know every rig.
    """
    if importlib.util.find_spec("uvicorn") is None:
        return None
    started_s = time.monotonic()
    with WebProcess(config) as web:
        while True:
            asked_s = time.monotonic()
            # The address is that of a process started here, on the loopback interface.
            with urllib.request.urlopen(f"{web.address}metrics") as answer:  # noqa: S310
                known = answer.read().count(_EVERY_RIG)
            now_s = time.monotonic()
            if known >= rigs:
                break
            if now_s - started_s > LONGEST_S:
                raise ScentdError(f"The page knew {known} of {rigs} rigs after {LONGEST_S:.0f} s.")
            time.sleep(POLL_S)
        before_s = process_usage.processor_s(web.pid)
        time.sleep(duration_s)
        spent_s = process_usage.processor_s(web.pid) - before_s
        return PageRun(
            took_s=now_s - started_s,
            scrape_s=now_s - asked_s,
            resident_mb=process_usage.resident_mb(web.pid),
            percent=100 * spent_s / duration_s,
        )
