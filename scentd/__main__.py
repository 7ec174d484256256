"""The programs `scentd` and `scent-train`, and `python -m scentd`.

An installed wheel holds the five folders of code and `systemd/` below `scentd/app`, so that it
adds no other name to the environment: `daemon`, for one, is also the module of another
distribution. They are put first on the path of the programs alone, not by `import scentd`. In a
checkout they lie beside this folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "app"


def find_folders() -> None:
    """Let our folders be imported before anything of the same name."""
    folder = str(_INSTALLED if _INSTALLED.is_dir() else _HERE.parent)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def main() -> int:
    """Run the command line `scentd`."""
    find_folders()
    from daemon.cli import main as run  # noqa: PLC0415 - not found before

    return run()


def train() -> int:
    """Run the command line `scent-train`."""
    find_folders()
    from training.cli import main as run  # noqa: PLC0415 - not found before

    return run()


if __name__ == "__main__":
    sys.exit(main())
