"""Daemon: long work outside the pipeline's thread, in another thread or a child process.

Such work is a generator: it yields its progress while it waits and returns the result, or raises
the error. The caller advances it between two readings. Work that does not advance, because a disk
hangs, says so in its progress.

Run as a program (`python -m daemon.system.background MODULE:FUNCTION`) this module is the child.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from daemon.system.disk_thread import HANGS_AFTER_S, DiskThread
from daemon.system.processor_time import of_process
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable

Data = dict[str, Any]

Steps = Generator[Data, None, Data]
"""Work in steps: yields its progress, and returns the data of the answer."""

HANGS = "hangs"
"""Key of a progress: the work does not advance. Its value says why, and what will become of it."""

NOT_BEGUN = (
    "The rig's disk does not answer, so nothing can be read or written there. The rig recognises "
    "meanwhile; ask again later, and look at the disk."
)
BEGUN = (
    "The rig's disk does not answer ({doing}: no progress for {seconds:.0f} s), unless another "
    "scentd command changes the same files. What was asked will be done when it answers; the rig "
    "recognises meanwhile. Look at the disk, and at what was done before you ask again."
)

NICENESS = 10
"""Of a child process: a fit takes seconds of a core, and readings must not wait for it."""

_KILLED_WITHIN_S = 0.5

_ROOT = Path(__file__).resolve().parents[2]

Progress = TypeVar("Progress")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Short:
    """Work of a moment, in steps only because it uses the disk."""

    steps: Steps


class OnDisk(Protocol):
    """Calls a function that uses the disk and returns its result: `at_once`, or `in_thread`."""

    def __call__(
        self, function: Callable[..., Result], *arguments: object, doing: str
    ) -> Generator[Data, None, Result]:
        """Call it; `doing` is the progress."""
        ...


class Task(Generic[Progress, Result]):
    """An unfinished generator, with the result once it has ended."""

    def __init__(self, steps: Generator[Progress, None, Result]) -> None:
        self.result: Result
        self._steps = self._run(steps)

    def _run(self, steps: Generator[Progress, None, Result]) -> Generator[Progress, None, None]:
        self.result = yield from steps

    def step(self) -> Progress | None:
        """Do one step and return its progress, None when there is a `result`."""
        return next(self._steps, None)

    def close(self) -> None:
        """Cancel the work."""
        self._steps.close()


def finish(
    steps: Generator[Progress, None, Result], show: Callable[[Progress], object] | None = None
) -> Result:
    """Do all steps, call `show` with the progress of each, and return the result."""
    task = Task(steps)
    while (progress := task.step()) is not None:
        if show is not None:
            show(progress)
    return task.result


def describe_progress(
    steps: Generator[Progress, None, Result], describe: Callable[[Progress], Data]
) -> Generator[Data, None, Result]:
    """Do all steps, but yield `describe` of their progress."""
    with contextlib.closing(Task(steps)) as task:
        while (progress := task.step()) is not None:
            yield describe(progress)
        return task.result


def result_of(answer: Data | Steps | Short, show: Callable[[Data], object] | None = None) -> Data:
    """Do here what a handler of requests has begun, as `finish` does, and return its answer."""
    if isinstance(answer, dict):
        return answer
    return finish(answer.steps if isinstance(answer, Short) else answer, show)


def at_once(
    function: Callable[..., Result], *arguments: object, doing: str
) -> Generator[Data, None, Result]:
    """Call a function here, in one step: in a command, which has no readings to process."""
    del doing
    yield from ()
    return function(*arguments)


def in_thread(
    function: Callable[..., Result],
    *arguments: object,
    doing: str,
    disk: DiskThread | None = None,
) -> Generator[Data, None, Result]:
    """Call a function in another thread; the end of the process does not wait for it.

    Parameters
    ----------
    doing: the progress: "loading substances-50".
    disk: does it after what was given to it before; without it, a thread of its own does.

    Raises
    ------
    ScentdError: the disk hangs, and the function was not called. Where it was, the progress says
        so, under HANGS, and the steps go on.
    """
    thread = disk
    if thread is None:
        thread = DiskThread("background")
        thread.start()
    future = thread.begin(function, *arguments)
    if disk is None:
        thread.close(0.0)
    try:
        while not future.done():
            idle_s = thread.idle_s
            if idle_s < HANGS_AFTER_S:
                yield {"doing": doing}
            elif future.cancel():
                raise ScentdError(NOT_BEGUN)
            else:
                yield {"doing": doing, HANGS: BEGUN.format(doing=doing, seconds=idle_s)}
    finally:
        future.cancel()  # does nothing to one that has begun
    return future.result()


def in_process(target: str, *arguments: object, doing: str) -> Generator[Data, None, Any]:
    """Call a function in a child process of low priority, which frees its memory when it ends.

    The child is killed when the generator is closed.

    Parameters
    ----------
    target: "module:function"; the child imports that module alone.
    arguments: of the function; pickled, as its result is.
    doing: the progress, and the error if there is no answer: "fit", "read the configuration".

    Raises
    ------
    ScentdError, OSError: as the function does, or because the child ended without an answer.
    """
    started_s = time.monotonic()
    with _memory_file("question") as question, _memory_file("answer") as answer:
        pickle.dump(arguments, question)
        question.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, target], stdin=question, stdout=answer, cwd=_ROOT
        )
        try:
            used = of_process(child.pid)
            while child.poll() is None:
                now_s, idle_s = time.monotonic(), used.idle_s()
                progress: Data = {"doing": doing, "seconds": round(now_s - started_s, 1)}
                if idle_s >= HANGS_AFTER_S:
                    progress[HANGS] = BEGUN.format(doing=doing, seconds=idle_s)
                yield progress
        finally:
            child.kill()  # does nothing to one that has ended
            with contextlib.suppress(subprocess.TimeoutExpired):  # a disk that hangs keeps it
                child.wait(_KILLED_WITHIN_S)
        answer.seek(0)
        data = answer.read()
    if child.returncode != 0 or not data:
        raise ScentdError(
            f"The process that was to {doing} ended without an answer (exit {child.returncode}); "
            "the system's log may say why (out of memory?). Try again, or on another machine with "
            "the rig's state_dir."
        )
    # Only our own child writes there: unpickling its answer is safe.
    outcome = pickle.loads(data)  # noqa: S301 - see above
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _memory_file(name: str) -> IO[bytes]:
    """Return a file that no disk has."""
    return os.fdopen(os.memfd_create(name), "w+b")


def main() -> None:
    """Run as the child: read the arguments, call the function, write its result or its error."""
    # systemd's filter of system calls may forbid this.
    with contextlib.suppress(PermissionError):
        os.nice(NICENESS)
    answer, sys.stdout = sys.stdout.buffer, sys.stderr  # printed text must not mix with the answer
    # Only the process that started this one writes there.
    arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - see above
    module, _, function = sys.argv[1].partition(":")
    outcome: object
    try:
        outcome = getattr(import_module(module), function)(*arguments)
    except (ScentdError, OSError) as error:
        outcome = error
    pickle.dump(outcome, answer)
    answer.flush()


if __name__ == "__main__":
    main()
