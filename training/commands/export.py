"""training/: `scent-train export`: quantise, verify and write the bundle of a trained model."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import load_bundle
from training.commands._shared import add_training_options, config_path, load_training
from training.evaluation.decision_source import choose_decision, read_other_sessions
from training.evaluation.open_set import find_open_set
from training.experiments.crossval import decision_report
from training.export.description import borrowed_name
from training.export.model_card import (
    CONSTANTS_FROM,
    NOTES,
    collect_figures,
    figure_notes,
    read_reports,
)
from training.export.rig_arrays import bundle_arrays

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write the bundle of the model that `fit` trained, with what a rig needs to reject unknown "
        "smells, to learn new ones and to be calibrated. The decision constants and the figures "
        "are those of the cross-validations in the same run folder: of `crossval --sessions` if "
        "every label was held out with a session, else of `crossval`. Without either the bundle "
        "says that nothing was held out, and announces with caution. Without `crossval --open-set` "
        "it rejects no unknown smell. A missing or unfinished training is done first."
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
    reports = read_reports(folder, config.name, data.sha256)
    if config.in_order_only:
        data = data.drop_unordered()
    fitted = train_network(config, data, folder=folder / "final", device=args.device)
    chosen = choose_decision(folder if reports else None, config.task, data.labels)
    decision = replace(chosen.spec, groups=config.announce_groups)
    if chosen.source == "both" and reports.recordings and chosen.held_out:
        # The report was written before the constants of other sessions were known.
        other = read_other_sessions(folder)
        reports.recordings["decision"] = decision_report(
            chosen.held_out, find_open_set(folder), other
        )
    if warning := borrowed_name(config, data.labels):
        print(warning, file=sys.stderr)
    print(f"Decision constants: {CONSTANTS_FROM[chosen.source]}", file=sys.stderr)
    provenance = Provenance(
        command=shlex.join(
            ["scent-train", "fit", "--config", args.config, "--data", f"DIR/{args.data.name}"]
        ),
        config_file=config_path(args.config).name,
        metrics={
            **collect_figures(reports, folder),
            NOTES: [CONSTANTS_FROM[chosen.source], *figure_notes(reports, folder)],
        },
    )
    if config.task == "substance":
        # The arrays need the outputs of the int8 file that ships, so the bundle is written twice:
        # first without arrays, to run it, then with them.
        with tempfile.TemporaryDirectory() as place:
            export_bundle(Path(place) / "bundle", config, fitted, data, decision, provenance)
            plain = load_bundle(Path(place) / "bundle", precision="int8")
            provenance = replace(
                provenance, arrays=bundle_arrays(plain, data, chosen.held_out, folder)
            )
    manifest = export_bundle(args.output, config, fitted, data, decision, provenance)
    bundle = load_bundle(args.output)
    parity = ", ".join(f"{name} {value:.3g}" for name, value in manifest.metrics["parity"].items())
    print(
        f"{args.output}: {manifest.name} {manifest.version}, {manifest.network.parameters:,} "
        f"parameters, {bundle.precision}; largest differences {parity}"
    )
    return 0
