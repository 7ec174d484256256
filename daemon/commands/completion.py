"""Daemon: `scentd completion`: print a script that lets a shell complete the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli import SCENTD

if TYPE_CHECKING:
    import argparse

SHELLS = {
    "bash": "~/.local/share/bash-completion/completions/scentd",
    "zsh": "a folder of $fpath, as _scentd",
    "fish": "~/.config/fish/completions/scentd.fish",
}
"""Where each shell looks for the script."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    where = "; ".join(f"{shell}: {place}" for shell, place in SHELLS.items())
    parser.description = (
        "Print a script that lets a shell complete scentd's commands and options. Write it where "
        f"the shell looks for it ({where}), and start a new shell."
    )
    parser.epilog = "Example: scentd completion bash"
    parser.add_argument("shell", choices=tuple(SHELLS), help="for which shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415 - only this command needs it

    print(shtab.complete(SCENTD.full_parser(), shell=args.shell))
    return 0
