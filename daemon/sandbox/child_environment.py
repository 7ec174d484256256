"""Daemon: the environment of a child process that runs the code of this one."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def child_environment() -> dict[str, str]:
    """Return this process's environment for a child: our code first, and no `SCENTD_*`.

    The child runs the code of this process, not that of the current folder or of an installation,
    and the configuration that it is given, not what the variables of this process change in it.
    """
    own = {name: text for name, text in os.environ.items() if not name.startswith("SCENTD_")}
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**own, "PYTHONPATH": path}
