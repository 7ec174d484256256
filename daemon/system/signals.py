"""Daemon: stops loops on Ctrl-C, SIGTERM, a deadline or a call, and receives SIGHUP.

Loops test `is_set`, waits use `wait`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class StopEvent:
    """An event that a signal, or the deadline `after_s` seconds from now, sets as well."""

    def __init__(self, after_s: float | None = None) -> None:
        self._event = threading.Event()
        self._noticed = threading.Event()  # by the loop that tests it
        self._deadline_s = None if after_s is None else time.monotonic() + after_s

    def set(self) -> None:
        """Tell the loops that test it to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        late = self._deadline_s is not None and time.monotonic() >= self._deadline_s
        if late or self._event.is_set():
            self._noticed.set()
            return True
        return False

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s`; return whether it is time to stop."""
        if self._deadline_s is not None:
            timeout_s = min(timeout_s, max(0.0, self._deadline_s - time.monotonic()))
        self._event.wait(timeout_s)
        return self.is_set()

    @contextmanager
    def on_signals(self, *more: signal.Signals) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and `more` set it while the block runs."""
        numbers = (signal.SIGINT, signal.SIGTERM, *more)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, lambda _number, _frame: self.set())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def noticed_within(self, seconds: float) -> Iterator[None]:
        """End the process `seconds` after SIGTERM or Ctrl-C if no loop has noticed that by then.

        A main thread that waits for a disk, as at a start, runs no signal handlers of Python.
        """
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)

        def watch() -> None:
            while numbers := ours.recv(64):
                ends = {signal.SIGTERM, signal.SIGINT} & set(numbers)
                if ends and not self._noticed.wait(seconds):
                    os.write(2, b"scentd: ended while it waited, most likely for a disk.\n")
                    os._exit(0)

        threading.Thread(target=watch, name="signals", daemon=True).start()
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.close()


class ReloadSignal:
    """SIGHUP, the request to read the configuration again.

    On a terminal it means that the terminal was closed, and ends the program as usual.
    """

    def __init__(self) -> None:
        self._received = False

    def received(self) -> bool:
        """Whether it was received since the last call."""
        received, self._received = self._received, False
        return received

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Catch it while the block runs, unless a terminal would send it."""
        if os.isatty(0):
            yield
            return
        before = signal.signal(signal.SIGHUP, lambda _number, _frame: self._set())
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _set(self) -> None:
        self._received = True
