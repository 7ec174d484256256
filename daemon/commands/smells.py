"""Daemon: `scentd smells`: take the smells that a rig was taught to another one, in a file.

This command reads and writes the file itself: the running service may not reach it. It notifies the
service of a change, as `scentd enroll` does.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._library import RigLibrary, list_lines
from daemon.commands._options import add_action, add_config_option
from daemon.commands._service import log_warnings_only, print_answer
from daemon.smell_files import plan_lines
from hardware.counting import counted
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.system.background import Data

EPILOG = """Examples:
  scentd smells export kitchen.zip --config rig.yaml
  scentd smells import kitchen.zip --config rig.yaml --check
  scentd smells import kitchen.zip --config rig.yaml --rename coffee=coffee_kitchen
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Export the smells that a rig was taught into one file, with their exposures, clean air, "
        "sessions and the board that they were learnt on; import such a file, if its smells were "
        "learnt on this board. To teach smells: scentd enroll."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add = partial(add_action, actions, "smells")
    exporting = add(
        "export",
        "write all taught smells into one file",
        "kitchen.zip --config rig.yaml",
        run_export,
    )
    importing = add(
        "import",
        "add the smells of a file, in shadow",
        "kitchen.zip --config rig.yaml --check",
        run_import,
    )
    importing.add_argument(
        "--check", action="store_true", help="only say whether they fit this board; change nothing"
    )
    importing.add_argument(
        "--merge",
        action="store_true",
        help="add exposures to smells that are taught here under the same name",
    )
    importing.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="LABEL=NAME",
        help="take a smell of the file under another name",
    )
    importing.add_argument(
        "--other-board",
        action="store_true",
        help="take smells of another board too, which are mostly wrong here",
    )
    for action in (exporting, importing):
        action.add_argument("file", type=Path, metavar="FILE", help="a .zip file")
        rig = action.add_mutually_exclusive_group()
        add_config_option(rig)
        rig.add_argument(
            "--state", type=Path, metavar="DIR", help="the rig's state folder, without a service"
        )


def run_export(args: argparse.Namespace) -> int:
    """Write the file."""
    log_warnings_only()
    made = RigLibrary(args).export_file(args.file)

    def lines(made: Data) -> Iterator[str]:
        yield f"{counted(made['exported'], 'smell')} written to {made['file']}"

    print_answer(made, lines, as_json=args.json)
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Import the file, or say what that would do; return 1 if it would be refused."""
    log_warnings_only()
    answer = RigLibrary(args).import_file(
        args.file,
        check=args.check,
        merge=args.merge,
        other_board=args.other_board,
        rename=_renamed(args.rename),
    )
    lines = partial(plan_lines, done=False) if args.check else list_lines
    print_answer(answer, lines, as_json=args.json)
    return 1 if args.check and answer["problem"] else 0


def _renamed(pairs: list[str]) -> dict[str, str]:
    """Return the new label by label of `LABEL=NAME`."""
    renamed = {}
    for pair in pairs:
        label, equals, name = pair.partition("=")
        if not (label.strip() and equals and name.strip()):
            raise UsageError(f"--rename takes LABEL=NAME, got {pair!r}.")
        renamed[label.strip()] = name.strip()
    return renamed
