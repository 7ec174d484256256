"""Daemon: the thread that reads the port, and the one bounded queue to the pipeline.

Passes on what `daemon.board.port` yields; decodes nothing.
"""

from __future__ import annotations

import contextlib
import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from daemon.board.port import Arrival, Chunk, read_port
from daemon.system.signals import StopEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.config.settings import SourceConfig

READ_QUEUE_LIMIT = 256
"""Reads that may wait for the pipeline: half a minute of a 10 Hz board. A read that finds no room
is dropped and counted; the decoder counts the lines that are damaged by it."""

STOP_CHECK_S = 0.25


class Reader:
    """Reads a port in a thread of its own, from `start` to `close`; may be started again.

    Attributes
    ----------
    dropped: reads that found no room in the queue.
    """

    def __init__(self) -> None:
        self._stop = StopEvent()
        self._queue: queue.Queue[Arrival | None] = queue.Queue(READ_QUEUE_LIMIT)
        self._executor: ThreadPoolExecutor | None = None
        self._work: Future[None] | None = None
        self.dropped = 0

    def start(self, source: SourceConfig) -> None:
        """Read a port from now on."""
        self._stop = StopEvent()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._work = self._executor.submit(self._read, source, self._stop)

    def close(self) -> None:
        """Stop reading; `next` still returns what was read before."""
        self._stop.set()
        if self._executor is not None:
            self._executor.shutdown()

    def next(self, timeout_s: float) -> Arrival | None:
        """Return the next arrival, None after the time or `wake`; raise the thread's error."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            if self._work is not None and self._work.done():
                self._work.result()
            return None

    def arrivals(self, timeout_s: float, longest_s: float) -> Iterator[Arrival]:
        """Yield the next arrival, as `next`, and those that wait behind it, for `longest_s`."""
        arrival = self.next(timeout_s)
        until_s = time.monotonic() + longest_s
        while arrival is not None:
            yield arrival
            arrival = self.next(0.0) if time.monotonic() < until_s else None

    def wake(self) -> None:
        """Let `next` return at once."""
        with contextlib.suppress(queue.Full):  # then `next` does not wait
            self._queue.put_nowait(None)

    def _read(self, source: SourceConfig, stop: StopEvent) -> None:
        for arrival in read_port(source, stop):
            if isinstance(arrival, Chunk):
                try:
                    self._queue.put_nowait(arrival)
                except queue.Full:
                    self.dropped += 1
                continue
            # An opening or a loss of the port must not be missed: wait for room.
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    self._queue.put(arrival, timeout=STOP_CHECK_S)
                    break
