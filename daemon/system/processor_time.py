"""Daemon: how long a thread or process has used no processor time, as one that waits for a disk.

What computes uses processor time all the time, and what reads or writes much uses some now and
then: the time that work takes cannot tell whether the disk hangs, but this can. Linux alone.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

LEAST_USED_S = 0.001
"""Processor time that counts as progress; one that only waits uses less."""


class ProcessorTime:
    """The processor time of one thread or process, from now on.

    Parameters
    ----------
    clock: of the thread or process, as `of_this_thread` and `of_process` return it.
    """

    def __init__(self, clock: int) -> None:
        self._clock = clock
        self._used_s = self._read_s()
        self._since_s = time.monotonic()

    def idle_s(self) -> float:
        """Return for how many seconds none was used, as far as earlier calls have seen it."""
        used_s, now_s = self._read_s(), time.monotonic()
        if used_s - self._used_s >= LEAST_USED_S:
            self._used_s, self._since_s = used_s, now_s
        return now_s - self._since_s

    def _read_s(self) -> float:
        with suppress(OSError):  # it has just ended
            return time.clock_gettime(self._clock)
        return 0.0


def of_this_thread() -> ProcessorTime:
    """Return the processor time of the calling thread."""
    return ProcessorTime(time.pthread_getcpuclockid(threading.get_ident()))


def of_process(pid: int) -> ProcessorTime:
    """Return the processor time of a process, such as a child."""
    # As clock_getcpuclockid(3) forms the number, which Python does not offer.
    return ProcessorTime(~pid << 3 | 2)
