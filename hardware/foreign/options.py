"""Ground floor: the options of both command lines that name the format of foreign files.

May import the mapping and argparse.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hardware.foreign.mapping import ForeignFormat, read_mapping, shipped_format, shipped_formats

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_format_options(parser: ArgumentParser, *, required: bool) -> None:
    """Add `--format` and `--map`, of which one may be given."""
    form = parser.add_mutually_exclusive_group(required=required)
    form.add_argument(
        "--format",
        metavar="NAME",
        help=f"the files are in a known format: {', '.join(shipped_formats())}",
    )
    form.add_argument(
        "--map",
        type=Path,
        metavar="FILE",
        help="the files are as this mapping file says (docs/recordings.md)",
    )


def chosen_format(args: Namespace) -> ForeignFormat | None:
    """Return the format that the options name, None without one.

    Raises
    ------
    MappingError: there is no such format, or the mapping cannot be used.
    """
    if args.format is not None:
        return shipped_format(args.format)
    return None if args.map is None else read_mapping(args.map)
