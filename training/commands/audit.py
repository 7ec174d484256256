"""training/: `scent-train audit`: find out how much of a score is session and not smell."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from training.commands._shared import add_option, load_recordings
from training.experiments.audit.verdicts import STEPS, Audit, AuditScores, ModelFigures, audit
from training.reports.audit import write_audit

if TYPE_CHECKING:
    import argparse

    from training.data.dataset import Dataset


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Train controls that must fail on the folds of the cross-validation: weather, "
        "absolute levels, the first seconds, file names, broken channels, shuffled labels. "
        "Whatever one of them names right needs no smell. Writes audit.json, audit.md and "
        "audit.svg."
    )
    parser.epilog = (
        "Example: scent-train audit --data data/smellnet/base "
        "--model-report runs/substances-50/crossval.json"
    )
    add_option(parser, "--data")
    parser.add_argument("--task", choices=("substance",), default="substance")
    parser.add_argument(
        "--model-report",
        type=Path,
        metavar="FILE",
        help="crossval.json of a network, to compare the controls with",
    )
    add_option(
        parser, "--run", default=Path("runs/audit"), help="folder for the three files (runs/audit)"
    )
    parser.add_argument(
        "--trees", type=int, default=300, metavar="N", help="trees of a classifier (300)"
    )
    add_option(parser, "--jobs")
    add_option(parser, "--json", help="print the audit as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the controls; print the verdicts and write the files."""
    from tqdm import tqdm  # noqa: PLC0415 - of the train extra

    if args.trees < 1:
        raise UsageError(f"Expected --trees of at least 1, got {args.trees}.")
    data = load_recordings(args.task, args.data)
    model = _read_figures(args.model_report, data) if args.model_report else None
    with tqdm(total=len(STEPS), unit="control", dynamic_ncols=True) as bar:

        def on_step(name: str) -> None:
            bar.update(STEPS.index(name) - bar.n)
            bar.set_description(name)

        result = audit(data, model=model, trees=args.trees, jobs=args.jobs, on_step=on_step)
        bar.update(len(STEPS) - bar.n)
    paths = write_audit(args.run_folder, result, data.sha256)
    print(json.dumps(dataclasses.asdict(result)) if args.json else _text(result))
    print(f"Written: {', '.join(map(str, paths))}", file=sys.stderr)
    return 0


def _text(result: Audit) -> str:
    width = max(len(row.control) for row in result.rows)
    lines = [
        f"{row.control:<{width}}  {row.verdict:<7}  {row.top1:.3f}  {row.sentence}"
        for row in result.rows
    ]
    return "\n".join([*lines, "", *result.summary])


def _read_figures(path: Path, data: Dataset) -> ModelFigures:
    """Read a network's figures from the report of its cross-validation."""
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        mean = report["mean"]
        # Absent from the reports of versions before 0.2.
        low, high = report.get("intervals", {}).get("top1", (mean["top1"], mean["top1"]))
        scores = AuditScores(*map(float, (mean["top1"], low, high, mean["recording_top1"])))
        figures = ModelFigures(report["model"], scores, mean.get("robust_top1"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"Expected the crossval.json of a substance model, got {path} ({error!r}). Name the "
            "report that `scent-train crossval` wrote."
        ) from error
    if report.get("data_sha256") != data.sha256:
        raise UsageError(
            f"{path} is a report on other recordings than --data. Cross-validate on the same "
            "folder, or leave --model-report away."
        )
    return figures
