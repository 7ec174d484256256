"""Files of state: no link is followed, nothing is waited for, nothing unfinished stays."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hardware.files import (
    OPEN_FOLDERS,
    locked_folder,
    open_plain,
    open_regular,
    read_regular,
    remove,
    sweep,
    write_atomically,
)
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file of somebody else, in a folder of its own."""
    path = tmp_path / "elsewhere" / "victim.json"
    path.parent.mkdir()
    path.write_bytes(b"not yours")
    return path


def test_a_file_is_written_with_its_folders_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert read_regular(path) == b"two"
    assert [one.name for one in path.parent.iterdir()] == ["state.json"]


def lock(path: Path) -> None:
    with locked_folder(path.parent):
        pass


USES: dict[str, Callable[[Path], object]] = {
    "read": read_regular,
    "write": lambda path: write_atomically(path, b"mine"),
    "remove": remove,
    "lock": lock,
}


@pytest.mark.parametrize("use", USES)
def test_a_link_in_the_place_of_a_folder_is_not_followed(
    tmp_path: Path, victim: Path, use: str
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "models").symlink_to(victim.parent)
    with pytest.raises(OSError, match="models is a link, and links are not followed"):
        USES[use](tmp_path / "state" / "models" / victim.name)
    assert victim.read_bytes() == b"not yours"
    assert list(victim.parent.iterdir()) == [victim]


def test_a_linked_file_is_neither_read_nor_written_nor_locked(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "state.json"
    path.symlink_to(victim)
    with pytest.raises(OSError, match="is a link"):
        read_regular(path)
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="is a link"):
        lock(path)
    write_atomically(path, b"mine")  # a new file in the place of the link
    assert victim.read_bytes() == b"not yours"
    assert path.read_bytes() == b"mine"
    assert not path.is_symlink()
    path.unlink()
    path.symlink_to(victim)
    remove(path)
    assert victim.exists()
    assert not path.is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    for opened in (open_regular, open_plain):
        with pytest.raises(OSError, match="no regular file"):
            opened(path)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 1000 bytes"):
        read_regular(path, 1000)


def test_a_path_may_begin_at_an_open_folder(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    path = Path(OPEN_FOLDERS) / str(descriptor) / "models" / "active.json"
    write_atomically(path, b"{}")
    os.close(descriptor)
    assert (tmp_path / "models" / "active.json").read_bytes() == b"{}"


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from hardware import files
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]), b"new")
"""


def kill_while_writing(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_what_a_kill_left_unfinished_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "models" / "active.json"
    write_atomically(path, b"old")
    kill_while_writing(path)
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 2
    assert sweep(tmp_path) == 1
    assert list(path.parent.iterdir()) == [path]
    kill_while_writing(path)
    write_atomically(path, b"newer")  # the next write sweeps too
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_being_written_and_files_of_others_are_not_swept(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (".state.json.1234abcd", ".bashrc.recorded", ".x.csv.old")]
    for path in kept:
        path.touch()
    with kept[0].open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert sweep(tmp_path) == 0
    assert all(path.exists() for path in kept)
    assert sweep(tmp_path) == 1
    assert not kept[0].exists()
