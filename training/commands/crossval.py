"""training/: `scent-train crossval`: score a configuration on recordings held out by groups."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.counting import counted
from hardware.errors import UsageError
from training.commands._engine import add_engine_options, chosen_engine
from training.commands._folds import chosen_folds
from training.commands._shared import (
    StepBar,
    add_option,
    add_training_options,
    load_recordings,
    load_training,
    print_scores,
    step_bars,
)
from training.data.dataset import folds_of
from training.data.notices import describe_oddities
from training.data.sessions import labels_of_one_session
from training.engines import EngineChoice, open_engine
from training.evaluation.storage import CROSSVAL_REPORT, SESSIONS_REPORT, write_json
from training.experiments.crossval import cross_validate
from training.experiments.few_shot import FEW_SHOT, run_few_shot, split_few_shot
from training.experiments.held_out_days import cross_validate_days
from training.experiments.held_out_sessions import cross_validate_sessions
from training.experiments.open_set import split_open_set, train_open_set
from training.reports.sessions import session_lines
from training.reports.trust import OPEN_SET, open_set_report
from training.sampling.measurements import total_steps

if TYPE_CHECKING:
    import argparse

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.engines import Engine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Train a network per fold, quantise it, and score the int8 network on the "
        "recordings of its fold. Substances: one recording of every substance is held out. "
        "Mixtures: component sets are held out with all their proportions. The same recordings "
        "are scored as in another session (robust_*), as from another board (board_*) and through "
        "the decision layer. With --few-shot, substances are held out instead: a network that "
        "is trained without every fifth substance is taught those from one recording each. With "
        "--open-set, five networks that are each trained without ten substances are tested on "
        "those, and on held-out recordings of the others: `trust` and `export` need this to "
        "judge and recognise unknown smells. With --sessions, whole sessions are held out, and "
        "the recordings are played to the decision layer: the figure to expect on another day. For "
        "mixtures, --sessions holds out every day with its component sets."
    )
    parser.epilog = (
        "Example: scent-train crossval --config substances-50 --data data/smellnet/base --json"
    )
    add_training_options(parser)
    add_option(
        parser, "--folds", help="only these folds, where all would take too long (default: all)"
    )
    add_option(parser, "--json", help="print the report as one JSON object")
    parser.add_argument(
        "--few-shot",
        action="store_true",
        help="hold substances out instead, and teach them from one recording each",
    )
    parser.add_argument(
        "--open-set",
        action="store_true",
        help="train five networks without ten substances each, and test them on those",
    )
    parser.add_argument(
        "--sessions",
        action="store_true",
        help="hold out whole sessions (LABEL/SESSION/*.csv) instead of single recordings",
    )
    parser.add_argument(
        "--also",
        type=Path,
        metavar="DIR",
        help="with --sessions: recordings of further sessions, DIR/LABEL/*.csv, which never train",
    )
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and score every fold; print the mean scores."""
    choice = chosen_engine(args)
    config, data, folder = load_training(args)
    print(describe_oddities(len(data.samples), data.oddities), file=sys.stderr)
    if sum((args.few_shot, args.open_set, args.sessions)) > 1:
        raise UsageError(
            "Expected one of --few-shot, --open-set and --sessions, got several. Run them one by "
            "one."
        )
    if args.also is not None and not args.sessions:
        raise UsageError("--also adds recordings to judge with --sessions; add that option too.")
    if args.few_shot:
        if choice != EngineChoice():
            raise UsageError("--few-shot trains one network; leave --engine and --workers out.")
        return _few_shot(args, config, data, folder)
    with open_engine(choice) as engine:
        if args.sessions:
            return _sessions(args, config, data, folder, engine)
        if args.open_set:
            return _open_set(args, config, data, folder, engine)
        return _recordings(args, config, data, folder, engine)


def _recordings(
    args: argparse.Namespace, config: TrainConfig, data: Dataset, folder: Path, engine: Engine
) -> int:
    """Hold out single recordings, or component sets; print the mean scores."""
    if len(labels_of_one_session(data)) < len(data.labels):
        print(
            "These folds hold out recordings, not days: --sessions gives the figure to expect on "
            "another day.",
            file=sys.stderr,
        )
    fold_of = folds_of(data)
    report = cross_validate(
        config,
        data,
        folder,
        device=args.device,
        folds=chosen_folds(args.folds, data),
        on_step=step_bars(
            lambda fold: f"{config.name} fold {fold}",
            lambda fold: total_steps(config, data.subset(fold_of != fold)),
        ),
        engine=engine,
    )
    if args.json:
        print(json.dumps(report))
        return 0
    folds = counted(len(report["folds"]), "fold")
    print(f"{config.name}, {report['protocol']}, int8, mean over {folds} [95 % over recordings]:")
    print_scores(report["mean"], report["intervals"])
    layer = report["decision"]
    if layer:
        print("The decision layer, its constants fitted on the other folds:")
        print_scores(layer["scores"], layer["intervals"])
    print(f"Report and held-out predictions: {folder / CROSSVAL_REPORT}", file=sys.stderr)
    return 0


def _sessions(
    args: argparse.Namespace, config: TrainConfig, data: Dataset, folder: Path, engine: Engine
) -> int:
    """Hold out whole sessions; print the scores of each and of all together."""
    if args.folds is not None:
        raise UsageError("--sessions holds out every session in turn; leave --folds out.")
    if config.task == "mixture":
        return _days(args, config, data, folder, engine)
    also = None
    if args.also is not None:
        also = load_recordings(config.task, args.also, labels=data.labels)
        also = also.at_rate(config.preprocessing.rate_hz)
    bars = step_bars(
        lambda fold: f"{config.name} session fold {fold}", lambda _fold: total_steps(config, data)
    )
    report = cross_validate_sessions(
        config, data, folder, also=also, device=args.device, on_step=bars, engine=engine
    )
    if args.json:
        print(json.dumps(report))
        return 0
    print("\n".join(session_lines(report)))
    print(f"Report: {folder / SESSIONS_REPORT}", file=sys.stderr)
    return 0


def _days(
    args: argparse.Namespace, config: TrainConfig, data: Dataset, folder: Path, engine: Engine
) -> int:
    """Hold out every day of mixtures with its component sets; print the scores."""
    if args.also is not None:
        raise UsageError("--also is for models of single substances; leave it out.")
    bars = step_bars(lambda fold: f"{config.name} day {fold}", lambda _: total_steps(config, data))
    report = cross_validate_days(
        config, data, folder, device=args.device, on_step=bars, engine=engine
    )
    if args.json:
        print(json.dumps(report))
        return 0
    exposures = counted(report["exposures"], "exposure")
    print(f"{config.name}, {report['protocol']}, int8 [95 % over {exposures}]:")
    print_scores(report["pooled"], report["intervals"])
    print(f"Report: {folder / SESSIONS_REPORT}", file=sys.stderr)
    return 0


def _open_set(
    args: argparse.Namespace, config: TrainConfig, data: Dataset, folder: Path, engine: Engine
) -> int:
    """Train without some substances, and print how well they are recognised as unknown."""
    folds = train_open_set(
        config,
        data,
        folder,
        device=args.device,
        folds=chosen_folds(args.folds, data),
        on_step=step_bars(
            lambda fold: f"{config.name} open set fold {fold}",
            lambda fold: total_steps(config, split_open_set(data, fold)[0]),
        ),
        engine=engine,
    )
    report = open_set_report(config.name, data.sha256, folds)
    write_json(folder / OPEN_SET, report)
    if args.json:
        print(json.dumps(report))
        return 0
    unknown = report["unknown"]
    print(f"{config.name}, {report['protocol']}, int8 [95 % over substances]:")
    print(f"  unknown or known, by {unknown['best']} (the best of {', '.join(unknown['scores'])}):")
    places = unknown["scores"][unknown["best"]]
    print_scores(
        {f"auroc_{place}": row["auroc"] for place, row in places.items()},
        {f"auroc_{place}": row["interval"] for place, row in places.items()},
        indent=4,
    )
    for exposures, choices in report["lessons"]["taught"].items():
        for choice, row in choices.items():
            print(f"  taught from {counted(int(exposures), 'exposure')}, {choice}:")
            print_scores(row["scores"], row["intervals"], indent=4)
    print(f"Report: {folder / OPEN_SET}", file=sys.stderr)
    return 0


def _few_shot(args: argparse.Namespace, config: TrainConfig, data: Dataset, folder: Path) -> int:
    """Train without some substances, teach them, and print how well they are recognised."""
    known, _ = split_few_shot(data)
    bar = StepBar(f"{config.name} few-shot", total_steps(config, known))
    report = run_few_shot(config, data, folder, device=args.device, on_step=bar)
    if args.json:
        print(json.dumps(report))
        return 0
    print(f"{config.name}, {report['protocol']}, int8 [95 % over recordings]:")
    for name, row in report["methods"].items():
        print(f"  by {name}:")
        print_scores(row["scores"], row["intervals"], indent=4)
    print(f"Report: {folder / FEW_SHOT}", file=sys.stderr)
    return 0
