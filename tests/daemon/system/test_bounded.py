"""Functions on content that nobody vouches for, in a child with bounds."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from daemon.system.bounded import Bounds, OutOfBoundsError, call_bounded
from hardware.errors import ScentdError, UsageError

BOUNDS = Bounds(memory_mb=150, cpu_s=2, wall_s=300.0, file_mb=1)
ERRORS = {"UsageError": UsageError}


def call(name: str, *arguments: object, bounds: Bounds = BOUNDS) -> object:
    return call_bounded(f"{__name__}:{name}", *arguments, bounds=bounds, errors=ERRORS)


def describe(text: str) -> dict[str, object]:
    sys.stdout.write("printed text does not mix with the answer")
    return {
        "text": text,
        "nice": os.nice(0),
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
    }


def refuse(kind: str) -> NoReturn:
    if kind == "known":
        raise UsageError("not like this")
    raise ScentdError("of a type that the caller did not name")


def fill_memory() -> int:
    return len(bytearray(1 << 30))


def fill_slowly() -> int:
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)))


def spin() -> NoReturn:
    while True:
        pass


def sleep() -> None:
    time.sleep(600)


def fill_disk(path: Path) -> None:
    path.write_bytes(bytes(4 << 20))


def vanish() -> NoReturn:
    os._exit(7)


def lie() -> NoReturn:
    os.write(1, b"[1, 2")
    os._exit(0)


def test_the_answer_comes_from_a_child_of_low_priority() -> None:
    answer = call("describe", "a")
    assert isinstance(answer, dict)
    assert answer["text"] == "a"
    assert answer["nice"] >= 10
    assert answer["oom"] == 1000


def test_errors_are_raised_here_by_the_names_that_the_caller_gave() -> None:
    with pytest.raises(UsageError, match="not like this"):
        call("refuse", "known")
    with pytest.raises(OutOfBoundsError, match="did not name"):
        call("refuse", "other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fill_memory", "more than 150 MiB of memory"),
        ("fill_slowly", "more than 150 MiB of memory"),
        ("spin", "2 s of processor time"),
        ("vanish", "ended with 7"),
        ("lie", "gave no answer"),
    ],
)
def test_a_child_out_of_bounds_is_ended_and_the_bound_named(name: str, message: str) -> None:
    with pytest.raises(OutOfBoundsError, match=message):
        call(name)


def test_a_child_that_waits_for_ever_is_ended() -> None:
    with pytest.raises(OutOfBoundsError, match="more than 1 s"):
        call("sleep", bounds=Bounds(150, 2, 1.0, 1))


def test_a_child_cannot_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with pytest.raises(OutOfBoundsError):
        call("fill_disk", path)
    assert path.stat().st_size <= 1 << 20


def test_open_files_are_inherited_under_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_bytes(b"content")
    with path.open("rb") as stream:
        number = stream.fileno()
        answer = call_bounded(
            f"{__name__}:read", number, bounds=BOUNDS, errors={}, descriptors=(number,)
        )
    assert answer == "content"


def read(descriptor: int) -> str:
    return os.read(descriptor, 100).decode()
