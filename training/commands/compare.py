"""training/: `scent-train compare`: score other kinds of model on the same folds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.commands._engine import add_engine_options, chosen_engine
from training.commands._folds import chosen_folds, words
from training.commands._shared import add_option, load_recordings
from training.engines import open_engine
from training.experiments.baselines.comparison import (
    baseline_row,
    baseline_table,
    compare_baselines,
    write_baseline_report,
)
from training.experiments.baselines.inputs import OURS
from training.experiments.baselines.registry import BASELINES, select_baselines

if TYPE_CHECKING:
    import argparse

    from training.experiments.runner import FoldPredictions


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Train other kinds of model on the same folds and the same windows as "
        "`crossval`, and print their scores with 95 % intervals over recordings. The baselines: "
        f"{', '.join(BASELINES)}. Stored results are not computed again."
    )
    parser.epilog = (
        "Example: scent-train compare --data data/smellnet/base --models trees,rocket --folds 0,1"
    )
    add_option(parser, "--data")
    parser.add_argument(
        "--models", metavar="A,B", default=",".join(BASELINES), help="which baselines (all)"
    )
    add_option(parser, "--folds")
    parser.add_argument(
        "--budget-s",
        type=float,
        default=360.0,
        metavar="S",
        help="seconds that a fold of a baseline should take at most (360): a longer one is "
        "finished, because stopping by the clock could not be repeated, and reported",
    )
    add_option(
        parser,
        "--run",
        default=Path("runs/substances-50"),
        help="folder for the predictions and compare.json (runs/substances-50)",
    )
    add_option(parser, "--jobs")
    add_engine_options(parser)
    add_option(parser, "--json", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the missing models; print and write the table."""
    from tqdm import tqdm  # noqa: PLC0415 - of the train extra

    choice = chosen_engine(args)
    entries = select_baselines(words(args.models))
    data = load_recordings("substance", args.data).at_rate(OURS.rate_hz)
    folds = chosen_folds(args.folds, data)
    done: dict[str, dict[int, FoldPredictions]] = {entry.name: {} for entry in entries}
    rows: list[dict[str, Any]] = []
    slow = []
    with (
        open_engine(choice) as engine,
        tqdm(total=len(entries) * len(folds), unit="fold", dynamic_ncols=True) as bar,
    ):
        jobs = args.jobs if engine.here else 1
        for entry, fold, part in compare_baselines(
            data, entries, folds, args.run_folder, jobs=jobs, engine=engine
        ):
            done[entry.name][fold] = part
            bar.set_description(f"{entry.name} fold {fold}")
            bar.update()
            if part.seconds > args.budget_s:
                slow.append(f"{entry.name} fold {fold}: {part.seconds:.0f} s")
            if len(done[entry.name]) == len(folds):
                # Written after every baseline, so that an interrupted comparison has a report.
                rows.append(baseline_row(entry, done[entry.name]))
                path = write_baseline_report(args.run_folder, data, rows)
    print(json.dumps(rows) if args.json else baseline_table(rows))
    if slow:
        print(f"Longer than --budget-s {args.budget_s:g}: {'; '.join(slow)}", file=sys.stderr)
    print(f"Report: {path}", file=sys.stderr)
    return 0
