"""training/: `scent-train trust`: print the evidence of how far a model is to be trusted."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from training.commands._folds import words
from training.commands._shared import add_option, add_training_options, load_training, progress_bar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from hardware.command_line import Subparsers
    from training.data.dataset import Dataset

PARTS = ("unknown", "probabilities", "lessons", "air", "rig")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "trust",
        help="print the evidence of how far a model is to be trusted",
        description="Put together what `crossval` and `crossval --open-set` left in a run folder, "
        "and measure in the simulator: unknown smells rejected, announced probabilities, "
        "prediction sets, false alarms in clean air, a skewed rig before and after calibration, "
        "smells taught on the spot. Writes trust.json, and trust.html with plots, one file that "
        "needs no network. Trains nothing.",
        epilog="Example: scent-train trust --config substances-50 --data data/smellnet/base --json",
    )
    add_training_options(parser)
    parser.add_argument(
        "--parts",
        metavar="A,B",
        default=",".join(PARTS),
        help=f"only these of {', '.join(PARTS)}; what was measured before is kept",
    )
    parser.add_argument(
        "--hours", type=float, default=120.0, metavar="H", help="of simulated clean air (120)"
    )
    add_option(parser, "--json", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the parts, write both files, and print the targets."""
    from training.evaluation.stored_answers import write_json  # noqa: PLC0415 - keeps --help quick
    from training.reports.trust import PAGE, TRUST, lines, trust_page  # noqa: PLC0415

    parts = words(args.parts)
    if not parts or set(parts) - set(PARTS):
        raise UsageError(f"Expected --parts among {', '.join(PARTS)}, got {args.parts!r}.")
    if not args.hours > 0:
        raise UsageError(f"Expected --hours above 0, got {args.hours:g}.")
    config, data, folder = load_training(args)
    if config.task != "substance":
        raise UsageError(
            f"{config.name} is a model of mixtures; what is measured here is of single "
            "substances. Name a substance configuration."
        )
    report = _before(folder / TRUST, config.name, data.sha256)
    for part in parts:
        print(f"Measuring: {part}", file=sys.stderr)
        report[part] = _MEASURES[part](args, data, folder)
        write_json(folder / TRUST, report)
    (folder / PAGE).write_text(trust_page(report))
    if args.json:
        print(json.dumps(report))
    else:
        for line in lines(report):
            print(line)
    print(f"Report: {folder / TRUST} and {folder / PAGE}", file=sys.stderr)
    return 0


def _before(path: Path, model: str, data_sha256: str) -> dict[str, Any]:
    """Return what an earlier run measured of the same model and data."""
    fresh = {"model": model, "data_sha256": data_sha256}
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return fresh
    same = all(report.get(name) == value for name, value in fresh.items())
    return report if same else fresh


def _unknown(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.open_set_answers import read_open_set  # noqa: PLC0415 - keeps --help quick
    from training.trust import unknown_smells  # noqa: PLC0415

    return unknown_smells.measure(read_open_set(folder))


def _probabilities(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.constants import fold_constants  # noqa: PLC0415
    from training.evaluation.held_out import HELD_OUT, read_held_out  # noqa: PLC0415
    from training.evaluation.open_set_answers import read_open_set  # noqa: PLC0415
    from training.trust import prediction_sets  # noqa: PLC0415

    held_out = read_held_out(folder / HELD_OUT)
    return prediction_sets.measure(held_out, fold_constants(held_out, read_open_set(folder)))


def _lessons(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.open_set_answers import read_open_set  # noqa: PLC0415 - keeps --help quick
    from training.trust import enrolment  # noqa: PLC0415

    return enrolment.measure(read_open_set(folder))


def _air(args: argparse.Namespace, data: Dataset, _folder: Path) -> dict[str, Any]:
    from models.bundle import RIG_BUNDLES, load_bundle  # noqa: PLC0415 - onnxruntime
    from training.trust import clean_air  # noqa: PLC0415

    return clean_air.measure(
        [load_bundle(name) for name in RIG_BUNDLES],
        data,
        hours=args.hours,
        nose_hours=args.hours / 5,
        progress=progress_bar,
    )


def _rig(_args: argparse.Namespace, data: Dataset, folder: Path) -> dict[str, Any]:
    from models.bundle import load_bundle  # noqa: PLC0415 - onnxruntime
    from training.trust import calibration  # noqa: PLC0415

    bundles = {
        int(path.parent.name.removeprefix("fold-")): load_bundle(path, precision="int8")
        for path in sorted(folder.glob("fold-*/bundle"))
    }
    if not bundles:
        raise UsageError(
            f"Expected the networks of a cross-validation in {folder}/fold-*, found none. Run "
            "`scent-train crossval` first, with the same --config, --data and --run."
        )
    return calibration.measure(bundles, data, progress=progress_bar)


_MEASURES: dict[str, Callable[[argparse.Namespace, Dataset, Path], dict[str, Any]]] = {
    "unknown": _unknown,
    "probabilities": _probabilities,
    "lessons": _lessons,
    "air": _air,
    "rig": _rig,
}
