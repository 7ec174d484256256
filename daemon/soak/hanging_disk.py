"""Soak: a disk that hangs: what a process reads and writes below a folder waits as long as wanted.

Needs a C compiler: a library that is preloaded into the process lets its calls wait
(`hanging_disk.c`). Needs no rights and no file system of its own.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.soak.power_cut import build_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SOURCE = Path(__file__).with_name("hanging_disk.c")


class HangingDisk:
    """The disk below a folder, as one process sees it.

    Parameters
    ----------
    folder: for the library and a lock.
    below: the folder that hangs; absolute.
    """

    def __init__(self, folder: Path, below: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._library = folder / "hanging_disk.so"
        self._lock = folder / "hanging_disk.lock"
        self._below = below

    def build(self) -> Mapping[str, str]:
        """Build the library; return the environment variables that load it into a process.

        Raises
        ------
        CompilerError: the compiler refuses.
        """
        build_library(_SOURCE, self._library)
        self._lock.write_bytes(b"\0")
        return {
            "LD_PRELOAD": str(self._library),
            "SCENT_HANGING_DISK": str(self._below),
            "SCENT_HANGING_DISK_LOCK": str(self._lock),
        }

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it hang while the block runs."""
        with self._lock.open("r+b", buffering=0) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(b"\1")
            try:
                yield
            finally:
                lock.seek(0)
                lock.write(b"\0")
