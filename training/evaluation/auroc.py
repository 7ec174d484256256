"""training/: area under the ROC curve, with intervals by a bootstrap over groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.intervals import DRAWS, Interval, percentile_interval, resample_counts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CHANCE = 0.5
"""AUROC of a score that knows nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Auroc:
    """An area under the ROC curve, or a mean of some; `draws` has that of each resample."""

    value: float
    draws: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return percentile_interval(self.draws)


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the share of (positive, negative) pairs in which the positive one scores higher.

    Ties count half (Hanley & McNeil, Radiology 143, 1982); 0.5 without a positive or a negative.
    """
    high, low = scores[positive], np.sort(scores[~positive])
    if not len(high) or not len(low):
        return CHANCE
    below, up_to = (np.searchsorted(low, high, side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * len(high) * len(low)))


def grouped_auroc(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    group: NDArray[np.generic],
    weights: NDArray[np.floating] | None = None,
) -> Auroc:
    """Return the AUROC of scores[n], resampled by `group` [n], such as the substance.

    A resample takes whole substances, not pairs or recordings, because a substance's pairs are
    right or wrong together. With the wins of every group's positives over every group's negatives
    counted once, each resample is a quadratic form of how often it has each group.

    `weights` float[draws, groups] says how often each resample has each of the sorted groups; None
    resamples all groups together.
    """
    groups, number = np.unique(group, return_inverse=True)
    if weights is None:
        weights = resample_counts(len(groups)).astype(np.float64)
    high, low = scores[positive], scores[~positive]
    wins, pairs = np.zeros((2, len(groups), len(groups)))
    place = (number[positive][:, None], number[~positive][None])
    np.add.at(wins, place, (high[:, None] > low) + 0.5 * (high[:, None] == low))
    np.add.at(pairs, place, 1.0)
    possible = ((weights @ pairs) * weights).sum(axis=1)
    draws = np.full(len(weights), np.nan)
    np.divide(((weights @ wins) * weights).sum(axis=1), possible, out=draws, where=possible > 0)
    return Auroc(auroc(scores, positive), draws)


def stratified_weights(
    positive: NDArray[np.bool_], group: NDArray[np.generic], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return weights[draws, groups] that resample negative and positive groups separately."""
    groups, number = np.unique(group, return_inverse=True)
    weights = np.zeros((DRAWS, len(groups)))
    for own in (np.unique(number[~positive]), np.unique(number[positive])):
        weights[:, own] = resample_counts(len(own), seed=rng)
    return weights


def mean_auroc(parts: Iterable[Auroc]) -> Auroc:
    """Return the mean of several AUROCs; a resample with nothing to judge in one leaves it out."""
    areas = list(parts)
    draws = np.stack([one.draws for one in areas])
    known = np.isfinite(draws)
    total = np.where(known, draws, 0.0).sum(axis=0)
    mean = np.full(draws.shape[1], np.nan)
    np.divide(total, known.sum(axis=0), out=mean, where=known.any(axis=0))
    return Auroc(float(np.mean([one.value for one in areas])), mean)


def column_aurocs(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], group: NDArray[np.generic]
) -> dict[int, Auroc]:
    """Return the AUROC of each column of scores [recordings, columns], resampled by `group`.

    A column that is positive everywhere or nowhere cannot be judged and is left out. The macro
    AUROC is the `mean_auroc` of the others.
    """
    judged = np.flatnonzero(positive.any(axis=0) & ~positive.all(axis=0))
    return {int(k): grouped_auroc(scores[:, k], positive[:, k], group) for k in judged}


def descriptor_report(
    predicted: NDArray[np.floating], truth: NDArray[np.integer], labels: tuple[str, ...]
) -> dict[str, Any]:
    """Score the odour descriptors of some recordings: macro AUROC, and that of each descriptor.

    Of predicted[recordings, descriptors], with truth[recordings] the index of the true label;
    substances are resampled.
    """
    from training.data.substance_tables import read_descriptors  # noqa: PLC0415 - keeps help quick

    table = read_descriptors(labels)
    areas = column_aurocs(predicted, table.values.astype(bool)[truth], truth)
    macro = mean_auroc(areas.values())
    return {
        "macro_auroc": round(macro.value, 4),
        "interval": list(macro.interval),
        "auroc": {table.names[column]: round(area.value, 4) for column, area in areas.items()},
    }
