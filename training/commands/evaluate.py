"""training/: `scent-train evaluate`: score a bundle on labelled recordings. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from models.bundle import load_bundle
from training.commands._shared import add_option, load_recordings, print_scores
from training.data.clean_air import begin_in_clean_air
from training.evaluation.intervals import score_intervals
from training.evaluation.network_outputs import run_network, score_bundle, tally_bundle
from training.evaluation.replayed import announcement_tally, replay_recordings
from training.evaluation.scoring import total_scores
from training.evaluation.streaming import (
    first_announcement_s,
    median_announcement_s,
    stream_recordings,
    streaming_tally,
    trace_decisions,
)

if TYPE_CHECKING:
    import argparse

    from models.bundle import Bundle
    from training.data.dataset import Dataset
    from training.evaluation.intervals import Interval

PLAYED = ("announced", "announced_right")
"""The scores of `announcement_tally` that are printed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Score a bundle on labelled recordings by the published protocol: window "
        "100, stride 50. Scores are shares of 1, `intervals` their 95 % bootstrap intervals over "
        "recordings; `seen_in_training` counts the recordings that "
        "the bundle was trained on. For substances, `announced` is the share of recordings that "
        "are given a name when they are played to the nose, among all labels of the bundle, and "
        "`announced_right` the share of those whose last name is right."
    )
    parser.epilog = (
        "Example: scent-train evaluate --model substances-50 "
        "--data data/smellnet/crosssession/nuts --task substance --json"
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
    data = data.at_rate(manifest.preprocessing.rate_hz)
    outputs = run_network(bundle, data)
    result: dict[str, Any] = dict(score_bundle(bundle, data, outputs))
    groups = [sample.group for sample in data.samples]
    intervals = score_intervals(tally_bundle(bundle, data, outputs), groups)
    if args.task == "substance":
        scores, played_intervals = _score_played(bundle, data, groups)
        result |= scores
        intervals |= played_intervals
    if args.streaming:
        scores, stream_intervals = _score_streams(bundle, data, groups)
        result |= scores
        intervals |= stream_intervals
    if args.json:
        print(json.dumps(result | {"intervals": intervals}))
        return 0
    print(
        f"{manifest.name} {manifest.version} ({bundle.precision}) on {args.data} "
        "[95 % over recordings]:"
    )
    print_scores(result, intervals)
    return 0


def _score_played(
    bundle: Bundle, data: Dataset, groups: list[str]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Score the names that the nose gives when it is played the recordings, with intervals."""
    from_onset = begin_in_clean_air(data.samples)
    played = replay_recordings(bundle, data.samples, from_onset=from_onset)
    truth = [data.labels[place] for place in data.targets.argmax(axis=1).tolist()]
    tally = announcement_tally(played, truth)
    tally = {name: tally[name] for name in PLAYED}
    return total_scores(tally), score_intervals(tally, groups)


def _score_streams(
    bundle: Bundle, data: Dataset, groups: list[str]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Score the announcements of the bundle's own decision layer, with intervals."""
    if data.labels != bundle.manifest.labels:
        raise UsageError(
            "--streaming judges what the daemon would announce, and the daemon chooses among all "
            "labels: leave --labels out."
        )
    streams = stream_recordings(bundle, data.samples)
    trace = trace_decisions(streams, bundle.manifest.decision)
    tally = streaming_tally(streams, trace)
    scores, intervals = total_scores(tally), score_intervals(tally, groups)
    first_s = first_announcement_s(streams, trace)
    scores["median_decision_s"], intervals["median_decision_s"] = median_announcement_s(first_s)
    return scores, intervals


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
