"""Ground floor: the version of scentd. May import the standard library alone.

`importlib.metadata` would load the mail parser: 3 MB of resident memory and 40 ms of the service's
start.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_HOME = Path(__file__).parents[1]
"""A checkout, or the folder `scentd/app` of an environment's site-packages."""


def installed_version() -> str:
    """Return the version of this installation or checkout."""
    if _HOME.name == "app":
        for metadata in _HOME.parents[1].glob("scentd-*.dist-info"):
            return metadata.name.removesuffix(".dist-info").split("-")[1]
    try:
        project = tomllib.loads((_HOME / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError:
        return "unknown"
    return str(project["project"]["version"])
