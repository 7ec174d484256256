"""Daemon: the command line `scentd`.

May import hardware.command_line alone: each command is a module of `daemon.commands`,
imported only when it is called, because `scentd run` must not pay for what the demo needs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hardware.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Sequence

SCENTD = CommandLine(
    program="scentd",
    description="Live smell recognition for gas-sensor boards: serial in, MQTT out.",
    epilog="Start with: scentd demo. Every command explains itself: scentd replay --help.",
    package="daemon.commands",
    commands={
        "setup": "find board and broker, write the configuration and check it",
        "run": "recognise smells and publish them until stopped",
        "check": "test configuration, port, broker and models, and say how to repair what fails",
        "config": "explain every setting, or print the JSON Schema of the configuration",
        "demo": "watch the odours of simulated boards being recognised, with no set-up",
        "simulate": "put a simulated board behind a serial port",
        "record": "write a board's readings to a CSV, labelled or not",
        "recordings": "list, show, label, cut and export recordings",
        "replay": "recognise the smells in recordings",
        "calibrate": "measure this rig and fit its profile",
        "enroll": "teach the rig a new smell",
        "smells": "take taught smells to another rig, in a file",
        "models": "list, verify, install and switch model bundles",
        "web": "serve the page that shows the rigs, teaches and reviews",
        "status": "show the state of the running service",
        "fleet": "show, change and measure many rigs of one broker",
        "service": "let systemd run scentd, from an installed package",
        "completion": "print a script that completes the command line in a shell",
        "support": "collect what a bug report needs in one file, without secrets",
        "bench": "measure speed and memory on this machine",
        "soak": "inject faults into the real service and report what was delivered",
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong use."""
    return SCENTD.main(argv)


if __name__ == "__main__":
    sys.exit(main())
