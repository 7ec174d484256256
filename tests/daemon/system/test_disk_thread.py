"""Work on a disk that hangs: nobody waits for it, and it is finished or undone when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from daemon.system.disk_thread import DiskHangsError, DiskThread
from tests.sandbox import wait_until


@pytest.fixture
def disk() -> Iterator[DiskThread]:
    disk = DiskThread("test")
    disk.start()
    yield disk
    disk.close(60.0)


def at_once(begun_s: float) -> float:
    return begun_s + 0.05


def patiently(begun_s: float) -> float:
    return begun_s + 60.0


def test_results_and_errors_are_those_of_the_function(disk: DiskThread) -> None:
    late: list[object] = []
    for number in range(1000):
        assert disk.call(lambda n=number: n * 2, until_s=patiently, late=late.append) == number * 2
    with pytest.raises(ZeroDivisionError):
        disk.call(lambda: 1 / 0, until_s=patiently, late=late.append)
    assert late == []


def test_what_hangs_is_given_up_and_nothing_else_is_begun_until_it_ends(disk: DiskThread) -> None:
    answers = threading.Event()
    late: list[object] = []

    def hang() -> str:
        answers.wait()
        return "late"

    with pytest.raises(DiskHangsError, match="has not answered"):
        disk.call(hang, until_s=at_once, late=late.append)
    with pytest.raises(DiskHangsError):
        disk.call(lambda: "never begun", until_s=patiently, late=late.append)
    assert disk.unanswered_s > 0
    assert not disk.wait(0.0)
    answers.set()
    wait_until(lambda: late == ["late"], "what came too late")
    assert disk.wait(60.0)
    assert disk.call(lambda: "again", until_s=patiently, late=late.append) == "again"


def test_a_wait_in_progress_is_cut_when_the_end_comes(disk: DiskThread) -> None:
    answers, until_s = threading.Event(), [time.monotonic() + 3600.0]
    timer = threading.Timer(0.1, lambda: until_s.__setitem__(0, 0.0))
    timer.start()
    with pytest.raises(DiskHangsError):
        disk.call(answers.wait, until_s=lambda _: until_s[0], late=lambda _: None)
    answers.set()
    timer.join()


def test_tasks_beyond_the_limit_and_those_left_at_the_end_are_not_done(disk: DiskThread) -> None:
    answers, done = threading.Event(), []
    disk.submit(answers.wait)
    wait_until(lambda: disk.unanswered_s > 0, "the first task")
    assert [disk.submit(lambda n=n: done.append(n), limit=3) for n in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert disk.discard() == 3
    disk.submit(lambda: 1 / 0)
    disk.submit(lambda: done.append("after an error"))
    assert not disk.close(0.0)
    answers.set()
    assert disk.close(60.0)
    assert done == ["after an error"]
    assert not disk.submit(lambda: None)
