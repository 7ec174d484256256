"""Ground floor: how both programs find a command, run it and return an exit code.

Each command is a module, imported only when it is called. Its `add_options(parser)` adds the
options and sets `run(args) -> int`. May import hardware.errors and hardware.version.
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import ScentdError
from hardware.version import installed_version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""As a shell reports it: 128 and the number of SIGINT. `a && b` must not go on to `b`."""

_ESCAPE = "scentd.json_escape"


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
        """Run one command and return its exit code.

        0 done, 1 failed, 2 wrong use, 130 ended by Ctrl-C before the work was done. A command
        that works until Ctrl-C, such as `scentd run`, catches the signal and returns 0.
        """
        _prepare_streams()
        arguments = list(sys.argv[1:] if argv is None else argv)
        debug = "--debug" in arguments
        try:
            args = self._parse([argument for argument in arguments if argument != "--debug"])
            code = int(args.run(args))
            sys.stdout.flush()
        except KeyboardInterrupt:
            self._print_error("ended by Ctrl-C before the work was done.")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # `... | head` has read enough.
            _discard_output()
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
            _discard_output()
            return EXIT_FAILED
        return code

    def _print_error(self, text: str) -> None:
        print(f"{self.program}: {text}", file=sys.stderr)  # noqa: T201 - the program's output

    def full_parser(self) -> argparse.ArgumentParser:
        """Return a parser with the options of every command, for completions and man pages."""
        return self._parser("", self.commands)

    def _parse(self, arguments: list[str]) -> argparse.Namespace:
        # Finding the version costs time, so only where it is shown.
        shown = installed_version() if "--version" in arguments else ""
        called = next((argument for argument in arguments if not argument.startswith("-")), None)
        return self._parser(shown, () if called is None else (called,)).parse_args(arguments)

    def _parser(self, version: str, whole: Collection[str]) -> argparse.ArgumentParser:
        """Return a parser of all commands, with the options of those in `whole`."""
        parser = argparse.ArgumentParser(
            prog=self.program,
            description=self.description,
            epilog=self.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=f"{self.program} {version}")
        parser.add_argument(
            "--debug",
            action="store_true",
            help="show the traceback of an error (anywhere on the line)",
        )
        subparsers = parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True, dest="command"
        )
        for name, summary in self.commands.items():
            command = subparsers.add_parser(name, help=summary)
            if name in whole:
                module = import_module(f"{self.package}.{name.replace('-', '_')}")
                module.add_options(command)
        return parser


def _prepare_streams() -> None:
    """Make the standard streams take any text, and stand in for those that were closed.

    The name of a file may be no text (Linux allows any bytes), and the terminal may know few
    characters. What cannot be written is written as JSON escapes it, so that `--json` stays JSON
    and the bytes of a name can be had back (`os.fsencode`).
    """
    codecs.register_error(_ESCAPE, _escaped)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by `>&-`. Without it, text for standard error would go to standard output.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _discard_output() -> None:
    """Drop what cannot be written; Python would report it again when it flushes at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: OSError) -> str:
    """Return a message for what the operating system refused: a full disk, a permission."""
    where = f" for {error.filename}" if error.filename else ""
    return (
        f"The operating system said {error.strerror or error!s}{where}. Check that the path is "
        "right, that there is room on the disk, and that this user may use it."
    )
