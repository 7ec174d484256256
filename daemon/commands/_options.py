"""Daemon: options that several commands have.

Must stay light: `scentd run` imports it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIG_DEFAULT = "default: SCENTD_CONFIG, else ./scentd.yaml, else /etc/scentd/scentd.yaml"
"""As `daemon.config.loading.find_config` looks for it."""


def add_config_option(parser: argparse._ActionsContainer) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the rig's YAML file ({CONFIG_DEFAULT})"
    )


def positive_seconds(text: str) -> float:
    """Return the duration that an option's text states."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return seconds
