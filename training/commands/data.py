"""training/: `scent-train data get`: fetch the published data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.download import DATASET, fetch

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        f"Fetch the published recordings ({DATASET} on the Hugging Face hub) and "
        "compare every file with the hub's checksum. The same command continues an interrupted "
        "download."
    )
    parser.epilog = "Example: scent-train data get --output data/smellnet --subset base"
    actions = parser.add_subparsers(title="actions", metavar="get", required=True, dest="action")
    get = actions.add_parser(
        "get",
        help="fetch, resume and verify",
        description="Fetch the parts to train on; existing files are verified, not fetched.",
        epilog="Example: scent-train data get --output data/smellnet --subset base",
    )
    get.add_argument(
        "--output",
        type=Path,
        default=Path("data/smellnet"),
        metavar="DIR",
        help="becomes the data set's root (default: data/smellnet)",
    )
    get.add_argument(
        "--subset",
        choices=("base", "mixture", "all"),
        default="all",
        help="single substances, mixtures, or both (default)",
    )
    get.add_argument(
        "--with-test-splits",
        action="store_true",
        help="fetch the published test splits too. For the final judgement only: the scores of a "
        "model that was trained on them or chosen by them mean nothing",
    )
    get.add_argument(
        "--endpoint", metavar="URL", help="a mirror of the hub (default: HF_ENDPOINT, or the hub)"
    )
    get.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch and verify."""
    got = fetch(
        args.output,
        subset=args.subset,
        with_test_splits=args.with_test_splits,
        endpoint=args.endpoint,
    )
    print(
        f"{got.folder}: {got.files} files, {got.size / 1e6:.1f} MB, all verified; "
        f"{got.fetched} of them fetched now; commit {got.revision}"
    )
    if args.with_test_splits:
        print(
            "The test splits are for the final judgement: `fit` and `crossval` refuse them, "
            "`evaluate` scores them.",
            file=sys.stderr,
        )
    return 0
