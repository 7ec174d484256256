"""training/: the arrays of a bundle, for novelty, teaching, calibration and stated coverage.

numpy and ONNX Runtime. The embedding space and the training rig are measured on the recordings
that the shipped network was trained on. Novelties and beliefs come from the run folder's other
networks, on recordings that they were not trained on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from calibration.rig_reference import TransferError
from training.evaluation.network_outputs import measure_rig, measure_space
from training.evaluation.open_set import find_open_set
from training.evaluation.streaming import novelty_means, of_truth, posteriors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data.dataset import Dataset
    from training.evaluation.held_out import HeldOut

NOVELTY_KNOWN, NOVELTY_HIDDEN = "novelty_known", "novelty_hidden"
"""Novelty after 300 s, by the manifest's score, of held-out recordings of known substances and of
substances that their network was not trained on."""
BELIEF = "held_out_belief"
"""float32[recordings, windows], the posterior of the truth at every prediction of held-out
recordings, NaN after a recording's end: what conformal bounds are quantiles of."""
NOVELTY_AFTER_S = 300.0


def bundle_arrays(
    bundle: Bundle, data: Dataset, held_out: HeldOut | None, run: Path
) -> dict[str, NDArray[np.floating]]:
    """Return the arrays of a substance model's bundle by their names in it.

    Parameters
    ----------
    bundle: the network as it will ship, with its decision constants.
    data: the recordings that it was trained on.
    held_out: the predictions that the constants were fitted on, None without any.
    run: holds the open-set predictions if there are any.
    """
    spec = bundle.manifest.decision
    arrays: dict[str, NDArray[np.floating]] = {
        **measure_space(bundle, data).to_arrays(),
        **_rig(data),
    }
    if held_out is None or held_out.streams is None:
        return arrays
    streams = held_out.streams
    arrays[BELIEF] = of_truth(posteriors(streams, spec), streams.truth).astype(np.float32)
    name = spec.novelty
    if name is not None and name in streams.novelty:
        known, _ = novelty_means(streams, name, spec)
        arrays[NOVELTY_KNOWN] = streams.values_at(known, NOVELTY_AFTER_S).astype(np.float32)
        hidden = []
        for fold in find_open_set(run):
            values, _ = novelty_means(fold.streams, name, spec)
            hidden.append(fold.streams.values_at(values, NOVELTY_AFTER_S)[~fold.known])
        arrays[NOVELTY_HIDDEN] = np.concatenate(hidden).astype(np.float32)
    return arrays


def _rig(data: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return the training rig's arrays; none, with a warning, where recordings are too short."""
    try:
        return measure_rig(data).to_arrays()
    except TransferError as error:
        print(f"Other rigs cannot be calibrated to this bundle: {error}", file=sys.stderr)
        return {}
