"""training/: `scent-train evaluate`: score a bundle on labelled recordings. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from models.bundle import load_bundle
from training.commands._shared import load_task, score_lines
from training.evaluation.evaluate import ask, score

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a bundle on labelled recordings (needs no torch)",
        description="Score a bundle on labelled recordings by the published protocol: window "
        "100, stride 50. Scores are shares of 1; `seen_in_training` counts the recordings that "
        "the bundle was trained on.",
        epilog="Example: scent-train evaluate --model substances-50 "
        "--data data/smellnet/crosssession/nuts --task substance --json",
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="name or folder")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the recordings")
    parser.add_argument("--task", required=True, choices=("substance", "mixture"))
    parser.add_argument(
        "--labels", metavar="A,B", help="restrict the choice to these labels (substances)"
    )
    parser.add_argument("--index", type=Path, metavar="CSV", help="proportions of mixtures")
    parser.add_argument("--precision", choices=("int8", "fp32"), default="int8")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    bundle = load_bundle(args.model, precision=args.precision)
    manifest = bundle.manifest
    if manifest.task != args.task:
        raise UsageError(
            f"{manifest.name} is a {manifest.task} model and cannot do --task {args.task}."
        )
    labels = _chosen(args.labels, manifest.labels, args.task)
    data = load_task(args.task, args.data, args.index, labels)
    result = score(bundle, data, ask(bundle, data))
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{manifest.name} {manifest.version} ({bundle.precision}) on {args.data}:")
    for line in score_lines(result):
        print(f"  {line}")
    return 0


def _chosen(text: str | None, known: tuple[str, ...], task: str) -> tuple[str, ...]:
    if text is None:
        return known
    if task == "mixture":
        raise UsageError("--labels restricts substances only; a mixture may hold any component.")
    chosen = tuple(label.strip() for label in text.split(","))
    unknown = [label for label in chosen if label not in known]
    if unknown:
        raise UsageError(
            f"--labels names what the model does not know: {', '.join(unknown)}. "
            f"Its labels are: {', '.join(known)}."
        )
    return chosen
