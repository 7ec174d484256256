"""Daemon: `scentd run`: the service itself.

The configuration is read before the libraries are loaded, so that an error in it is reported at
once.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from daemon.commands._options import add_config_option
from daemon.config.loading import find_config, load_config
from daemon.system.owner import become_owner
from daemon.system.signals import ReloadSignal, StopEvent

if TYPE_CHECKING:
    import argparse


NOTICED_WITHIN_S = 1.8
"""After SIGTERM everything ends within two seconds; so does a start that waits for a disk."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Read the board, recognise smells and publish them, until Ctrl-C or SIGTERM. "
        "Works without a broker, and waits for a board that is not connected yet. On SIGHUP it "
        "reads the configuration again, without losing a reading."
    )
    parser.epilog = "Example: scentd run --config /etc/scentd/scentd.yaml"
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the service until a signal stops it."""
    # numpy does no linear algebra here; OpenBLAS would still start a thread per core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    stop, reload = StopEvent(), ReloadSignal()
    with stop.on_signals(), stop.noticed_within(NOTICED_WITHIN_S), reload.on_signal():
        path = find_config(args.config)
        config = load_config(path)
        become_owner(config.state_dir)
        service = import_module("daemon.service.main")
        service.serve(config, path, stop, reload)
    return 0
