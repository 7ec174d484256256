"""Trainer: `scent-train fingerprints`: fit the simulator's tables, or check them with a model.

Needs no torch.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from training.commands._shared import add_option, progress_bar

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Fit the tables that the board simulator plays its odours from; measure how days of real "
        "rigs differ, for its other days; or play every odour to a model and print what it took "
        "them for."
    )
    parser.epilog = (
        "Examples: scent-train fingerprints --data data/smellnet\n"
        "          scent-train fingerprints --days --data data/smellnet --rigs data/rigs\n"
        "          scent-train fingerprints --check --model substances-50"
    )
    add_option(
        parser, "--data", required=False, help="fit: holds base/, mixture/ and mixture_index.csv"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the tables go (default: the simulator's own folder)",
    )
    parser.add_argument(
        "--days",
        action="store_true",
        help="print how exposures differ within a day and between days, and write that table",
    )
    parser.add_argument("--rigs", type=Path, metavar="DIR", help="days: holds fruits5/")
    parser.add_argument("--check", action="store_true", help="play the shipped tables to --model")
    parser.add_argument("--model", metavar="BUNDLE", help="check: name or folder of a bundle")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="check: exposures of each odour (5)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, measure days, or check."""
    folder = args.output or Path(str(files("hardware.simulator")))
    if args.check:
        if args.model is None or args.seeds < 1:
            raise UsageError("--check needs --model BUNDLE and --seeds of at least 1.")
        return _check(args.model, args.seeds)
    if args.days:
        if args.data is None or args.rigs is None:
            raise UsageError("--days needs --data DIR, which holds base/, and --rigs DIR.")
        return _measure_days(args.data, args.rigs, folder)
    if args.data is None:
        raise UsageError(
            "Name recordings with --data DIR to fit the tables, or a model with --check "
            "--model BUNDLE to see how well it recognises what they play."
        )
    return _fit(args.data, folder)


def _fit(data: Path, folder: Path) -> int:
    from training.simulator import fingerprint_tables as tables  # noqa: PLC0415 - scipy is slow

    for path in tables.write_tables(tables.fit_tables(data, progress_bar), folder):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
    return 0


def _measure_days(data: Path, rigs: Path, folder: Path) -> int:
    from training.simulator import day_spread  # noqa: PLC0415 - scipy is slow

    figures = day_spread.measure_days(data, rigs, progress_bar)
    print(day_spread.days_table(figures))
    path = day_spread.write_days(figures, folder)
    print(f"The table of the simulator's other days is in {path}.", file=sys.stderr)
    return 0


def _check(model: str, seeds: int) -> int:
    from models.bundle import load_bundle  # noqa: PLC0415 - a fit needs no ONNX Runtime
    from training.simulator import fingerprint_check as check  # noqa: PLC0415

    bundle = load_bundle(model, precision="int8")
    steady: dict[str, list[str]] = {}
    if bundle.manifest.task == "substance":
        steady = check.steady_confusion(bundle, seeds, progress_bar)
    results = [
        check.run_live_episodes(bundle, odour, seeds)
        for odour in progress_bar(check.live_odours(bundle))
    ]
    print(check.confusion_table(results, steady))
    played = sum(len(result.answers) for result in results)
    right = sum(result.right for result in results)
    silent = sum(result.silent for result in results)
    print(f"\n{bundle.manifest.name} {bundle.manifest.version}, int8, {seeds} seeds:")
    if steady:
        answers = [label == answer for label, given in steady.items() for answer in given]
        print(f"- steady exposures recognised: {sum(answers)} of {len(answers)}")
    print(f"- live episodes named right: {right} of {played}")
    print(f"- live episodes without a name: {silent} of {played}")
    print(f"- live episodes named wrongly: {played - right - silent} of {played}")
    return 0
