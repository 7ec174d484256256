"""training/evaluation: area under the ROC curve, with intervals by a grouped bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.intervals import DRAWS, Interval, percentiles, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray


CHANCE = 0.5
"""AUROC of a score that knows nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """An area under the ROC curve, or a mean of some, with its bootstrap.

    Attributes
    ----------
    value: of all recordings.
    draws: float64[draws], of each resample of them.
    """

    value: float
    draws: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return percentiles(self.draws)


def auroc(scores: NDArray[np.floating], wanted: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; chance where there is nothing to tell apart."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    if wanted.all() or not wanted.any():
        return CHANCE
    return float(roc_auc_score(wanted, scores))


def area(scores: NDArray[np.floating], wanted: NDArray[np.bool_], group: NDArray[np.int64]) -> Area:
    """Return the AUROC of scores[n], resampled by `group` int[n], the substance say.

    A resample takes substances, not pairs or recordings, because a substance's pairs are right
    or wrong together. With the wins of every group's positives over every group's negatives
    counted once, each resample is a quadratic form of how often it has each group.
    """
    _, number = np.unique(group, return_inverse=True)
    weights = resampled(int(number.max()) + 1, None, seed=0, draws=DRAWS).astype(np.float64)
    right, wrong = scores[wanted], scores[~wanted]
    won = (right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)
    wins, pairs = (np.zeros((weights.shape[1],) * 2) for _ in range(2))
    place = (number[wanted][:, None], number[~wanted][None])
    np.add.at(wins, place, won)
    np.add.at(pairs, place, 1.0)
    possible = ((weights @ pairs) * weights).sum(axis=1)
    draws = np.full(len(weights), np.nan)
    np.divide(((weights @ wins) * weights).sum(axis=1), possible, out=draws, where=possible > 0)
    return Area(auroc(scores, wanted), draws)


def mean_area(areas: list[Area]) -> Area:
    """Return the mean of several areas; a resample that has nothing to judge is left out."""
    draws = np.stack([one.draws for one in areas])
    known = np.isfinite(draws)
    total = np.where(known, draws, 0.0).sum(axis=0)
    mean = np.full(draws.shape[1], np.nan)
    np.divide(total, known.sum(axis=0), out=mean, where=known.any(axis=0))
    return Area(float(np.mean([one.value for one in areas])), mean)


def column_areas(
    scores: NDArray[np.floating], wanted: NDArray[np.bool_], group: NDArray[np.int64]
) -> dict[int, Area]:
    """Return the AUROC of each column of scores [recordings, columns], resampled by `group`.

    A column that is everywhere or nowhere among the recordings cannot be judged on them and is
    left out. The macro AUROC is the `mean_area` of the others.
    """
    judged = np.flatnonzero(wanted.any(axis=0) & ~wanted.all(axis=0))
    return {int(k): area(scores[:, k], wanted[:, k], group) for k in judged}
