"""training/: `scent-train rescore`: score an archive of recordings anew by models."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.archive import require_pyarrow
from hardware.counting import counted
from hardware.errors import UsageError
from training.commands._engine import add_engine_options, chosen_engine
from training.commands._shared import add_option
from training.engines import open_engine
from training.rescoring.run import load_models, rescore_recordings
from training.rescoring.sources import find_sources

if TYPE_CHECKING:
    import argparse

    from training.rescoring.run import RescoreReport


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Score any number of recordings by one or several models, with the predictions of `scentd "
        "replay`, and write them as Parquet: OUTPUT/rig=RIG/day=DAY/*.parquet, one row per "
        "prediction. A run that was stopped goes on with the same command; what is finished is "
        "scored again only if the recording or the model changed. A recording that cannot be read "
        "is named, and the others go on; the exit status is 1 then."
    )
    parser.epilog = (
        "Example: scent-train rescore --data archive --model substances-50 --output scores "
        "--workers 4"
    )
    add_option(
        parser,
        "--data",
        required=False,
        help="an archive (scentd recordings export --format parquet), or any folder of recordings",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help="folders of bundles, or names of shipped ones",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the results; made if it is missing"
    )
    parser.add_argument(
        "--rig",
        metavar="NAME",
        help="whose recordings a folder holds (default: the folder's name); an archive knows it",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="score simulated recordings instead, and print readings a second with 1 and 2 workers",
    )
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score the recordings; return 1 if any cannot be read."""
    require_pyarrow()
    if args.benchmark:
        return _benchmark(args)
    if args.data is None or not args.model or args.output is None:
        raise UsageError("Name --data, --model and --output (or --benchmark).")
    choice = chosen_engine(args)
    sources = find_sources(args.data.absolute(), args.rig)
    models = load_models(args.model)
    started_s = time.monotonic()
    with open_engine(choice) as engine:
        report = rescore_recordings(engine, sources, models, args.output.resolve())
    seconds = time.monotonic() - started_s
    for name, reason in report.failed.items():
        print(f"scent-train: {name}: {reason}", file=sys.stderr)
    if args.json:
        print(json.dumps({**dataclasses.asdict(report), "seconds": round(seconds, 2)}))
    else:
        print("\n".join(_lines(report, args.output, seconds)))
    return 1 if report.failed else 0


def _lines(report: RescoreReport, output: Path, seconds: float) -> list[str]:
    pace = report.readings / seconds if seconds else 0.0
    return [
        f"{counted(report.recordings, 'recording')}: {report.scored} scored now "
        f"({counted(report.readings, 'reading')}, {counted(report.predictions, 'prediction')}, "
        f"{seconds:.1f} s, {pace:.0f} readings a second)",
        f"  finished before, and kept: {report.kept}",
        f"  cannot feed a model:       {report.not_fed}",
        f"  cannot be read:            {len(report.failed)}",
        f"Predictions: {output}/rig=*/day=*/*.parquet; one row a recording and model: "
        f"{output}/_recordings.parquet",
    ]


def _benchmark(args: argparse.Namespace) -> int:
    from training.rescoring.benchmark import (  # noqa: PLC0415 - loads the simulator
        benchmark_lines,
        run_benchmark,
    )

    result = run_benchmark(chosen_engine(args).name)
    print(json.dumps(result) if args.json else "\n".join(benchmark_lines(result)))
    return 0
