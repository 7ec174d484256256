"""Daemon: one way to be told to stop: Ctrl-C, SIGTERM, a deadline, or another part.

Knows signals and a clock, nothing else. Loops ask `is_set`, waits use `wait`. SIGHUP, which asks
a service to read its configuration again, is caught here as well.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stop:
    """An event that a signal or a deadline sets as well.

    Parameters
    ----------
    after_s : float, optional
        Seconds from now after which it is set by itself.
    """

    def __init__(self, after_s: float | None = None) -> None:
        self._event = threading.Event()
        self._deadline_s = None if after_s is None else time.monotonic() + after_s

    def set(self) -> None:
        """Tell everybody who asks to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        late = self._deadline_s is not None and time.monotonic() >= self._deadline_s
        return late or self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s`; return whether it is time to stop."""
        if self._deadline_s is not None:
            timeout_s = min(timeout_s, max(0.0, self._deadline_s - time.monotonic()))
        self._event.wait(timeout_s)
        return self.is_set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM set this, for as long as the block runs."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, lambda _number, _frame: self.set())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Hangup:
    """SIGHUP, counted until somebody asks.

    To a service it says: read the configuration again. To a program on a terminal it says that
    the terminal is gone, which ends it as ever.
    """

    def __init__(self) -> None:
        self._came = False

    def taken(self) -> bool:
        """Whether it came since the last call."""
        came, self._came = self._came, False
        return came

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Catch it for as long as the block runs, unless a terminal would send it."""
        if os.isatty(0):
            yield
            return
        before = signal.signal(signal.SIGHUP, lambda _number, _frame: self._note())
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _note(self) -> None:
        self._came = True
