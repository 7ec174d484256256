"""A disk that hangs for one process: reads and writes below a folder wait, others do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.soak.hanging_disk import HangingDisk
from daemon.soak.power_cut import compiler
from tests.sandbox import wait_until

USES = """
import os, pathlib, sys, threading
folder = pathlib.Path(sys.argv[1])
file = (folder / "open").open("ab", buffering=0)
descriptor = os.open(folder, os.O_RDONLY)
print("ready", flush=True)
sys.stdin.readline()
(folder.parent / "elsewhere").write_text("1")
for name, use in {
    "write": lambda: file.write(b"1"),
    "synchronise": lambda: os.fsync(file.fileno()),
    "read": (folder / "read").read_bytes,
    "look": (folder / "read").stat,
    "relative": lambda: os.open("read", os.O_RDONLY, dir_fd=descriptor),
    "replace": lambda: os.replace(folder / "old", folder / "new"),
}.items():
    def run(name=name, use=use):
        use()
        (folder.parent / name).touch()
    threading.Thread(target=run).start()
"""


def test_what_uses_the_folder_waits_and_then_goes_on(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("needs a C compiler: sudo apt install gcc")
    folder = tmp_path.resolve() / "disk"
    folder.mkdir()
    (folder / "read").write_bytes(b"2")
    (folder / "old").write_bytes(b"3")
    disk = HangingDisk(tmp_path / "library", folder)
    environ = {**os.environ, **disk.build()}
    with subprocess.Popen(
        [sys.executable, "-c", USES, str(folder)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with disk.hanging():
            process.stdin.write(b"\n")
            process.stdin.flush()
            wait_until((tmp_path / "elsewhere").exists, "the file elsewhere")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            found = {path.name for path in tmp_path.iterdir()}
            assert found == {"library", "disk", "elsewhere"}
        assert process.wait(60.0) == 0
    assert {"write", "read", "look", "relative", "replace"} <= {p.name for p in tmp_path.iterdir()}
