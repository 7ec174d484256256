"""training/: the decision layer's constants of mixture models, fitted on held-out recordings.

numpy only; `decision_fit` says on which recordings.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from models.bundle import Outputs
from models.conformal import margin
from models.decision_spec import DecisionSpec
from models.mixture_decision import MixtureDecision
from models.substance_decision import EvidenceShare
from training.evaluation.streaming import LIVE_STRIDE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.evaluation.held_out import HeldOut

DEFAULT_PRESENCE = 0.5
"""The presence threshold before one is fitted."""


def unfitted_spec(labels: Sequence[str], groups: tuple[tuple[str, ...], ...] = ()) -> DecisionSpec:
    """Return the constants of a mixture model for which nothing was held out."""
    return DecisionSpec(presence_thresholds=(DEFAULT_PRESENCE,) * len(labels), groups=groups)


def fit_mixtures(held_out: HeldOut, chosen: NDArray[np.bool_]) -> DecisionSpec:
    """Return the constants of a mixture model, fitted on the chosen recordings."""
    outputs = held_out.outputs
    windows = chosen[outputs.owner]
    presence, target = outputs.require("presence")[windows], held_out.window_target[windows]
    # One for all substances: each substance's own did not carry over to component sets that the
    # fit had not seen. On mixtures-12 0.2.0, fitted on four folds and scored on the fifth, own
    # thresholds had sensitivity .37 and specificity .45, one for all .53 and .56.
    threshold = best_threshold(presence.reshape(-1), target.reshape(-1) > 0)
    spec = DecisionSpec(presence_thresholds=(threshold,) * target.shape[1])
    proportions, owner = outputs.require("proportions")[windows], outputs.owner[windows]
    half_width = fit_margin(proportions, presence, owner, held_out.target, spec)
    return dataclasses.replace(spec, proportion_margin=half_width)


def best_threshold(presence: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Threshold of the largest geometric mean of sensitivity and specificity; arrays [windows].

    Kubat & Matwin, ICML 1997. Half-way between two neighbouring presences, so that rounding and
    another machine's last bit change nothing.
    """
    if truth.all() or not truth.any():
        return DEFAULT_PRESENCE
    levels = np.unique(presence)
    candidates = (levels[:-1] + levels[1:]) / 2 if len(levels) > 1 else levels
    # Presences at or above each candidate, among the present and among the absent.
    sensitivity = 1 - np.searchsorted(np.sort(presence[truth]), candidates) / truth.sum()
    specificity = np.searchsorted(np.sort(presence[~truth]), candidates) / (~truth).sum()
    best = candidates[int(np.argmax(sensitivity * specificity))]
    return round(float(np.clip(best, 0.01, 0.99)), 4)


def fit_margin(
    proportions: NDArray[np.float32],
    presence: NDArray[np.float32],
    owner: NDArray[np.int64],
    target: NDArray[np.float32],
    spec: DecisionSpec,
) -> float | None:
    """Return half the width of the components' intervals; None of too few recordings.

    The errors are those of the components that the daemon would publish, after every window.

    Parameters
    ----------
    proportions, presence: float32[windows, labels], of held-out recordings, in order.
    owner: int[windows], the recording of each.
    target: float32[recordings, labels], the true proportions.
    spec: thresholds and coverage.
    """
    errors = published_errors(proportions, presence, owner, target, spec)
    if not len(errors):
        return None
    bound = margin(errors, spec.set_coverage, cases=len(np.unique(owner)))
    return None if bound is None else round(min(bound, 0.9999), 4)


def published_errors(
    proportions: NDArray[np.float32],
    presence: NDArray[np.float32],
    owner: NDArray[np.int64],
    target: NDArray[np.float32],
    spec: DecisionSpec,
) -> NDArray[np.float64]:
    """Return |proportion - truth| of every component published; parameters as of `fit_margin`."""
    labels = tuple(map(str, range(target.shape[1])))
    errors = []
    for recording in np.unique(owner):
        decision = MixtureDecision(labels, spec)
        for window in np.flatnonzero(owner == recording):
            row = slice(window, window + 1)
            outputs = Outputs(proportions=proportions[row], presence=presence[row])
            decision.add(outputs, EvidenceShare(LIVE_STRIDE_S, 1.0, 1.0))
            errors += [
                abs(part.proportion - float(target[recording, int(part.label)]))
                for part in decision.components
            ]
    return np.array(errors)
