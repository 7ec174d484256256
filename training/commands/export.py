"""training/: `scent-train export`: quantise, verify and write the bundle of a trained model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from models.bundle import load_bundle
from training.commands._shared import add_training_options, config_path, load_training
from training.crossval import REPORT, fit_decision

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "export",
        help="quantise, verify and write the bundle of a trained model",
        description="Write the bundle of the model that `fit` trained, with the decision "
        "constants and the figures of the cross-validation in the same run folder. A training "
        "that is missing or unfinished is done first.",
        epilog="Example: scent-train export --config substances-50 --data data/smellnet/base "
        "--output my-bundles/substances-50",
    )
    add_training_options(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="BUNDLE", help="folder of the bundle"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bundle, load it again, and say what it is."""
    from training.bundling import NOTES, Provenance, write  # noqa: PLC0415 - torch
    from training.fit import fit  # noqa: PLC0415

    config, data, folder = load_training(args)
    report = _report(folder, config.name, data.sha256)
    if config.in_order_only:
        data = data.in_order()
    fitted = fit(config, data, folder=folder / "final", device=args.device)
    decision = fit_decision(folder)
    provenance = Provenance(
        command=shlex.join(
            ["scent-train", "fit", "--config", args.config, "--data", f"DIR/{args.data.name}"]
        ),
        config_file=config_path(args.config).name,
        metrics={
            **_measured(report, config.task),
            NOTES: _notes(report, config.task),
        },
    )
    manifest = write(args.output, config, fitted, data, decision, provenance)
    bundle = load_bundle(args.output)
    print(
        f"{args.output}: {manifest.name} {manifest.version}, {manifest.network.parameters:,} "
        f"parameters, {bundle.precision}, parity {dict(manifest.metrics['parity'])}"
    )
    return 0


def _measured(report: dict[str, Any], task: str) -> dict[str, Any]:
    """Return the manifest's figures: those of the cross-validation, with their intervals."""
    layer = "streaming" if task == "substance" else "presence"
    return {
        "crossval": report["mean"],
        layer: report["decision"]["scores"],
        "intervals": {
            "crossval": report["intervals"],
            layer: report["decision"]["intervals"],
        },
    }


def _notes(report: dict[str, Any], task: str) -> list[str]:
    """Say in sentences what the card's figures mean."""
    notes = [
        f"`crossval`: {report['protocol']}; int8, mean over {len(report['folds'])} folds. "
        "Intervals are 95 % bootstrap intervals over the recordings of all folds together. "
        "`robust_*`: the same recordings as in another session: per channel a gain of sigma 0.3 "
        "in log and an offset of 2 %, and one channel lost. `board_*`: the same, and per channel "
        "another sensitivity (exponent) of sigma 0.3 in log. Two draws of each."
    ]
    if task == "mixture":
        notes += [
            "`constant_*` is the best prediction that is always the same, chosen on the training "
            "folds: only what lies above it is skill. The presence F1 of `crossval` is at the "
            "neutral threshold 0.5.",
            "`presence`: at thresholds per substance of the best geometric mean of sensitivity "
            "and specificity, fitted on the other folds.",
        ]
    else:
        notes.append(
            "`streaming`: held-out recordings through their fold's network and the decision layer, "
            "from the recording's start: share whose likeliest label is right (accuracy), share "
            "announced, share of those that are right (precision), and mean belief minus accuracy "
            "(gap), by seconds. The decision layer's constants are fitted on the other folds; the "
            "bundle's own come from all."
        )
    return notes


def _report(folder: Path, name: str, data_sha256: str) -> dict[str, Any]:
    """Return the cross-validation's report, if it is one of this model and these data."""
    path = folder / REPORT
    if not path.is_file():
        raise UsageError(
            f"Expected the cross-validation of {name} in {path}: its held-out answers set the "
            "temperature and the thresholds. Run `scent-train crossval` first, with the same "
            "--config, --data and --run."
        )
    report: dict[str, Any] = json.loads(path.read_text())
    if report["model"] != name or report["data_sha256"] != data_sha256:
        raise UsageError(
            f"{path} is of model {report['model']} on other data. Run `scent-train crossval` "
            "again, or name the right --run folder."
        )
    return report
