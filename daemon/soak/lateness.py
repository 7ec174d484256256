"""Soak: how long this machine let the service wait for a processor.

A busy machine must not be taken for a slow service.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP_S = 0.05
_COUNTED_S = 0.01
"""Shorter delays are usual on an idle machine."""


class Lateness:
    """Measures in a thread of its own while its block runs; the limits are extended by it.

    It adds up how late its own thread wakes, and how long the threads of the service were ready to
    run and did not (the second number of /proc/PID/task/TID/schedstat; nothing where the kernel
    does not count it).

    Parameters
    ----------
    pid: returns the service's process, None while there is none.
    """

    def __init__(self, pid: Callable[[], int | None] = lambda: None) -> None:
        self._pid = pid
        self._waited_s: dict[str, float] = {}
        self._late: list[tuple[float, float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lateness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            start_s, before_s = time.time(), time.monotonic()
            self._stop.wait(_STEP_S)
            late_s = time.monotonic() - before_s - _STEP_S + self._service_waited_s()
            if late_s > _COUNTED_S:
                self._late.append((start_s, time.time(), late_s))

    def _service_waited_s(self) -> float:
        """Return how long the service's threads waited for a processor since the last call."""
        pid = self._pid()
        if pid is None:
            return 0.0
        before, self._waited_s = self._waited_s, {}
        with suppress(OSError, ValueError, IndexError):  # a thread, or the process, has ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                numbers = (thread / "schedstat").read_text(encoding="ascii").split()
                self._waited_s[thread.name] = int(numbers[1]) / 1e9
        return sum(
            max(0.0, waited_s - before.get(name, 0.0)) for name, waited_s in self._waited_s.items()
        )

    def total_s(self) -> float:
        """Return the sum of all delays so far."""
        return sum(late_s for *_, late_s in tuple(self._late))

    def between_s(self, start_s: float, end_s: float) -> float:
        """Return the sum of the delays that touch the time between two since 1970."""
        return sum(
            late_s
            for from_s, to_s, late_s in tuple(self._late)
            if start_s <= to_s and end_s >= from_s
        )
