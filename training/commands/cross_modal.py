"""training/: `scent-train cross-modal`: the effect of a second modality in training."""

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
    list_trainings,
    run_training,
    switch_row,
    switch_table,
    with_budget,
    write_switch_report,
)
from training.experiments.cross_modal_sessions import (
    list_session_trainings,
    run_session_training,
    session_row,
    session_table,
    write_session_report,
)

if TYPE_CHECKING:
    import argparse

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.experiments.runner import FoldPredictions

DEFAULT_STEPS = 600
"""Of substances-50 some 75 s on two idle cores."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Train the same network with and without each cross-modal switch, on the "
        "same folds, seed and number of steps, and print the scores with 95 % intervals over "
        f"recordings. The switches: {', '.join(SWITCHES)}. Those that describe a smell are "
        "trained once more per fold without every fifth substance, and scored on these. Stored "
        "results are not computed again. GC-MS counts (gcms_elements.csv) and descriptions "
        "(text_description.json) are looked for in DIR and above it. With --sessions, whole "
        "sessions are held out instead, over several seeds, and every switch is asked about labels "
        "that were never trained on."
    )
    parser.epilog = (
        "Example: scent-train cross-modal --data data/smellnet/base --folds 0,1 "
        "--only gcms,descriptors"
    )
    add_option(parser, "--data")
    add_option(
        parser,
        "--config",
        default="substances-50",
        help="the network that is trained (substances-50)",
    )
    parser.add_argument("--only", metavar="A,B", help="which switches, in addition to none (all)")
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
    parser.add_argument(
        "--sessions", action="store_true", help="hold out whole sessions instead of recordings"
    )
    parser.add_argument(
        "--also",
        type=Path,
        metavar="DIR",
        help="with --sessions: recordings of further sessions, DIR/LABEL/*.csv, which never train",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="with --sessions: seeds of each switch (1)",
    )
    add_option(
        parser, "--run", help="folder for the predictions and cross_modal.json (default: runs/NAME)"
    )
    add_option(parser, "--device")
    add_option(parser, "--json", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the missing networks, fold by fold; print and write the table."""
    if args.steps < 1 or args.seeds < 1:
        raise UsageError(
            f"--steps and --seeds must be at least 1, got {args.steps} and {args.seeds}."
        )
    if not args.sessions and (args.also is not None or args.seeds > 1):
        raise UsageError("--also and --seeds go with --sessions; add that option too.")
    config = load_train_config(config_path(args.config))
    if config.task != "substance":
        raise UsageError(
            f"{config.name} is a {config.task} model; cross-modal training is about single "
            "substances. Name a substance configuration with --config."
        )
    config = with_budget(config, args.steps)
    names = words(args.only) if args.only else list(SWITCHES)
    # Misspelt switches are found before anything is read.
    list_trainings(names, [], unseen=True)
    refuse_test_part(args.data)
    data = load_recordings("substance", args.data).at_rate(config.preprocessing.rate_hz)
    folder = args.run_folder or Path("runs") / config.name
    if args.sessions:
        return _sessions(args, config, data, names, folder)
    todo = list_trainings(names, chosen_folds(args.folds, data), unseen=not args.no_unseen)
    seen: dict[str, dict[int, FoldPredictions]] = {}
    unseen: dict[str, dict[int, FoldPredictions]] = {}
    for number, training in enumerate(todo, start=1):
        without = " without every fifth substance," if training.unseen else ""
        title = f"[{number}/{len(todo)}] {training.switch}{without} fold {training.fold}"
        part = run_training(
            training, config, data, folder, device=args.device, on_step=StepBar(title, args.steps)
        )
        (unseen if training.unseen else seen).setdefault(training.switch, {})[training.fold] = part
    rows = [
        switch_row(name, config, data, seen[name], unseen.get(name, {}), seen[PLAIN])
        for name in seen
    ]
    path = write_switch_report(folder, config, data, rows)
    print(json.dumps(rows) if args.json else switch_table(rows))
    print(f"Report: {path}", file=sys.stderr)
    return 0


def _sessions(
    args: argparse.Namespace, config: TrainConfig, data: Dataset, names: list[str], folder: Path
) -> int:
    """Train the missing networks with whole sessions held out; print and write the table."""
    also = None
    if args.also is not None:
        also = load_recordings("substance", args.also, labels=data.labels)
    todo = list_session_trainings(data, names, range(args.seeds))
    runs = {}
    for number, training in enumerate(todo, start=1):
        title = f"[{number}/{len(todo)}] {training.switch} {training.name}"
        runs[training] = run_session_training(
            training, config, data, also, folder,
            device=args.device, on_step=StepBar(title, args.steps),
        )  # fmt: skip
    rows = [
        session_row(name, config, data, runs)
        for name in dict.fromkeys(training.switch for training in todo)
    ]
    path = write_session_report(folder, config, data, rows)
    print(json.dumps(rows) if args.json else session_table(rows))
    print(f"Report: {path}", file=sys.stderr)
    return 0
