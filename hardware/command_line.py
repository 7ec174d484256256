"""Ground floor: how both programs find a command, run it and return an exit code.

Each command is a module, imported only when it is called. Its `add_options(parser)` adds the
options and sets `run(args) -> int`. May import hardware.errors and hardware.version.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from hardware.errors import ScentdError
from hardware.version import installed_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXIT_OK = 0
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A program with its commands.

    Attributes
    ----------
    program: its name, which begins every error message.
    description, epilog: of its `--help`.
    package: the package that holds one module per command.
    commands: every command (dashes become underscores in its module's name) with its line in
        `--help`.
    """

    program: str
    description: str
    epilog: str
    package: str
    commands: Mapping[str, str]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command and return its exit code: 0 done, 1 failed, 2 wrong use."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        debug = "--debug" in arguments
        try:
            args = self._parse([argument for argument in arguments if argument != "--debug"])
            code = int(args.run(args))
            sys.stdout.flush()
        except KeyboardInterrupt:
            return EXIT_OK
        except BrokenPipeError:
            # `... | head` has read enough. Python would report it again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_OK
        except ScentdError as error:
            if debug:
                raise
            self._print_error(str(error))
            return error.exit_code
        except OSError as error:
            if debug:
                raise
            self._print_error(_explain(error))
            return EXIT_FAILED
        return code

    def _print_error(self, text: str) -> None:
        print(f"{self.program}: {text}", file=sys.stderr)  # noqa: T201 - the program's output

    def _parse(self, arguments: list[str]) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            prog=self.program,
            description=self.description,
            epilog=self.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # Finding the version costs time, so only where it is shown.
        shown = installed_version() if "--version" in arguments else ""
        parser.add_argument("--version", action="version", version=f"{self.program} {shown}")
        parser.add_argument(
            "--debug",
            action="store_true",
            help="show the traceback of an error (anywhere on the line)",
        )
        subparsers = parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True, dest="command"
        )
        called = next((argument for argument in arguments if not argument.startswith("-")), None)
        for name, summary in self.commands.items():
            command = subparsers.add_parser(name, help=summary)
            if name == called:
                module = import_module(f"{self.package}.{name.replace('-', '_')}")
                module.add_options(command)
        return parser.parse_args(arguments)


def _explain(error: OSError) -> str:
    """Return a message for what the operating system refused: a full disk, a permission."""
    where = f" for {error.filename}" if error.filename else ""
    return (
        f"The operating system said {error.strerror or error!s}{where}. Check that the path is "
        "right, that there is room on the disk, and that this user may use it."
    )
