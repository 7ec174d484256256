"""training/: `scent-train rigs`: what a taught rig recognises on another day."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from training.commands._shared import add_option
from training.experiments.negatives import NegativeRow, compare_negatives
from training.experiments.real_rigs import (
    MOMENTS_S,
    RIGS,
    Trial,
    evaluate_rig,
    everything,
    few,
    load_rig,
    name_across,
    rig_recordings,
)

if TYPE_CHECKING:
    import argparse

    from training.experiments.one_exposure import Comparison
    from training.experiments.recogniser_candidates import CandidateRow

NEGATIVE_DRAWS = 2
"""Random choices of the taught exposures, and of the negative, for every pair of smells."""

ENCODER_STEPS = 1200
"""Of each encoder's training, some five minutes on one core."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    names = ", ".join(rig.name for rig in RIGS)
    parser.description = (
        "Teach the rig's own recogniser from some sessions of a real rig and let it name the "
        "exposures of another session: from one, two and three sessions, from all, and smells "
        "that it was never taught. Prints the shares of exposures that are named right, named "
        "wrong, whose most probable smell is right whether it is announced or not, and whose "
        "right smell is among the three most probable, at 60, 120 and 240 s after the onset and "
        "in the end. Takes about four minutes. With --candidates, compares the inputs and "
        "classifiers that the recogniser might have instead, and chooses among them with whole "
        "sessions held out; that takes a few minutes of an idle core. With --encoder, a "
        "ScentFormer that is trained on simulated rigs and on the other real rigs names them "
        "instead, from one exposure a smell, beside the rig's own recogniser; that takes torch and "
        "half an hour. With --negatives, two smells are never taught and one exposure of the first "
        "is kept as a negative: what that changes on another day; a few minutes."
    )
    parser.epilog = "Example: scent-train rigs --data $SCENTD_DATA/rigs"
    add_option(parser, "--data", help=f"the folder that holds {names}")
    parser.add_argument(
        "--candidates", action="store_true", help="compare inputs and classifiers instead"
    )
    parser.add_argument(
        "--encoder", action="store_true", help="compare with a general encoder of exposures instead"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=ENCODER_STEPS,
        metavar="N",
        help=f"with --encoder: steps of each training ({ENCODER_STEPS})",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="with --encoder: encoders a rig (1)"
    )
    parser.add_argument(
        "--negatives",
        action="store_true",
        help="compare uses of one exposure of a smell that must have no name instead",
    )
    parser.add_argument(
        "--across", action="store_true", help="teach each rig, and ask for the smells of the others"
    )
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score every rig and print the table."""
    if args.steps < 1 or args.seeds < 1:
        raise UsageError(
            f"--steps and --seeds must be at least 1, got {args.steps} and {args.seeds}."
        )
    if args.candidates:
        return _compare(args)
    if args.encoder:
        return _encoder(args)
    if args.negatives:
        return _negatives(args)
    if args.across:
        return _across(args)
    trials: list[Trial] = []
    for rig in RIGS:
        print(f"Scoring {rig.name} ...", file=sys.stderr, flush=True)
        trials += evaluate_rig(load_rig(args.data, rig), rig.name)
    if args.json:
        print(json.dumps([dataclasses.asdict(trial) for trial in trials]))
    else:
        print("\n".join(table(trials)))
    return 0


def _across(args: argparse.Namespace) -> int:
    """Teach each rig and ask for the exposures of the others; print the table."""
    rigs = {rig.name: load_rig(args.data, rig) for rig in RIGS}
    pairs = [(one, other) for one in rigs for other in rigs if one != other]
    rows = [
        {
            "taught": one,
            "asked": other,
            "exposures": outcome.exposures,
            "of_a_shared_name": sum(
                bool(len(asked.rows)) and asked.label in {taught.label for taught in rigs[one]}
                for asked in rigs[other]
            ),
            "right": outcome.right[-1],
            "wrong": outcome.wrong[-1],
        }
        for one, other in pairs
        for outcome in [name_across(rigs[one], rigs[other])]
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    print("| taught | asked | exposures | of a shared name | named right | named wrongly |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['taught']} | {row['asked']} | {row['exposures']} | {row['of_a_shared_name']} "
            f"| {row['right']:.2f} | {row['wrong']:.2f} |"
        )
    return 0


def _compare(args: argparse.Namespace) -> int:
    """Compare candidates and print their table."""
    from models.bundle import load_bundle  # noqa: PLC0415 - onnxruntime
    from training.experiments.recogniser_candidates import (  # noqa: PLC0415 - scikit-learn
        candidate_exposure,
        compare_candidates,
    )

    bundle = load_bundle("substances-50", precision="int8")
    rigs = {}
    for rig in RIGS:
        print(f"Reading {rig.name} ...", file=sys.stderr, flush=True)
        rigs[rig.name] = [
            candidate_exposure(recording, bundle) for recording in rig_recordings(args.data, rig)
        ]
    rows, nested = compare_candidates(
        rigs, lambda what: print(f"Scoring {what} ...", file=sys.stderr, flush=True)
    )
    if args.json:
        candidates = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"nested_score": nested, "candidates": candidates}))
    else:
        print("\n".join(candidate_table(rows, nested)))
    return 0


def candidate_table(rows: list[CandidateRow], nested: float) -> list[str]:
    """Return the lines of a Markdown table of candidates, and what the nested choice reached."""
    rigs = list(rows[0].likeliest)
    lines = [
        f"| input | classifier | score | {' | '.join(rigs)} | named right | wrong | never taught, "
        "named | chosen |",
        "|---|---|---|" + "---|" * (len(rigs) + 4),
    ]
    for row in rows:
        by_rig = " | ".join(
            " ".join(f"{share:.2f}" for share in row.likeliest[rig]) for rig in rigs
        )
        lines.append(
            f"| {row.input_name} | {row.classifier} | {row.score:.3f} | {by_rig} | "
            f"{row.right:.2f} | {row.wrong:.2f} | {row.unknown:.2f} | {row.chosen or ''} |"
        )
    held_out = sum(row.chosen for row in rows)
    lines += ["", f"Score of the nested choice over {held_out} held-out sessions: {nested:.3f}."]
    return lines


def _encoder(args: argparse.Namespace) -> int:
    """Compare a general encoder with the recogniser on every rig; print the table."""
    from training.experiments.one_exposure import compare_encoder  # noqa: PLC0415 - torch

    real = {rig.name: load_rig(args.data, rig) for rig in RIGS}
    compared = compare_encoder(real, steps=args.steps, seeds=args.seeds)
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in compared]))
    else:
        print("\n".join(encoder_table(compared)))
    return 0


def encoder_table(compared: list[Comparison]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        f"| rig | likeliest right at {_moments()}, recogniser | general encoder | exposures |",
        "|---|---|---|---|",
    ]
    for one in compared:
        shares = (" ".join(f"{share:.2f}" for share in row) for row in (one.plain, one.encoder))
        lines.append(f"| {one.rig} | {' | '.join(shares)} | {one.exposures} |")
    return lines


def _negatives(args: argparse.Namespace) -> int:
    """Compare uses of negatives on every rig that has enough smells; print the table."""
    taught = {
        "one exposure a smell in one session": (few(1), NEGATIVE_DRAWS),
        "one exposure a smell in each of two sessions": (few(2), NEGATIVE_DRAWS),
        "all other sessions": (everything, 1),
    }
    rows: list[tuple[str, str, NegativeRow]] = []
    for rig in RIGS:
        print(f"Scoring {rig.name} ...", file=sys.stderr, flush=True)
        exposures = load_rig(args.data, rig)
        for what, (choose, draws) in taught.items():
            found = compare_negatives(exposures, choose, draws=draws)
            rows += [(rig.name, what, row) for row in found]
    if args.json:
        data = [{"rig": rig, "taught": what, **dataclasses.asdict(row)} for rig, what, row in rows]
        print(json.dumps(data))
    else:
        print("\n".join(negative_table(rows)))
    return 0


def negative_table(rows: list[tuple[str, str, NegativeRow]]) -> list[str]:
    """Return the lines of a Markdown table of (rig, what was taught, row)."""
    lines = [
        "| rig | taught from | one negative | its smell named on another day | another smell never "
        "taught named | taught named right | wrong | exposures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rig, what, row in rows:
        lines.append(
            f"| {rig} | {what} | {row.use} | {row.same_named:.2f} | {row.other_named:.2f} | "
            f"{row.right:.2f} | {row.wrong:.2f} | {', '.join(map(str, row.cases))} |"
        )
    return lines


def _moments() -> str:
    return ", ".join("end" if at_s == float("inf") else f"{at_s:.0f} s" for at_s in MOMENTS_S)


def table(trials: list[Trial]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        f"| rig | taught from | named right at {_moments()} | named wrong | likeliest right "
        "| among three | exposures |",
        "|---|---|---|---|---|---|---|",
    ]
    for trial in trials:
        outcome = trial.outcome
        shares = (
            " ".join(f"{share:.2f}" for share in row)
            for row in (outcome.right, outcome.wrong, outcome.likeliest, outcome.listed)
        )
        lines.append(f"| {trial.rig} | {trial.what} | {' | '.join(shares)} | {outcome.exposures} |")
    return lines
