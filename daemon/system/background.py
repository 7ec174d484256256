"""Daemon: long work outside the pipeline's thread, in another thread or a child process.

Long work is a generator: it yields its progress while it waits and returns the result, or raises
the error. The caller advances it between two readings.

Run as a program (`python -m daemon.system.background MODULE:FUNCTION`) this module is the child.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable

Data = dict[str, Any]

Steps = Generator[Data, None, Data]
"""Long work: yields its progress, and returns the data of the answer."""

NICENESS = 10
"""Of a child process: a fit takes seconds of a core, and readings must not wait for it."""

_ROOT = Path(__file__).resolve().parents[2]

Progress = TypeVar("Progress")
Result = TypeVar("Result")


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


def in_thread(
    function: Callable[..., Result], *arguments: object, doing: str
) -> Generator[Data, None, Result]:
    """Call a function in a thread of its own; the end of the process does not wait for it.

    `doing` is the progress: "loading substances-50".
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    while not future.done():
        yield {"doing": doing}
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
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
        pickle.dump(arguments, question)
        question.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, target], stdin=question, stdout=answer, cwd=_ROOT
        )
        try:
            while child.poll() is None:
                yield {"doing": doing, "seconds": round(time.monotonic() - started_s, 1)}
        finally:
            child.kill()  # does nothing to one that has ended
            child.wait()
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
