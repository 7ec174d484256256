"""training/: the command line `scent-train`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hardware.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Sequence

SCENT_TRAIN = CommandLine(
    program="scent-train",
    description="Train, evaluate and export the models that scentd runs.",
    epilog="Every command explains itself: scent-train crossval --help.",
    package="training.commands",
    commands={
        "init": "look at a folder of recordings and write a configuration for it",
        "data": "fetch the published data set, or convert recordings of other projects",
        "fit": "train a model on all recordings",
        "crossval": "score a configuration on recordings held out by groups",
        "export": "quantise, verify and write the bundle of a trained model",
        "publish": "write a bundle to the Hugging Face hub",
        "evaluate": "score a bundle on labelled recordings (needs no torch)",
        "search": "find settings on held-out recordings",
        "rescore": "score an archive of recordings anew by models",
        "bench": "time torch, float32 and int8 on one architecture",
        "compare": "score baselines on the folds of the cross-validation",
        "cross-modal": "compare trainings with and without a second modality",
        "audit": "find out how much of a score is session and not smell",
        "boards": "measure a model's training board, and compare tests for other boards",
        "rigs": "score the rig's recogniser on real rigs, whole sessions held out",
        "unmix": "score the unmixing of taught smells, on real pairs and simulated mixtures",
        "trust": "print the evidence of how far a model is to be trusted",
        "report": "write all figures of a run as JSON and as one page",
        "fingerprints": "fit the simulator's table of odours from recordings",
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong use."""
    return SCENT_TRAIN.main(argv)


if __name__ == "__main__":
    sys.exit(main())
