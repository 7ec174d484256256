"""training/: `scent-train cross-modal`: what a second modality in training is worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from training.commands._folds import chosen_folds, words
from training.commands._shared import StepBar, add_option, config_path, load_recordings
from training.config import load_train_config
from training.data.layouts import refuse_test_part
from training.experiments.cross_modal import (
    PLAIN,
    SWITCHES,
    HeldOutAnswers,
    budgeted,
    heard,
    markdown,
    row,
    tasks,
    write_report,
)

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers

DEFAULT_STEPS = 600
"""Of substances-50 some 75 s on two cores that have nothing else to do."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "cross-modal",
        help="compare trainings with and without a second modality",
        description="Train the same network with and without each cross-modal switch, on the "
        "same folds, seed and number of steps, and print the scores with 95 % intervals over "
        f"recordings. The switches: {', '.join(SWITCHES)}. Those that describe a smell are "
        "trained once more per fold without every fifth substance, and judged on these. What is "
        "done already is not done again. GC-MS counts (gcms_elements.csv) and descriptions "
        "(text_description.json) are looked for in DIR and above it.",
        epilog="Example: scent-train cross-modal --data data/smellnet/base --folds 0,1 "
        "--only gcms,descriptors",
    )
    add_option(parser, "--data")
    add_option(
        parser,
        "--config",
        default="substances-50",
        help="the network that is trained (substances-50)",
    )
    parser.add_argument("--only", metavar="A,B", help="which switches, beside none (all)")
    add_option(parser, "--folds")
    parser.add_argument(
        "--steps",
        type=int,
        default=DEFAULT_STEPS,
        metavar="N",
        help=f"steps of every training ({DEFAULT_STEPS})",
    )
    parser.add_argument(
        "--no-unseen", action="store_true", help="train nothing without every fifth substance"
    )
    add_option(
        parser, "--run", help="folder for the answers and cross_modal.json (default: runs/NAME)"
    )
    add_option(parser, "--device")
    add_option(parser, "--json", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, fold by fold; print and write the table."""
    if args.steps < 1:
        raise UsageError(f"--steps must be at least 1, got {args.steps}.")
    config = load_train_config(config_path(args.config))
    if config.task != "substance":
        raise UsageError(
            f"{config.name} is a {config.task} model; cross-modal training is about single "
            "substances. Name a substance configuration with --config."
        )
    config = budgeted(config, args.steps)
    names = words(args.only) if args.only else list(SWITCHES)
    # Misspelt switches are found before anything is read.
    tasks(names, [], unseen=True)
    refuse_test_part(args.data)
    data = load_recordings("substance", args.data)
    todo = tasks(names, chosen_folds(args.folds, data), unseen=not args.no_unseen)
    folder = args.run_folder or Path("runs") / config.name
    seen: dict[str, dict[int, HeldOutAnswers]] = {}
    unseen: dict[str, dict[int, HeldOutAnswers]] = {}
    for number, task in enumerate(todo, start=1):
        strangers = " without every fifth substance," if task.unseen else ""
        bar = StepBar(
            f"[{number}/{len(todo)}] {task.switch}{strangers} fold {task.fold}", args.steps
        )
        part = heard(task, config, data, folder, device=args.device, on_step=bar)
        (unseen if task.unseen else seen).setdefault(task.switch, {})[task.fold] = part
    rows = [row(name, config, data, seen[name], unseen.get(name, {}), seen[PLAIN]) for name in seen]
    path = write_report(folder, config, data, rows)
    print(json.dumps(rows) if args.json else markdown(rows))
    print(f"Report: {path}", file=sys.stderr)
    return 0
