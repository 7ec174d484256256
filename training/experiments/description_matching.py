"""training/: matching descriptions with recordings: "does this text describe this smell".

Each view of a description is an expert: the cosine of the recording with the description in
that view. A logistic regression weighs the experts; a threshold turns its score into yes or no.
The AUROCs come with bootstrap intervals over substances. numpy and scikit-learn; knows cosines
and substances, nothing of networks or windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.auroc import Auroc, auroc, grouped_auroc, mean_auroc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Every recording with every description.

    cosines float64[pairs, views]; whether the description is of the recording's substance, and
    that substance, [pairs].
    """

    cosines: NDArray[np.float64]
    matches: NDArray[np.bool_]
    substance: NDArray[np.int64]

    def select(self, keep: NDArray[np.bool_]) -> Pairs:
        """Return the pairs where `keep` bool[pairs] is true."""
        return Pairs(self.cosines[keep], self.matches[keep], self.substance[keep])


@dataclass(frozen=True, slots=True)
class Matching:
    """How well descriptions were matched with recordings.

    AUROC of the combined experts; share of right descriptions that were accepted and of wrong ones
    that were refused; AUROC of each view's expert alone.
    """

    auroc: Auroc
    sensitivity: float
    specificity: float
    views: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Experts:
    """A fitted combination: the regressor and the threshold of its log-odds."""

    regressor: Any
    threshold: float


def all_pairs(
    cosines: NDArray[np.float64], truth: NDArray[np.int64], substances: NDArray[np.int64]
) -> Pairs:
    """Pair the recordings of some substances with these substances' descriptions.

    Of cosines[recordings, labels, views] and truth[recordings], the label of each.
    """
    own = np.isin(truth, substances)
    chosen = cosines[own][:, substances]
    matches = truth[own][:, None] == substances[None]
    substance = np.repeat(truth[own], len(substances))
    return Pairs(chosen.reshape(-1, cosines.shape[2]), matches.reshape(-1), substance)


def fit_experts(pairs: Pairs) -> Experts:
    """Weigh the experts and set the threshold on `pairs`; matches count as much as mismatches.

    The combination of experts is that of the olfactory matching in MUSTI (MediaEval 2022-23);
    the threshold is where the geometric mean of sensitivity and specificity is greatest.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - half a second

    regressor = LogisticRegression(class_weight="balanced").fit(pairs.cosines, pairs.matches)
    scores = regressor.decision_function(pairs.cosines)
    return Experts(regressor, geometric_mean_threshold(scores, pairs.matches))


def geometric_mean_threshold(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the threshold of the greatest sqrt(sensitivity * specificity); yes is at or above."""
    from sklearn.metrics import roc_curve  # noqa: PLC0415

    false_alarms, hits, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    return float(thresholds[np.argmax(hits * (1 - false_alarms))])


def score_matching(experts: Experts, pairs: Pairs) -> Matching:
    """Score a combination of experts on pairs that it was not fitted on."""
    scores = experts.regressor.decision_function(pairs.cosines)
    accepted = scores >= experts.threshold
    return Matching(
        auroc=grouped_auroc(scores, pairs.matches, pairs.substance),
        sensitivity=float(accepted[pairs.matches].mean()),
        specificity=float((~accepted[~pairs.matches]).mean()),
        views=tuple(auroc(view, pairs.matches) for view in pairs.cosines.T),
    )


def match_known(cosines: NDArray[np.float64], truth: NDArray[np.int64], seed: int = 0) -> Matching:
    """Fit the experts on half of the substances and score them on the other, and the reverse.

    So one fold's held-out recordings serve for both, and none is scored on itself.
    Arguments as of `all_pairs`; returns the means of the two halves.
    """
    order = np.random.default_rng(seed).permutation(np.unique(truth))
    halves = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
    return mean_matching(_cross_match([all_pairs(cosines, truth, half) for half in halves]))


def match_hidden(folds: Sequence[Pairs]) -> list[Matching]:
    """Match each fold's hidden substances, by experts fitted on the other folds' hidden ones.

    Not on trained substances: a network is far surer of those, and a threshold set there refuses
    nearly every hidden one (measured: sensitivity .10). With one fold alone its substances serve
    in halves, as in `match_known`.
    """
    if len(folds) == 1:
        order = np.random.default_rng(0).permutation(np.unique(folds[0].substance))
        first = np.isin(folds[0].substance, order[: len(order) // 2])
        folds = [folds[0].select(first), folds[0].select(~first)]
    return _cross_match(folds)


def _cross_match(parts: Sequence[Pairs]) -> list[Matching]:
    """Score each part by experts fitted on the others."""
    matchings = []
    for part in parts:
        others = [other for other in parts if other is not part]
        joined = Pairs(
            np.concatenate([other.cosines for other in others]),
            np.concatenate([other.matches for other in others]),
            np.concatenate([other.substance for other in others]),
        )
        matchings.append(score_matching(fit_experts(joined), part))
    return matchings


def mean_matching(results: list[Matching]) -> Matching:
    """Return the mean of every figure of several matchings."""
    return Matching(
        auroc=mean_auroc([one.auroc for one in results]),
        sensitivity=float(np.mean([one.sensitivity for one in results])),
        specificity=float(np.mean([one.specificity for one in results])),
        views=tuple(np.mean([one.views for one in results], axis=0).tolist()),
    )
