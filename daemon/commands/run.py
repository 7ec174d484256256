"""Leaf: `scentd run`: the service itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli import installed_version
from daemon.config_file import load_config
from daemon.logs import configure_logs
from daemon.pipeline import load_models
from daemon.service import Service
from daemon.stopping import Stop

if TYPE_CHECKING:
    import argparse

    from daemon.cli import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "run",
        help="recognise smells and publish them until stopped",
        description=(
            "Read the board, recognise what it smells and publish it, until Ctrl-C or SIGTERM. "
            "Works without a broker, and waits for a board that is not there yet."
        ),
        epilog="Example: scentd run --config /etc/scentd/scentd.yaml",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the rig's YAML file"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    stop = Stop()
    with stop.on_signals():
        config = load_config(args.config)
        configure_logs(config.log)
        bundles = load_models(config.models, config.decision.overrides())
        Service(config, bundles, version=installed_version()).run(stop)
    return 0
