"""Daemon: adds the service of this environment to systemd, and removes it.

The scripts of the folder systemd/ do the work, in a checkout and in an installed wheel. This module
finds out whether the service could run this environment at all.
"""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from hardware.errors import ScentdError

SCRIPTS = Path(__file__).resolve().parents[2] / "systemd"

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - not used, but refused
"""Folders that the units hide from the service (ProtectHome=, PrivateTmp=)."""

PACKAGED_UNIT = "lib/systemd/system/scentd.service"
"""Below the root of a system: there if the Debian package is installed."""


class UnusableEnvironmentError(ScentdError):
    """The service cannot run, or must not change, this environment."""


def interpreter(root: Path | None) -> Path:
    """Return the interpreter of this environment, by its path in the system that starts there.

    Parameters
    ----------
    root: the folder of an image, None for the running system.

    Raises
    ------
    UnusableEnvironmentError: if the service of the running system could not use it.
    """
    program = Path(sys.executable)
    if root is None:
        check_usable(program)
    elif program.is_relative_to(root.absolute()):
        program = Path("/") / program.relative_to(root.absolute())
    return program


def check_usable(program: Path) -> None:
    """Raise `UnusableEnvironmentError` if a service without rights cannot start an interpreter."""
    paths = (program, program.resolve())
    hidden = [name for name in HIDDEN if any(path.is_relative_to(name) for path in paths)]
    folders = [] if hidden else [folder for path in paths for folder in path.parents]
    closed = [str(folder) for folder in folders if not folder.stat().st_mode & stat.S_IXOTH]
    if hidden or closed:
        raise UnusableEnvironmentError(
            f"The service cannot use {program}: its user may not enter {(hidden or closed)[0]}. "
            "Create an environment that every user may read, with the Python of the system: sudo "
            "python3 -m venv /opt/smell && sudo /opt/smell/bin/pip install 'scentd[web]' && sudo "
            "/opt/smell/bin/scentd service install."
        )


def check_not_packaged(root: Path | None) -> None:
    """Raise `UnusableEnvironmentError` if the Debian package is the one to remove the service."""
    if ((root or Path("/")) / PACKAGED_UNIT).exists():
        raise UnusableEnvironmentError(
            "The service belongs to the Debian package scentd. To remove both: sudo apt remove "
            "scentd, or with configuration and state: sudo apt purge scentd."
        )


def run_script(name: str, *options: str) -> int:
    """Run a script of the folder systemd/; return its exit code."""
    return subprocess.run(["bash", str(SCRIPTS / name), *options], check=False).returncode
