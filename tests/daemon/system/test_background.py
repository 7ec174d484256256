"""Work in the background: its progress, its result, its error, and its end when it is given up."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from daemon.system.background import (
    NICENESS,
    Data,
    Steps,
    Task,
    describe_progress,
    finish,
    in_process,
    in_thread,
)
from hardware.errors import ScentdError, UsageError
from tests.sandbox import wait_until


def count(limit: int) -> Steps:
    for number in range(limit):
        yield {"number": number}
    return {"counted": limit}


def test_a_task_gives_the_progress_of_every_step_and_then_the_result() -> None:
    task = Task(count(2))
    assert [task.step(), task.step(), task.step()] == [{"number": 0}, {"number": 1}, None]
    assert task.result == {"counted": 2}


def test_finish_shows_the_progress_and_returns_the_result() -> None:
    shown: list[Data] = []
    assert finish(count(2), shown.append) == {"counted": 2}
    assert shown == [{"number": 0}, {"number": 1}]


def test_progress_is_described_and_closing_reaches_the_steps_below() -> None:
    closed = []

    def numbers() -> Steps:
        try:
            return (yield from count(3))
        finally:
            closed.append(True)

    steps = describe_progress(numbers(), lambda progress: {"text": str(progress["number"])})
    assert next(steps) == {"text": "0"}
    steps.close()
    assert closed == [True]


def test_a_thread_does_the_work_and_its_error_is_raised() -> None:
    steps = in_thread(threading.current_thread, doing="looking")
    assert finish(steps) is not threading.current_thread()
    release = threading.Event()
    waiting = in_thread(release.wait, 60, doing="waiting")
    assert next(waiting) == {"doing": "waiting"}
    release.set()
    assert finish(waiting) is True
    with pytest.raises(ZeroDivisionError):
        finish(in_thread(divmod, 1, 0, doing="dividing"))


def work(path: Path) -> dict[str, int]:
    """Be run in the child."""
    sys.stdout.write("whatever a library prints")
    return {"bytes": len(path.read_bytes()), "niceness": os.nice(0), "pid": os.getpid()}


def refuse() -> None:
    raise UsageError("Not like this.")


def die() -> None:
    os._exit(3)


def wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_a_niced_child_does_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    shown: list[Data] = []
    result = finish(in_process(f"{__name__}:work", file, doing="measure"), shown.append)
    assert result["bytes"] == 5
    assert result["niceness"] == min(19, os.nice(0) + NICENESS)
    assert result["pid"] != os.getpid()
    assert {progress["doing"] for progress in shown} == {"measure"}


def test_the_childs_error_is_raised_with_its_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Not like this"):
        finish(in_process(f"{__name__}:refuse", doing="refuse"))
    with pytest.raises(FileNotFoundError):
        finish(in_process(f"{__name__}:work", tmp_path / "nothing", doing="measure"))


def test_a_child_that_ends_without_an_answer_is_reported() -> None:
    with pytest.raises(ScentdError, match=r"was to vanish ended without an answer \(exit 3\)"):
        finish(in_process(f"{__name__}:die", doing="vanish"))


def test_a_child_is_killed_when_the_work_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    steps = in_process(f"{__name__}:wait", file, doing="wait")
    next(steps)
    wait_until(lambda: file.exists() and file.read_text(), "the child to start")
    steps.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
