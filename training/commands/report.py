"""training/: `scent-train report`: all figures of a run folder as JSON and as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.commands._shared import add_option

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Put together what `crossval` left in a run folder, and `crossval --few-shot`, "
        "`compare`, `cross-modal` and `audit` where they were run there too: report.json, and "
        "report.html with plots, one file that needs no network. Trains nothing."
    )
    parser.epilog = "Example: scent-train report --run runs/substances-50"
    add_option(parser, "--run", required=True, help="run folder of the cross-validation")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write (default: the run folder)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write both files and name them."""
    from training.reports.run import write_run_report  # noqa: PLC0415 - keeps --help quick

    for path in write_run_report(args.run_folder, args.output or args.run_folder):
        print(path)
    return 0
