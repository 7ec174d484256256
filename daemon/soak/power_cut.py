"""Soak: power cuts: the outbox's files as they were when they were last synchronised to the disk.

Needs a C compiler: a library that is preloaded into the service copies the files at every fsync
(`synced_files.c`). Needs no rights and no file system of its own.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.mqtt.outbox_values import OUTBOX_FILE
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCE = Path(__file__).with_name("synced_files.c")
_FILES = (OUTBOX_FILE, f"{OUTBOX_FILE}-wal")


class CompilerError(ScentdError):
    """The library that watches the outbox's files cannot be built."""


def compiler() -> str | None:
    """Return the path of a C compiler, None where there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build_library(source: Path, library: Path) -> None:
    """Build a library of C, to be preloaded into a process.

    Raises
    ------
    CompilerError: the compiler refuses.
    """
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library)]
    built = subprocess.run(
        [*command, str(source), "-ldl"], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise CompilerError(
            f"The C compiler cannot build {source.name}: {built.stderr.strip()[:300]}. "
            "Install the C library's headers: sudo apt install gcc libc6-dev."
        )


class SyncedFiles:
    """The outbox's files as a disk without power keeps them: without what was not synchronised.

    Parameters
    ----------
    folder: for the library and the copies.
    state_dir: of the service; absolute.
    """

    def __init__(self, folder: Path, state_dir: Path) -> None:
        self._copies = folder / "synchronised"
        self._copies.mkdir(parents=True, exist_ok=True)
        self._library = folder / "synced_files.so"
        self._state_dir = state_dir

    def build(self) -> Mapping[str, str]:
        """Build the library; return the environment variables that load it into a process.

        Raises
        ------
        CompilerError: the compiler refuses.
        """
        build_library(_SOURCE, self._library)
        return {
            "LD_PRELOAD": str(self._library),
            "SOAK_SYNCED": str(self._state_dir / OUTBOX_FILE),
            "SOAK_SYNCED_TO": str(self._copies),
        }

    def cut_power(self) -> None:
        """Reset the files of a killed process to what had been synchronised."""
        _replace(self._copies, self._state_dir)

    def write_back(self) -> None:
        """Take the files as they are: after an end without a power cut the kernel writes them."""
        _replace(self._state_dir, self._copies)


def _replace(source: Path, target: Path) -> None:
    for name in _FILES:
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            shutil.copy(source / name, target / name)
