"""Daemon: `scentd support`: collect what a bug report needs in one file, without secrets."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._options import add_config_option
from daemon.support import collect_report, write_report
from hardware.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write one archive for a bug report: versions, the computer, the configuration, what "
        "scentd check finds, the service's state and its newest log lines, and the names and "
        "sizes of its files. Passwords and tokens are removed, readings and taught smells left "
        "out. Nothing is sent: read the archive, and attach it to the report."
    )
    parser.epilog = "Example: scentd support --output report.tar.gz"
    add_config_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a new .tar.gz (default: scentd-support-TIME.tar.gz in this folder)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect and write."""
    name = time.strftime("scentd-support-%Y%m%d-%H%M%S.tar.gz", time.gmtime())
    path: Path = args.output or Path(name)
    if path.exists():
        raise UsageError(f"{path} exists already. Name a new file with --output.")
    print("Collecting; this takes up to a minute ...", file=sys.stderr)
    parts = collect_report(args.config)
    write_report(parts, path)
    print(path)
    for part, text in parts.items():
        print(f"  {part:<20} {len(text.encode('utf-8', 'replace')):>8} bytes", file=sys.stderr)
    return 0
