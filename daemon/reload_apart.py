"""Daemon: the child that reads a configuration for a running service, and goes away.

Writes the pickled configuration, or the error, to standard output. May import
`daemon.config.loading` alone, so that it is quick.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from daemon.config.loading import load_config
from hardware.errors import ScentdError


def main() -> None:
    """Read the file that the command line names."""
    answer: object
    try:
        answer = load_config(Path(sys.argv[1]))
    except ScentdError as error:
        answer = error
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
