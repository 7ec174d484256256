"""Daemon: a thread for work on the disk, which nobody has to wait for.

A worn SD card, a network file system or a frozen one may not answer for minutes. The work is done
one task after the other; the others hand it over, or wait for a bounded time. Knows no file.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from daemon.system.logs import get_logger
from daemon.system.processor_time import of_this_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.system.processor_time import ProcessorTime

Result = TypeVar("Result")

HANGS_AFTER_S = 5.0
"""A disk that has not answered for so long hangs. An SD card that reorganises its blocks may need a
second or two for a write."""

_ASK_AGAIN_S = 0.1


class DiskHangsError(OSError):
    """The disk has not answered in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the disk has not answered for {seconds:.0f} s")


class DiskThread:
    """Does tasks one after the other; a task that raises an error does not end the thread.

    Parameters
    ----------
    name: of the thread.
    on_end: called in the thread whenever a task has ended.
    """

    def __init__(self, name: str, on_end: Callable[[], object] = lambda: None) -> None:
        self._on_end = on_end
        self._tasks: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._busy_since_s = math.inf
        self._processor_time: ProcessorTime | None = None  # of the task that was begun
        self._closing = self._abandoned = False
        self._log = get_logger("disk")
        # A task that the kernel does not give back must not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, now, since later there may be no memory for it."""
        if self._thread.ident is None:
            self._thread.start()

    def submit(self, task: Callable[[], object], *, limit: float = math.inf) -> bool:
        """Let a task be done; return False where `limit` tasks wait already, or after `close`."""
        with self._changed:
            if self._closing or len(self._tasks) >= limit:
                return False
            self._tasks.append(task)
            self._changed.notify_all()
        return True

    def begin(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        late: Callable[[Result | None], object] = lambda _: None,
    ) -> Future[Result]:
        """Let a function be called; return its result or error to come.

        Parameters
        ----------
        late: called in the thread, with the result or None after an error, if it ended when `call`
            did not wait for it any more.

        Raises
        ------
        DiskHangsError: the thread was closed.
        """
        future: Future[Result] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            result = None
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised again by `result`
                future.set_exception(error)
            else:
                future.set_result(result)
            with self._changed:
                too_late = self._abandoned
            if too_late:
                late(result)

        if not self.submit(task):
            raise DiskHangsError(self.unanswered_s)
        return future

    def call(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        until_s: Callable[[float], float],
        late: Callable[[Result | None], object],
    ) -> Result:
        """Return what a function returns, or raise its error.

        Parameters
        ----------
        until_s: returns, from the time at which it was begun, how long to wait for it, both on the
            monotonic clock; asked again and again.
        late: as of `begin`.

        Raises
        ------
        DiskHangsError: it has not ended in time, or what was begun before it has not.
        """
        with self._changed:
            abandoned = self._abandoned
        if abandoned:
            raise DiskHangsError(self.unanswered_s)
        future = self.begin(function, *arguments, late=late)
        begun_s = time.monotonic()
        while (left_s := until_s(begun_s) - time.monotonic()) > 0 and not future.done():
            with suppress(TimeoutError, CancelledError):
                future.exception(min(left_s, _ASK_AGAIN_S))
        with self._changed:
            if not future.done():
                self._abandoned = not future.cancel()  # where it has begun
                raise DiskHangsError(time.monotonic() - begun_s)
        return future.result()

    @property
    def waiting(self) -> int:
        """Tasks that have not ended."""
        with self._changed:
            return len(self._tasks) + (self._busy_since_s != math.inf)

    @property
    def unanswered_s(self) -> float:
        """Seconds since the task was begun that has not ended; 0 where there is none."""
        with self._changed:
            return max(0.0, time.monotonic() - self._busy_since_s)

    @property
    def idle_s(self) -> float:
        """Seconds for which the task that was begun has used no processor time; 0 without one.

        Unlike `unanswered_s` it tells work that takes long from a disk that hangs, if it is read
        again and again.
        """
        with self._changed:
            return 0.0 if self._processor_time is None else self._processor_time.idle_s()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all tasks have ended; return whether they have in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._tasks and self._busy_since_s == math.inf, timeout_s
            )

    def discard(self) -> int:
        """Forget the tasks that have not begun; return how many there were."""
        with self._changed:
            forgotten = len(self._tasks)
            self._tasks.clear()
        return forgotten

    def close(self, timeout_s: float) -> bool:
        """Do the remaining tasks and end the thread; return whether that was done in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._busy_since_s = math.inf
                self._processor_time = None
                self._abandoned = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._tasks or self._closing)
                if not self._tasks:
                    return
                task = self._tasks.popleft()
                self._busy_since_s = time.monotonic()
                self._processor_time = of_this_thread()
            try:
                task()
            except Exception:  # noqa: BLE001 - a bug of one task must not end the others
                self._log.exception("a task of the disk failed", thread=self._thread.name)
            self._on_end()
