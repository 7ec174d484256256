"""training/: `scent-train rigs`: what a taught rig recognises on another day."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from training.commands._shared import add_option
from training.experiments.real_rigs import MOMENTS_S, RIGS, Trial, evaluate_rig, load_rig

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    names = ", ".join(rig.name for rig in RIGS)
    parser.description = (
        "Teach the rig's own recogniser from some sessions of a real rig and let it name the "
        "exposures of another session: from one, two and three sessions, from all, and smells "
        "that it was never taught. Prints the shares of exposures that are named right, named "
        "wrong, whose most probable smell is right whether it is announced or not, and whose "
        "right smell is among the three most probable, at 60, 120 and 240 s after the onset and "
        "in the end. Takes about four minutes."
    )
    parser.epilog = "Example: scent-train rigs --data $SCENTD_DATA/rigs"
    add_option(parser, "--data", help=f"the folder that holds {names}")
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score every rig and print the table."""
    trials: list[Trial] = []
    for rig in RIGS:
        print(f"Scoring {rig.name} ...", file=sys.stderr, flush=True)
        trials += evaluate_rig(load_rig(args.data, rig), rig.name)
    if args.json:
        print(json.dumps([dataclasses.asdict(trial) for trial in trials]))
    else:
        print("\n".join(table(trials)))
    return 0


def table(trials: list[Trial]) -> list[str]:
    """Return the lines of a Markdown table."""
    moments = ", ".join("end" if at_s == float("inf") else f"{at_s:.0f} s" for at_s in MOMENTS_S)
    lines = [
        f"| rig | taught from | named right at {moments} | named wrong | likeliest right "
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
