"""Daemon: options that several commands have.

Must stay light: `scentd run` imports it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the required `--config`."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the rig's YAML file"
    )


def positive_seconds(text: str) -> float:
    """Return the duration that an option's text states."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return seconds
