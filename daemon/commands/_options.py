"""Daemon: options that several commands have.

Must stay light: `scentd run` imports it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG_DEFAULT = "default: SCENTD_CONFIG, else ./scentd.yaml, else /etc/scentd/scentd.yaml"
"""As `daemon.config.loading.find_config` looks for it."""


def add_config_option(parser: argparse._ActionsContainer) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the rig's YAML file ({CONFIG_DEFAULT})"
    )


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    command: str,
    name: str,
    summary: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add an action of a command of scentd, with its help and `--json`; return its parser.

    Parameters
    ----------
    actions: of the command's parser.
    command, name: of the command and the action.
    summary: one line of help, without a full stop.
    example: the example of its help, after the name.
    run: what it does.
    """
    action = actions.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Example: scentd {command} {name} {example}",
    )
    action.add_argument("--json", action="store_true", help="print JSON")
    action.set_defaults(run=run)
    return action


def positive_seconds(text: str) -> float:
    """Return the duration that an option's text states."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return seconds
