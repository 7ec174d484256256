"""Daemon: asking a child process, which then goes away and takes its memory along.

Work in steps: whoever asks is asked to come again until the answer is there. Knows nothing of what
is asked; a child is a module of the daemon that pickles its answer, or its error, to standard
output.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable


Data = dict[str, Any]

Steps = Generator[Data, None, Data]
"""Long work: yields how far it is (what `progress` says) and returns the answer's data."""

_ROOT = Path(__file__).resolve().parents[2]


def answer_of(
    module: str, *arguments: str, question: bytes = b"", doing: str
) -> Generator[Data, None, Any]:
    """Run a module in a child and return what it pickled; yields while it works.

    The child is killed when nobody wants its answer any more.

    Parameters
    ----------
    module : str
        As `python -m` takes it.
    arguments : str
        Of its command line.
    question : bytes
        For its standard input.
    doing : str
        What it is to do: "fit", "read the configuration".

    Raises
    ------
    ScentdError
        As the child answered, or because it ended without an answer.
    """
    began_s = time.monotonic()
    with tempfile.TemporaryFile() as answer:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=answer,
            cwd=_ROOT,
        )
        try:
            with child.stdin as pipe:  # type: ignore[union-attr]
                pipe.write(question)
            while child.poll() is None:
                yield {"doing": doing, "seconds": round(time.monotonic() - began_s, 1)}
        finally:
            if child.poll() is None:
                child.kill()
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
    if isinstance(outcome, ScentdError):
        raise outcome
    return outcome


Result = TypeVar("Result")


def beside(work: Callable[[], Result], told: Data) -> Generator[Data, None, Result]:
    """Do work in a thread of its own and yield meanwhile; a stop does not wait for it."""
    outcome: list[Result] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            trouble.append(error)

    thread = threading.Thread(target=run, name="loader", daemon=True)
    thread.start()
    while thread.is_alive():
        yield told
    if trouble:
        raise trouble[0]
    return outcome[0]
