"""training/: `scent-train unmix`: what a rig finds in mixtures of smells that it was taught."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from training.commands._shared import add_option
from training.data.dataset import load_mixtures
from training.experiments.real_rigs import MOMENTS_S, RIGS, load_rig
from training.experiments.unmixed_singles import UnmixedSingles, unmix_singles
from training.experiments.unmixing import (
    SIMULATED_BOARDS,
    TEACHINGS,
    UnmixingTrial,
    load_exposures,
    real_pairs,
    simulated_ceiling,
    simulated_mixtures,
)

if TYPE_CHECKING:
    import argparse

_ALL_CHANNELS = "6 gas + heater plate"
_REPEATED = 3
"""Exposures of each smell in the last simulated line."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Teach the rig's unmixing some smells and count how often it finds the exact set of "
        "components: real pairs among the published mixtures, smells taught in the same session "
        "or on the day before; and single smells and even pairs on the simulated board, taught on "
        "another simulated day. Intervals are over exposures. Takes about three minutes."
    )
    parser.epilog = (
        "Example: scent-train unmix --data $SCENTD_DATA/smellnet/mixture --rigs $SCENTD_DATA/rigs"
    )
    add_option(parser, "--data", help="the published mixture recordings")
    parser.add_argument(
        "--rigs",
        type=Path,
        metavar="DIR",
        help="also teach the real rigs in this folder, and print what is announced of single "
        "smells with whole sessions held out",
    )
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score real pairs and simulated mixtures and print the table."""
    singles: list[UnmixedSingles] = []
    for rig in RIGS if args.rigs else ():
        print(f"Unmixing single smells of {rig.name} ...", file=sys.stderr, flush=True)
        singles += unmix_singles(rig.name, load_rig(args.rigs, rig))
    print("Reading the recordings ...", file=sys.stderr, flush=True)
    exposures = load_exposures(load_mixtures(args.data))
    trials: list[UnmixingTrial] = []
    for teaching in TEACHINGS:
        print(f"Scoring real pairs, {teaching[0]} ...", file=sys.stderr, flush=True)
        trials += real_pairs(exposures, teaching)
    for name, channels in SIMULATED_BOARDS.items():
        print(f"Scoring simulated mixtures, {name} ...", file=sys.stderr, flush=True)
        found = simulated_mixtures(channels)
        if name == _ALL_CHANNELS:
            found += simulated_mixtures(channels, _REPEATED)
            found += simulated_mixtures(channels, equal=True)
        trials += [dataclasses.replace(one, what=f"{name}: {one.what}") for one in found]
    for same in (False, True):
        ceiling = simulated_ceiling(SIMULATED_BOARDS[_ALL_CHANNELS], same_exposure=same)
        trials.append(dataclasses.replace(ceiling, what=f"{_ALL_CHANNELS}: {ceiling.what}"))
    if args.json:
        print(json.dumps([*map(dataclasses.asdict, trials), *map(dataclasses.asdict, singles)]))
    else:
        print("\n".join([*table(trials), *(["", *singles_table(singles)] if singles else [])]))
    return 0


def singles_table(singles: list[UnmixedSingles]) -> list[str]:
    """Return the lines of a Markdown table."""
    moments = ", ".join("end" if at_s == float("inf") else f"{at_s:.0f} s" for at_s in MOMENTS_S)
    lines = [
        f"| rig | announced by | the smell alone at {moments} | another | several | exposures |",
        "|---|---|---|---|---|---|",
    ]
    for row in singles:
        shares = (
            " ".join(f"{share:.2f}" for share in kind)
            for kind in (row.right, row.another, row.several)
        )
        lines.append(f"| {row.rig} | {row.source} | {' | '.join(shares)} | {row.exposures} |")
    return lines


def table(trials: list[UnmixingTrial]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        "| data | what was taught and asked | exact set | 95 % | by chance | exposures |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        low, high = trial.interval
        lines.append(
            f"| {trial.data} | {trial.what} | {trial.exact:.2f} | {low:.2f} to {high:.2f} | "
            f"{trial.chance:.3f} | {trial.exposures} |"
        )
    return lines
