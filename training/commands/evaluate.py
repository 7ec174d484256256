"""training/: `scent-train evaluate`: score a bundle on labelled recordings. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from models.bundle import load_bundle
from training.commands._shared import add_option, load_recordings, print_scores
from training.evaluation.evaluate import ask, score, tally
from training.evaluation.intervals import intervals
from training.evaluation.scoring import values
from training.evaluation.streaming import (
    decided_s,
    follow,
    median_decision,
    stream,
    streaming_tally,
)

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers
    from models.bundle import Bundle
    from training.data.dataset import Dataset
    from training.evaluation.intervals import Interval


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a bundle on labelled recordings (needs no torch)",
        description="Score a bundle on labelled recordings by the published protocol: window "
        "100, stride 50. Scores are shares of 1, `intervals` their 95 % bootstrap intervals over "
        "recordings; `seen_in_training` counts the recordings that "
        "the bundle was trained on.",
        epilog="Example: scent-train evaluate --model substances-50 "
        "--data data/smellnet/crosssession/nuts --task substance --json",
    )
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="name or folder")
    add_option(parser, "--data", help="the recordings")
    parser.add_argument("--task", required=True, choices=("substance", "mixture"))
    parser.add_argument(
        "--labels", metavar="A,B", help="restrict the choice to these labels (substances)"
    )
    parser.add_argument("--index", type=Path, metavar="CSV", help="proportions of mixtures")
    parser.add_argument("--precision", choices=("int8", "fp32"), default="int8")
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="also stream the recordings through the decision layer: what it announces after "
        "60, 120, 180 and 300 s, how often rightly, and how soon (substances)",
    )
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    bundle = load_bundle(args.model, precision=args.precision)
    manifest = bundle.manifest
    if manifest.task != args.task:
        raise UsageError(
            f"{manifest.name} is a {manifest.task} model and cannot do --task {args.task}."
        )
    if args.streaming and args.task == "mixture":
        raise UsageError("--streaming announces substances; a mixture has no one label.")
    labels = _chosen(args.labels, manifest.labels, args.task)
    data = load_recordings(args.task, args.data, args.index, labels)
    answers = ask(bundle, data)
    result: dict[str, Any] = dict(score(bundle, data, answers))
    groups = [sample.group for sample in data.samples]
    spread: dict[str, Interval] = intervals(tally(bundle, data, answers), groups)
    if args.streaming:
        announced, sureness = _streamed(bundle, data, groups)
        result |= announced
        spread |= sureness
    if args.json:
        print(json.dumps(result | {"intervals": spread}))
        return 0
    print(
        f"{manifest.name} {manifest.version} ({bundle.precision}) on {args.data} "
        "[95 % over recordings]:"
    )
    print_scores(result, spread)
    return 0


def _streamed(
    bundle: Bundle, data: Dataset, groups: list[str]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Score the announcements of the bundle's own decision layer, with intervals."""
    if data.labels != bundle.manifest.labels:
        raise UsageError(
            "--streaming judges what the daemon would announce, and the daemon chooses among all "
            "labels: leave --labels out."
        )
    streams = stream(bundle, data.samples)
    course = follow(streams, bundle.manifest.decision)
    announcements = streaming_tally(streams, course)
    scores, spread = values(announcements), intervals(announcements, groups)
    name = "median_decision_s"
    scores[name], spread[name] = median_decision(decided_s(streams, course))
    return scores, spread


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
