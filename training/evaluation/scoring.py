"""training/: the scores of substances and mixtures, as sums over recordings.

numpy only: `evaluate` and `crossval` score int8 networks through ONNX Runtime with these
functions. The scores are those of SmellNet, arXiv 2506.00239.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WITHIN = 0.1
"""A component counts as right when its proportion is off by less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """A score as sums over recordings, from which that of any selection of them follows.

    The score is sum(gained) / sum(possible), or the mean of such ratios over columns.

    Attributes
    ----------
    gained, possible: float[recordings], or float[recordings, columns].
    present: bool[recordings, columns], where a column counts at all; None for everywhere.
    """

    gained: NDArray[np.float64]
    possible: NDArray[np.float64]
    present: NDArray[np.bool_] | None = None

    def weighted(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the score float[draws] of each row of weights[draws, recordings].

        NaN where there is nothing to score.
        """
        gained, possible = weights @ self.gained, weights @ self.possible
        ratio: NDArray[np.float64] = np.full(gained.shape, np.nan)
        np.divide(gained, possible, out=ratio, where=possible > 0)
        if ratio.ndim == 1:
            return ratio
        counts = possible > 0 if self.present is None else weights @ self.present > 0
        total: NDArray[np.float64] = np.where(counts, ratio, 0.0).sum(axis=1)
        mean: NDArray[np.float64] = np.full(len(total), np.nan)
        np.divide(total, counts.sum(axis=1), out=mean, where=counts.any(axis=1))
        return mean


Tally = dict[str, Ratio]
"""Scores by name, all over the same recordings."""


def total_scores(tally: Tally) -> dict[str, float]:
    """Return every score over all recordings; 0 where there is nothing to score."""
    return {
        name: float(np.nan_to_num(ratio.weighted(np.ones((1, len(ratio.gained))))[0]))
        for name, ratio in tally.items()
    }


def substance_tally(
    log_probabilities: NDArray[np.floating],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> Tally:
    """Count what every recording adds to the scores of substances.

    Parameters
    ----------
    log_probabilities: float[windows, labels].
    owner: int[windows], the recording of each window.
    truth: int[recordings], the true label of each recording.

    Returns
    -------
    top1, top5 and macro_f1 over windows (macro over the labels present), and
    recording_top1 by mean log-probability.
    """
    labels, recordings = log_probabilities.shape[1], len(truth)
    expected = truth[owner]
    order = np.argsort(-log_probabilities, axis=1, kind="stable")
    per_recording = partial(sum_per_recording, owner=owner, recordings=recordings)
    windows = per_recording(np.ones(len(owner)))
    hits = per_recording(order[:, 0] == expected)
    in_top5 = per_recording((order[:, :5] == expected[:, None]).any(axis=1))
    summed, named = np.zeros((2, recordings, labels))
    np.add.at(summed, owner, log_probabilities)
    np.add.at(named, (owner, order[:, 0]), 1.0)
    own = np.eye(labels, dtype=bool)[truth]
    scored = windows > 0
    return {
        "top1": Ratio(hits, windows),
        "top5": Ratio(in_top5, windows),
        "macro_f1": Ratio(
            2 * own * hits[:, None], named + own * windows[:, None], own & scored[:, None]
        ),
        "recording_top1": Ratio(
            ((summed.argmax(axis=1) == truth) & scored).astype(float), scored.astype(float)
        ),
    }


def recording_rank_tally(
    log_probabilities: NDArray[np.floating],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
    ranks: tuple[int, ...] = (1, 3, 5),
) -> Tally:
    """Count, for each rank k, the recordings with the true label among the first k.

    Labels are ordered by mean log-probability over the recording's windows. Parameters as in
    `substance_tally`; returns recording_top1, recording_top3 and so on. A recording without a
    window is not counted.
    """
    mean = mean_per_recording(log_probabilities, owner, len(truth))
    order = np.argsort(-mean, axis=1, kind="stable")
    place = (order == truth[:, None]).argmax(axis=1)
    scored = (np.bincount(owner, minlength=len(truth)) > 0).astype(float)
    return {f"recording_top{k}": Ratio((place < k) * scored, scored) for k in ranks}


def mixture_tally(
    proportions: NDArray[np.floating],
    present: NDArray[np.bool_],
    target: NDArray[np.float32],
    owner: NDArray[np.int64],
    recordings: int,
) -> Tally:
    """Count what every recording adds to the scores of mixtures; arrays [windows, labels].

    Parameters
    ----------
    proportions: predicted proportions.
    present: predicted presence, at the manifest's thresholds.
    target: true proportions.
    owner: int[windows], the recording of each window.
    recordings: how many there are.

    Returns
    -------
    within_01: mean over windows of the fraction of present components with |p - y| < 0.1;
    top_k: pooled share of present components among the K largest predictions, K = number
    present; presence_f1 (micro); mae over all components.
    """
    truly = target > 0
    error = np.abs(proportions - target)
    count = truly.sum(axis=1)
    rank = np.argsort(np.argsort(-proportions, axis=1, kind="stable"), axis=1, kind="stable")
    per_recording = partial(sum_per_recording, owner=owner, recordings=recordings)
    windows = per_recording(np.ones(len(owner)))
    close = ((error < WITHIN) & truly).sum(axis=1) / count
    found = ((rank < count[:, None]) & truly).sum(axis=1)
    return {
        "within_01": Ratio(per_recording(close), windows),
        "top_k": Ratio(per_recording(found), per_recording(count)),
        "presence_f1": presence_tally(present, truly, owner, recordings)["presence_f1"],
        "mae": Ratio(per_recording(error.sum(axis=1)), windows * target.shape[1]),
    }


def presence_tally(
    present: NDArray[np.bool_],
    truly: NDArray[np.bool_],
    owner: NDArray[np.int64],
    recordings: int,
) -> Tally:
    """Count what every recording adds to the scores of presence, micro over bool[windows, labels].

    Returns
    -------
    presence_f1; presence_sensitivity, the share of the present components that are found;
    presence_specificity, the share of the absent components that are not named.
    """
    hits, named, existing, rejected, absent = (
        sum_per_recording(chosen.sum(axis=1), owner, recordings)
        for chosen in (present & truly, present, truly, ~present & ~truly, ~truly)
    )
    return {
        "presence_f1": Ratio(2 * hits, named + existing),
        "presence_sensitivity": Ratio(hits, existing),
        "presence_specificity": Ratio(rejected, absent),
    }


def group_tally(said: NDArray[np.bool_], truly: NDArray[np.bool_]) -> Tally:
    """Count whether at least one of a group of components is there, bool[recordings].

    Returns
    -------
    strong_sensitivity, strong_specificity; and strong_balanced, their mean.
    """
    hits, existing, rejected, absent = (
        chosen.astype(np.float64) for chosen in (said & truly, truly, ~said & ~truly, ~truly)
    )
    both = np.stack([hits, rejected], axis=1), np.stack([existing, absent], axis=1)
    return {
        "strong_sensitivity": Ratio(hits, existing),
        "strong_specificity": Ratio(rejected, absent),
        "strong_balanced": Ratio(*both),
    }


def sum_per_recording(
    numbers: NDArray[Any], owner: NDArray[np.int64], recordings: int
) -> NDArray[np.float64]:
    """Sum numbers[windows] over each recording's windows."""
    return np.bincount(owner, weights=numbers, minlength=recordings).astype(np.float64)


def mean_per_recording(
    numbers: NDArray[Any], owner: NDArray[np.int64], recordings: int
) -> NDArray[np.float64]:
    """Average numbers[windows, ...] over each recording's windows; 0 for one without a window."""
    total = np.zeros((recordings, *numbers.shape[1:]))
    np.add.at(total, owner, numbers)
    count = np.bincount(owner, minlength=recordings).clip(min=1)
    mean: NDArray[np.float64] = total / count.reshape(-1, *[1] * (numbers.ndim - 1))
    return mean
