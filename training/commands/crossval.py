"""training/: `scent-train crossval`: score a configuration on recordings held out by groups."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from training.commands._shared import add_training_options, fold_bars, load_training, score_lines
from training.crossval import REPORT, cross_validate, folds_of
from training.data import N_FOLDS

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "crossval",
        help="score a configuration on recordings held out by groups",
        description="Train a network per fold, quantise it, and score the int8 network on the "
        "recordings of its fold. Substances: one recording of every substance is held out. "
        "Mixtures: component sets are held out with all their proportions.",
        epilog="Example: scent-train crossval --config substances-50 "
        "--data data/smellnet/base --json",
    )
    add_training_options(parser)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and score every fold; print the mean scores."""
    from training.epochs import total_steps  # noqa: PLC0415 - torch

    config, data, folder = load_training(args)
    fold_of = folds_of(data)
    print(f"{len(data.samples)} recordings: {data.oddities}", file=sys.stderr)
    report = cross_validate(
        config,
        data,
        folder,
        device=args.device,
        folds=range(N_FOLDS),
        on_step=fold_bars(
            config.name, lambda fold: total_steps(config, data.subset(fold_of != fold))
        ),
    )
    if args.json:
        print(json.dumps(report))
        return 0
    print(f"{config.name}, {report['protocol']}, int8, mean over {len(report['folds'])} folds:")
    for line in score_lines(report["mean"]):
        print(f"  {line}")
    print(f"Report and held-out answers: {folder / REPORT}", file=sys.stderr)
    return 0
