"""training/: `scent-train export`: quantise, verify and write the bundle of a trained model."""

from __future__ import annotations

import json
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from models.bundle import load_bundle
from training.commands._shared import add_training_options, config_path, load_training
from training.evaluation.decision_fit import fit_decision
from training.experiments.crossval import REPORT
from training.export.model_card import NOTES, collect_figures, figure_notes
from training.export.rig_arrays import bundle_arrays

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write the bundle of the model that `fit` trained, with the decision "
        "constants and the figures of the cross-validation in the same run folder, and what a rig "
        "needs to reject unknown smells, to learn new ones and to be calibrated. Run `crossval "
        "--open-set` and then `crossval` before: without them, the model rejects no unknown smell. "
        "A missing or unfinished training is done first."
    )
    parser.epilog = (
        "Example: scent-train export --config substances-50 --data data/smellnet/base "
        "--output my-bundles/substances-50"
    )
    add_training_options(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="BUNDLE", help="folder of the bundle"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bundle, load it again, and print what it is."""
    from training.export.bundle import Provenance, export_bundle  # noqa: PLC0415 - torch
    from training.fit import train_network  # noqa: PLC0415

    config, data, folder = load_training(args)
    report = _report(folder, config.name, data.sha256)
    if config.in_order_only:
        data = data.drop_unordered()
    fitted = train_network(config, data, folder=folder / "final", device=args.device)
    decision = fit_decision(folder)
    provenance = Provenance(
        command=shlex.join(
            ["scent-train", "fit", "--config", args.config, "--data", f"DIR/{args.data.name}"]
        ),
        config_file=config_path(args.config).name,
        metrics={**collect_figures(report, folder), NOTES: figure_notes(report, folder)},
    )
    if config.task == "substance":
        # The arrays need the outputs of the int8 file that ships, so the bundle is written twice:
        # first without arrays, to run it, then with them.
        with tempfile.TemporaryDirectory() as place:
            export_bundle(Path(place) / "bundle", config, fitted, data, decision, provenance)
            plain = load_bundle(Path(place) / "bundle", precision="int8")
            provenance = replace(provenance, arrays=bundle_arrays(plain, data, folder))
    manifest = export_bundle(args.output, config, fitted, data, decision, provenance)
    bundle = load_bundle(args.output)
    print(
        f"{args.output}: {manifest.name} {manifest.version}, {manifest.network.parameters:,} "
        f"parameters, {bundle.precision}, parity {dict(manifest.metrics['parity'])}"
    )
    return 0


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
