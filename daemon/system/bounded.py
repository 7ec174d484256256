"""Daemon: calls a function on content that nobody vouches for, in a child with bounds.

The child has low priority, its memory, processor time and files are limited, and it has the
effective rights of this process alone. Its answer is JSON, which cannot run code here; work
on the rig's own data goes through `daemon.system.background`, which has no bounds.

Run as a program (`python -m daemon.system.bounded MODULE:FUNCTION`) this module is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.system.owner import keep_only, with_own_rights
from hardware.errors import ScentdError
from hardware.safe_json import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

NICENESS = 10
POLL_S = 0.02
ANSWER_BYTES = 1 << 20
MEGABYTE = 1 << 20

_ROOT = Path(__file__).resolve().parents[2]
_OOM_SCORE = "/proc/self/oom_score_adj"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class OutOfBoundsError(ScentdError):
    """The child needed more than it may have, or ended without an answer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may use.

    Attributes
    ----------
    memory_mb: of memory, in mebibytes.
    cpu_s: of processor time.
    wall_s: of time.
    file_mb: of every file that it writes, in mebibytes.
    """

    memory_mb: int
    cpu_s: int
    wall_s: float
    file_mb: int


def call_bounded(
    target: str,
    *arguments: object,
    bounds: Bounds,
    errors: Mapping[str, type[ScentdError]],
    descriptors: tuple[int, ...] = (),
) -> Any:
    """Call a function in a bounded child; return what it returns, a JSON value.

    Parameters
    ----------
    target: "module:function"; the child imports that module alone.
    arguments: of the function.
    bounds: what the child may use.
    errors: types of errors by their names; one that the function raises is raised here with its
        text, one of another type as OutOfBoundsError.
    descriptors: open files that the child inherits, under the same numbers.

    Raises
    ------
    OutOfBoundsError: the child was ended at a bound, or ended by itself without an answer.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
        pickle.dump((astuple(bounds), os.geteuid(), os.getegid(), arguments), question)
        question.seek(0)
        with with_own_rights():  # the child gives them up as soon as its own code is loaded
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, target],
                stdin=question,
                stdout=answer,
                cwd=_ROOT,
                env=environment,
                pass_fds=descriptors,
            )
        try:
            why = _wait(child, bounds)
        finally:
            with with_own_rights():
                child.kill()  # does nothing to one that has ended
            child.wait()
        answer.seek(0)
        data = answer.read(ANSWER_BYTES)
    if why is not None or child.returncode != 0:
        raise OutOfBoundsError(why or _describe_end(child.returncode, bounds))
    try:
        outcome = read_json(data)
        if "error" in outcome:
            raise errors.get(outcome["error"], OutOfBoundsError)(str(outcome["text"]))
        return outcome["value"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutOfBoundsError("the process that tried it gave no answer") from error


def _wait(child: subprocess.Popen[bytes], bounds: Bounds) -> str | None:
    """Wait for a child's end; return the bound at which it must be ended, if it reaches one."""
    # The kernel enforces the same limits, but systemd's filter of system calls may forbid to set
    # them; and it counts memory that was reserved, this what is used.
    began_s = time.monotonic()
    while child.poll() is None:
        if time.monotonic() - began_s > bounds.wall_s:
            return f"it takes more than {bounds.wall_s:g} s"
        if _resident_bytes(child.pid) > bounds.memory_mb * MEGABYTE:
            return f"it takes more than {bounds.memory_mb} MiB of memory"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
    return None


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0  # it has just ended


def _describe_end(code: int, bounds: Bounds) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGABRT):
        return (
            f"it takes more than {bounds.memory_mb} MiB of memory or {bounds.cpu_s} s of processor "
            "time"
        )
    return f"the process that tried it ended with {code}"


def _enter(bounds: Bounds) -> None:
    """Set the limits of this process."""
    with contextlib.suppress(OSError):  # systemd's filter of system calls may forbid these
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # if memory runs out, this process is ended, not the service
        Path(_OOM_SCORE).write_text("1000")
    for kind, limit in (
        (resource.RLIMIT_DATA, bounds.memory_mb * MEGABYTE),
        (resource.RLIMIT_FSIZE, bounds.file_mb * MEGABYTE),
        (resource.RLIMIT_CPU, bounds.cpu_s),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Run as the child: set the limits, call the function, write its result or its error."""
    # Only the process that started this one writes there.
    limits, uid, gid, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - see above
    answer, sys.stdout = sys.stdout.buffer, sys.stderr  # printed text must not mix with the answer
    module, _, name = sys.argv[1].partition(":")
    function = getattr(import_module(module), name)
    bounds = Bounds(*limits)
    _enter(bounds)
    keep_only(uid, gid)
    outcome: dict[str, Any]
    try:
        outcome = {"value": function(*arguments)}
    except (ScentdError, OSError) as error:
        outcome = {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        text = f"it takes more than {bounds.memory_mb} MiB of memory"
        outcome = {"error": "OutOfBoundsError", "text": text}
    answer.write(json.dumps(outcome).encode(errors="replace"))
    answer.flush()


if __name__ == "__main__":
    main()
