"""training/: all decision constants of a bundle, from what a run folder's networks said.

numpy only. `decision_fit` fits each constant; here is said on whose answers: the cross-validation's
held-out recordings for what a known smell needs, the open-set networks' for what only smells never
met can tell.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from models.decision_spec import DecisionSpec
from training.evaluation.decision_fit import (
    best_threshold,
    fit_margin,
    fit_substances,
    fit_unknown_bound,
)
from training.trust.unknown_smells import fitted_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.evaluation.held_out import HeldOut
    from training.evaluation.open_set_answers import OpenFold


def fitted(
    held_out: HeldOut, chosen: NDArray[np.bool_], open_set: Sequence[OpenFold] = ()
) -> DecisionSpec:
    """Fit the decision constants.

    Parameters
    ----------
    held_out: a cross-validation's answers.
    chosen: bool[recordings], those to fit on.
    open_set: answers of networks that never met some substances; without them nothing is told to
        be unknown.
    """
    if held_out.streams is None:
        return _of_mixtures(held_out, chosen)
    windows = chosen[held_out.answers.owner]
    streams = held_out.streams.of(chosen)
    unknown = fitted_unknown(open_set) if open_set and streams.novelty else None
    if unknown is not None:
        # Which score, and for how long, only hidden substances can tell. How strange a known one
        # looks depends on how many the network knows: all of them here, four fifths there.
        bound = fit_unknown_bound(streams, unknown.novelty, unknown.unknown_after)
        unknown = dataclasses.replace(unknown, unknown_above=bound)
    logits = held_out.answers.logits
    if logits is None:
        raise ValueError("substances have logits")
    return fit_substances(logits[windows], held_out.window_target[windows], streams, unknown)


def fold_constants(held_out: HeldOut, open_set: Sequence[OpenFold] = ()) -> dict[int, DecisionSpec]:
    """Return each fold's constants, fitted on the other folds; empty with fewer than two.

    Of the open-set networks the one of the same number is left out: its known recordings are this
    fold's.
    """
    folds = [int(fold) for fold in np.unique(held_out.fold)]
    if len(folds) < 2:  # noqa: PLR2004 - one to fit on, one to judge
        return {}
    return {
        fold: fitted(
            held_out, held_out.fold != fold, [part for part in open_set if part.fold != fold]
        )
        for fold in folds
    }


def _of_mixtures(held_out: HeldOut, chosen: NDArray[np.bool_]) -> DecisionSpec:
    answers = held_out.answers
    if answers.presence is None or answers.proportions is None:
        raise ValueError("mixtures have presences and proportions")
    windows = chosen[answers.owner]
    presence, target = answers.presence[windows], held_out.window_target[windows]
    # One for all substances: each substance's own did not carry over to component sets that the
    # fit had not seen. On mixtures-12 0.2.0, fitted on four folds and scored on the fifth, own
    # thresholds had sensitivity .37 and specificity .45, one for all .53 and .56.
    threshold = best_threshold(presence.reshape(-1), target.reshape(-1) > 0)
    spec = DecisionSpec(presence_thresholds=(threshold,) * target.shape[1])
    margin = fit_margin(
        answers.proportions[windows], presence, answers.owner[windows], held_out.target, spec
    )
    return dataclasses.replace(spec, proportion_margin=margin)
