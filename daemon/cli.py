"""Daemon: the command line `scentd`: find the command, run it, turn its end into an exit code.

Each command is a module of `daemon.commands` with `add_parser(subparsers)` and
`run(args) -> int`, and is imported only when it is called: `scentd run` must
not pay for what the demo needs. Nothing here knows what a command does.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from daemon.version import installed_version
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_WRONG_USE = 2

COMMANDS: dict[str, str] = {
    "run": "recognise smells and publish them until stopped",
    "check": "test configuration, port, broker and models, and say how to mend what fails",
    "demo": "watch a simulated board being smelled, with no set-up",
    "simulate": "put a simulated board behind a serial port",
    "record": "write a board's readings to a CSV",
    "replay": "recognise the smells in recordings",
    "models": "list and verify model bundles",
    "bench": "measure speed and memory on this machine",
}
"""Every command with the line that `scentd --help` says about it."""

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


class Command(Protocol):
    """What a module of `daemon.commands` offers."""

    def add_parser(self, subparsers: Subparsers[argparse.ArgumentParser]) -> None:
        """Add this command's options, and `set_defaults(run=run)`."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        args = _parse([argument for argument in arguments if argument != "--debug"])
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        return _reader_went_away()
    except ScentdError as error:
        if debug:
            raise
        print(f"scentd: {error}", file=sys.stderr)  # noqa: T201 - the command line's own voice
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        print(f"scentd: {_explain(error)}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    return code


def _explain(error: OSError) -> str:
    """Say in a sentence what the operating system refused: a full disk, a missing permission."""
    where = f" for {error.filename}" if error.filename else ""
    return (
        f"The operating system said {error.strerror or error!s}{where}. Check that the path is "
        "right, that there is room on the disk, and that this user may use it."
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scentd",
        description="Live smell recognition for gas-sensor boards: serial in, MQTT out.",
        epilog="Start with: scentd demo. Every command explains itself: scentd replay --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"scentd {installed_version()}")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (anywhere on the line)"
    )
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="command"
    )
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == called:
            cast("Command", import_module(f"daemon.commands.{name}")).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser.parse_args(arguments)


def _reader_went_away() -> int:
    """Leave quietly when `scentd ... | head` has read enough."""
    # Python would complain once more when it flushes standard output at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
