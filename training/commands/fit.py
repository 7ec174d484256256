"""training/: `scent-train fit`: train a model on all recordings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from training.commands._shared import StepBar, add_training_options, load_training
from training.data.inspection import find_problems, inspect_recordings
from training.data.notices import describe_oddities
from training.progress import TRACKERS, make_tracker
from training.sampling.measurements import total_steps

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Train a model on all recordings under DIR. An interrupted training "
        "continues from its last checkpoint; `export` writes the bundle."
    )
    parser.epilog = "Example: scent-train fit --config substances-50 --data data/smellnet/base"
    add_training_options(parser)
    parser.add_argument(
        "--track",
        choices=TRACKERS,
        help="also write loss and learning rate of every step for this tool, below the run folder",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train to the last step."""
    from training.fit import train_network  # noqa: PLC0415

    config, data, folder = load_training(args)
    if config.in_order_only:
        data = data.drop_unordered()
    print(describe_oddities(len(data.samples), data.oddities), file=sys.stderr)
    if config.task == "substance":
        # A fickle channel is replaced and dropped in training, so that it tells nothing.
        channels = [c for c in config.preprocessing.channels if c not in config.augment.fickle]
        for problem in find_problems(data, inspect_recordings(data), channels):
            print(f"\n{problem}", file=sys.stderr)
    bar = StepBar(config.name, total_steps(config, data))
    tracker = None if args.track is None else make_tracker(args.track, folder)
    try:
        fitted = train_network(
            config,
            data,
            folder=folder / "final",
            device=args.device,
            on_step=bar,
            tracker=tracker,
        )
    finally:
        if tracker is not None:
            tracker.close()
    print(f"{config.name}: trained, loss {fitted.loss:.4f}; checkpoint in {folder / 'final'}")
    return 0
