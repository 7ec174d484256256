"""training/: `scent-train boards measure|compare|calibrate`: a training's board, and others."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.counting import counted
from models.bundle import RIG_BUNDLES, bundle_folder, load_bundle
from models.manifest import read_manifest
from training.commands._shared import add_option
from training.data.dataset import load_mixtures, load_substances
from training.data.layouts import refuse_test_part
from training.experiments.foreign_boards import (
    KNOWN_AT_S,
    ComparedTest,
    Known,
    Played,
    compare_tests,
    count_known,
    import_boards,
    play_board,
)
from training.experiments.real_calibration import CalibratedDay, calibrate_days
from training.export.board import add_board

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "A model's labels are announced only on boards like that of its training. `measure` writes "
        "into an existing bundle what its training board looks like; `export` does so by itself. "
        "`compare` prints how well several tests tell other boards, and what the models say there; "
        "`calibrate` what calibration to one day's references does there on other days."
    )
    parser.epilog = "Example: scent-train boards compare --data $SCENTD_DATA"
    actions = parser.add_subparsers(
        title="actions", metavar="measure|compare|calibrate", required=True, dest="action"
    )
    measure = actions.add_parser(
        "measure",
        help="write the figures of the training board into a bundle",
        description="Measure the board of a bundle's training recordings; write the bundle anew.",
        epilog="Example: scent-train boards measure --bundle my-model --data data/smellnet/base",
    )
    measure.add_argument("--bundle", required=True, metavar="BUNDLE", help="the bundle's folder")
    add_option(measure, "--data", help="the recordings that the model was trained on")
    measure.set_defaults(run=run_measure)
    compare = actions.add_parser(
        "compare",
        help="score tests for other boards, and the shipped models on other boards",
        description=(
            "For several tests, print the share of recordings of the training board's own other "
            "sessions that are taken for another board, and the share of recordings of other real "
            "and of simulated boards that are found; then play every recording of other boards to "
            "the shipped models, and count those that are given a name. Takes about ten minutes."
        ),
        epilog="Example: scent-train boards compare --data $SCENTD_DATA",
    )
    add_option(compare, "--data", help="the folder that holds smellnet/ and rigs/")
    add_option(compare, "--json")
    compare.set_defaults(run=run_compare)
    calibrate = actions.add_parser(
        "calibrate",
        help="calibrate a real second board by one day's references, and judge the other days",
        description=(
            "The rig fruits5 shares banana and pineapple with substances-50. Fit a correction to "
            "the recordings of each of its days, and print what the model says of those of other "
            "days, before and after, beside what the rig recognises that is taught the same "
            "references. Takes about a minute."
        ),
        epilog="Example: scent-train boards calibrate --data $SCENTD_DATA",
    )
    add_option(calibrate, "--data", help="the folder that holds rigs/")
    add_option(calibrate, "--json")
    calibrate.set_defaults(run=run_calibrate)


def run_measure(args: argparse.Namespace) -> int:
    """Measure the training board and write the bundle anew."""
    refuse_test_part(args.data)
    folder = bundle_folder(args.bundle)
    substance = read_manifest(folder).task == "substance"
    data = load_substances(args.data) if substance else load_mixtures(args.data)
    board = add_board(folder, data).board
    if board is not None:
        recordings = counted(board.recordings, "recording")
        print(
            f"{folder}: {recordings} of {counted(board.sessions, 'session')}, channels "
            f"{', '.join(board.channels)}, another board from a squared distance of {board.limit}"
        )
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Print the tables."""
    bundles = [load_bundle(name) for name in (*RIG_BUNDLES, "fruits-5")]
    smellnet = args.data / "smellnet"
    base = load_substances(smellnet / "base")
    mixtures = load_mixtures(smellnet / "mixture").drop_unordered()
    other_day = load_substances(smellnet / "crosssession" / "nuts")
    tests: list[ComparedTest] = []
    known: list[Known] = []
    played: list[Played] = []
    with tempfile.TemporaryDirectory() as place:
        boards = import_boards(args.data / "rigs", Path(place))
        trained_on = (base, mixtures, boards["fruits5"])
        others = [
            {name: board for name, board in boards.items() if board is not data}
            for data in trained_on
        ]
        for bundle, data, foreign in zip(bundles, trained_on, others, strict=True):
            print(f"Comparing the tests for {bundle.manifest.name} ...", file=sys.stderr)
            own_days = {"nuts of another day": other_day} if data is base else {}
            tests += compare_tests(bundle, data, own_days, foreign)
            known += count_known(bundle, data, foreign)
        own = {"SmellNet, training recordings": base, "SmellNet, nuts of another day": other_day}
        plays = [*zip(bundles, others, strict=True), (bundles[0], own)]
        plays.append((bundles[-1], {"fruits5, training recordings": boards["fruits5"]}))
        for bundle, recordings in plays:
            for name, data in recordings.items():
                print(f"Playing {name} to {bundle.manifest.name} ...", file=sys.stderr)
                played.append(play_board(bundle, name, data))
    if args.json:
        print(
            json.dumps(
                {
                    "tests": [dataclasses.asdict(row) for row in tests],
                    "known": [dataclasses.asdict(row) for row in known],
                    "played": [dataclasses.asdict(row) for row in played],
                }
            )
        )
    else:
        tables = [*comparison_table(tests), "", *known_table(known), "", *played_table(played)]
        print("\n".join(tables))
    return 0


def run_calibrate(args: argparse.Namespace) -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        data = import_boards(args.data / "rigs", Path(place))["fruits5"]
        days = calibrate_days(load_bundle("substances-50"), data, data.folder or Path(place))
    if args.json:
        print(json.dumps([dataclasses.asdict(day) for day in days]))
    else:
        print("\n".join(calibration_table(days)))
    return 0


def calibration_table(days: list[CalibratedDay]) -> list[str]:
    """Return the lines of a Markdown table; counts of recordings."""
    lines = [
        "| day | references | correction | recordings of other days | names | named right "
        "| wrong | likeliest right | among three |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for day in days:
        head = f"| {day.day} | {day.references} | {day.method} | {day.recordings}"
        sources = (("uncalibrated", day.before), ("calibrated", day.after), ("taught", day.taught))
        for source, names in sources:
            if names is None:
                continue
            # Of two taught smells, three hold the truth always.
            listed = "-" if source == "taught" else str(names.listed)
            counts = f"{names.right} | {names.wrong} | {names.likeliest} | {listed}"
            lines.append(f"{head} | {source} | {counts} |")
    return lines


def comparison_table(results: list[ComparedTest]) -> list[str]:
    """Return the lines of a Markdown table, one row a test."""
    boards = list(dict.fromkeys(name for result in results for name in result.found))
    lines = [
        f"| model | test | own sessions held out | {' | '.join(boards)} |",
        "|---|---|---|" + "---|" * len(boards),
    ]
    for result in results:
        shares = [f"{result.found[name]:.2f}" if name in result.found else "-" for name in boards]
        lines.append(
            f"| {result.model} | {result.test} | {result.own:.3f} | {' | '.join(shares)} |"
        )
    return lines


def known_table(known: list[Known]) -> list[str]:
    """Return the lines of a Markdown table, one row a model and a board."""
    moments = " | ".join(f"own after {moment:.0f} s" for moment in KNOWN_AT_S)
    lines = [
        f"| model | recordings of | all | {moments} | ever |",
        "|---|---|---|---|" + "---|" * len(KNOWN_AT_S),
    ]
    for row in known:
        shares = " | ".join(f"{share:.3f}" for share in (*row.after, row.ever))
        lines.append(f"| {row.model} | {row.board} | {row.recordings} | {shares} |")
    return lines


def played_table(played: list[Played]) -> list[str]:
    """Return the lines of a Markdown table, one row a model and a board."""
    rows = [
        f"| {row.model} | {row.board} | {row.recordings} | {row.fed} | {row.foreign} | "
        f"{row.named} | {row.named_early} |"
        for row in played
    ]
    return [
        "| model | recordings of | all | fed | called foreign | named | named within 120 s |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
