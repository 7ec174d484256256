"""Daemon: the time of day, and whether it can be trusted.

A Raspberry Pi has no battery-backed clock: until a time server has answered, its time of day is
wrong, which every payload states (`clock_synced`).
"""

from __future__ import annotations

import ctypes
import time

_TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""

_TIMEX_BYTES = 256
"""Room for struct timex (208 bytes on 64-bit Linux); all zero, nothing is changed."""

_libc = ctypes.CDLL(None, use_errno=True)


def unix_ms() -> int:
    """Return the time of day in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def clock_synced() -> bool:
    """Whether the kernel's clock is synchronised to a time server."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state: int = _libc.adjtimex(buffer)
    return 0 <= state < _TIME_ERROR
