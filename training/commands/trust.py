"""training/: `scent-train trust`: measure how far a model can be trusted."""

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

    from training.data.dataset import Dataset

PARTS = ("unknown", "probabilities", "lessons", "air", "rig")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Evaluate the results of `crossval` and `crossval --open-set` in a run folder, "
        "and measure in the simulator: unknown smells rejected, announced probabilities, "
        "prediction sets, false alarms in clean air, a skewed rig before and after calibration, "
        "smells taught on the rig. Writes trust.json, and trust.html with plots, one file that "
        "needs no network. Trains nothing."
    )
    parser.epilog = (
        "Example: scent-train trust --config substances-50 --data data/smellnet/base --json"
    )
    add_training_options(parser)
    parser.add_argument(
        "--parts",
        metavar="A,B",
        default=",".join(PARTS),
        help=f"only these of {', '.join(PARTS)}; earlier measurements are kept",
    )
    parser.add_argument(
        "--hours", type=float, default=120.0, metavar="H", help="of simulated clean air (120)"
    )
    add_option(parser, "--json", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the parts, write both files, and print the targets."""
    from training.evaluation.storage import write_json  # noqa: PLC0415 - keeps --help quick
    from training.reports.trust import TRUST, TRUST_PAGE, target_lines, trust_page  # noqa: PLC0415

    parts = words(args.parts)
    if not parts or set(parts) - set(PARTS):
        raise UsageError(f"Expected --parts among {', '.join(PARTS)}, got {args.parts!r}.")
    if not args.hours > 0:
        raise UsageError(f"Expected --hours above 0, got {args.hours:g}.")
    config, data, folder = load_training(args)
    if config.task != "substance":
        raise UsageError(
            f"{config.name} is a model of mixtures; trust is measured on single "
            "substances. Name a substance configuration."
        )
    report = _read_earlier(folder / TRUST, config.name, data.sha256)
    for part in parts:
        print(f"Measuring: {part}", file=sys.stderr)
        report[part] = _MEASURES[part](args, data, folder)
        write_json(folder / TRUST, report)
    (folder / TRUST_PAGE).write_text(trust_page(report))
    if args.json:
        print(json.dumps(report))
    else:
        print("\n".join(target_lines(report)))
    print(f"Report: {folder / TRUST} and {folder / TRUST_PAGE}", file=sys.stderr)
    return 0


def _read_earlier(path: Path, model: str, data_sha256: str) -> dict[str, Any]:
    """Return the measurements of an earlier run with the same model and data."""
    fresh = {"model": model, "data_sha256": data_sha256}
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return fresh
    same = all(report.get(name) == value for name, value in fresh.items())
    return report if same else fresh


def _unknown(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.open_set import read_open_set  # noqa: PLC0415 - keeps --help quick
    from training.trust.unknown_smells import measure_unknown_smells  # noqa: PLC0415

    return measure_unknown_smells(read_open_set(folder))


def _probabilities(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.decision_fit import fit_fold_constants  # noqa: PLC0415
    from training.evaluation.held_out import HELD_OUT, read_held_out  # noqa: PLC0415
    from training.evaluation.open_set import read_open_set  # noqa: PLC0415
    from training.trust.prediction_sets import measure_prediction_sets  # noqa: PLC0415

    held_out = read_held_out(folder / HELD_OUT)
    return measure_prediction_sets(held_out, fit_fold_constants(held_out, read_open_set(folder)))


def _lessons(_args: argparse.Namespace, _data: Dataset, folder: Path) -> dict[str, Any]:
    from training.evaluation.open_set import read_open_set  # noqa: PLC0415 - keeps --help quick
    from training.trust.enrolment import measure_enrolment  # noqa: PLC0415

    return measure_enrolment(read_open_set(folder))


def _air(args: argparse.Namespace, data: Dataset, _folder: Path) -> dict[str, Any]:
    from models.bundle import RIG_BUNDLES, load_bundle  # noqa: PLC0415 - onnxruntime
    from training.trust.clean_air import measure_clean_air  # noqa: PLC0415

    return measure_clean_air(
        [load_bundle(name) for name in RIG_BUNDLES],
        data,
        hours=args.hours,
        nose_hours=args.hours / 5,
        progress=progress_bar,
    )


def _rig(_args: argparse.Namespace, data: Dataset, folder: Path) -> dict[str, Any]:
    from models.bundle import load_bundle  # noqa: PLC0415 - onnxruntime
    from training.trust.calibration import measure_calibration  # noqa: PLC0415

    bundles = {
        int(path.parent.name.removeprefix("fold-")): load_bundle(path, precision="int8")
        for path in sorted(folder.glob("fold-*/bundle"))
    }
    if not bundles:
        raise UsageError(
            f"Expected the networks of a cross-validation in {folder}/fold-*, found none. Run "
            "`scent-train crossval` first, with the same --config, --data and --run."
        )
    return measure_calibration(bundles, data, progress=progress_bar)


_MEASURES: dict[str, Callable[[argparse.Namespace, Dataset, Path], dict[str, Any]]] = {
    "unknown": _unknown,
    "probabilities": _probabilities,
    "lessons": _lessons,
    "air": _air,
    "rig": _rig,
}
