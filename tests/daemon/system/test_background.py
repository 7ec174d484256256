"""Work in the background: its progress, its result, its error, and its end when it is given up."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from daemon.system import background
from daemon.system.background import (
    HANGS,
    NICENESS,
    Data,
    Steps,
    Task,
    describe_progress,
    finish,
    in_process,
    in_thread,
)
from daemon.system.disk_thread import DiskThread
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


def test_a_thread_that_does_not_advance_says_so_and_what_waits_for_it_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "HANGS_AFTER_S", 0.3)
    answers, called = threading.Event(), []
    disk = DiskThread("test")
    disk.start()
    first = in_thread(answers.wait, doing="writing", disk=disk)
    second = in_thread(called.append, True, doing="reading", disk=disk)
    assert next(first) == {"doing": "writing"}
    assert next(second) == {"doing": "reading"}
    wait_until(lambda: HANGS in next(first), "the first to say that it waits")
    with pytest.raises(ScentdError, match="nothing can be read or written"):
        finish(second)
    answers.set()
    assert finish(first) is True
    assert disk.close(60.0)
    assert called == []


def test_long_work_that_computes_is_not_taken_for_a_disk_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "HANGS_AFTER_S", 0.3)

    def compute() -> int:
        until_s = time.thread_time() + 1.0
        rounds = 0
        while time.thread_time() < until_s:
            rounds += 1
        return rounds

    progress: list[Data] = []

    def show(data: Data) -> None:
        progress.append(data)
        time.sleep(0.02)

    assert finish(in_thread(compute, doing="computing"), show) > 0
    assert not [data for data in progress if HANGS in data]


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


def test_a_child_that_does_not_advance_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "HANGS_AFTER_S", 0.3)
    steps = in_process(f"{__name__}:wait", tmp_path / "pid", doing="wait")
    wait_until(lambda: HANGS in next(steps), "the child to be found waiting")
    steps.close()


def test_a_child_is_killed_when_the_work_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    steps = in_process(f"{__name__}:wait", file, doing="wait")
    next(steps)
    wait_until(lambda: file.exists() and file.read_text(), "the child to start")
    steps.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
