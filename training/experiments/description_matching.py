"""training/crossmodal: "does this text describe what I smell", and how often that is right.

Each view of a description is an expert: the cosine of what was smelled with what is said, in
that view. A logistic regression weighs the experts; a threshold turns its score into yes or no.
The AUROCs, of descriptors too, come with bootstrap intervals. numpy and scikit-learn; knows
cosines and substances, nothing of networks or windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.auroc import Area, area, auroc, mean_area

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Every recording with every description.

    Attributes
    ----------
    cosines: float64[pairs, views].
    wanted: bool[pairs], whether the description is of what was smelled.
    smelled: int[pairs], the substance that was.
    """

    cosines: NDArray[np.float64]
    wanted: NDArray[np.bool_]
    smelled: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matching:
    """How well descriptions were matched with recordings.

    Attributes
    ----------
    auroc: of the combined experts.
    sensitivity: share of right descriptions that got a yes.
    specificity: share of wrong ones that got a no.
    views: AUROC of each expert alone.
    """

    auroc: Area
    sensitivity: float
    specificity: float
    views: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Experts:
    """A fitted combination: the regressor and the threshold of its score."""

    regressor: Any
    threshold: float

    def scores(self, pairs: Pairs) -> NDArray[np.float64]:
        """Return the log-odds float64[pairs] that the description fits."""
        odds: NDArray[np.float64] = self.regressor.decision_function(pairs.cosines)
        return odds


def all_pairs(
    cosines: NDArray[np.float64], truth: NDArray[np.int64], substances: NDArray[np.int64]
) -> Pairs:
    """Pair the recordings of some substances with these substances' descriptions.

    Parameters
    ----------
    cosines: float64[recordings, labels, views].
    truth: int[recordings], the label of each.
    substances: labels to take.
    """
    own = np.isin(truth, substances)
    chosen = cosines[own][:, substances]
    wanted = truth[own][:, None] == substances[None]
    smelled = np.repeat(truth[own], len(substances))
    return Pairs(chosen.reshape(-1, cosines.shape[2]), wanted.reshape(-1), smelled)


def fit_experts(pairs: Pairs) -> Experts:
    """Weigh the experts on `pairs`, both answers counting the same, and set the threshold there.

    The combination of experts is that of the olfactory matching in MUSTI (MediaEval 2022-23);
    the threshold is where the geometric mean of sensitivity and specificity is greatest.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - half a second

    regressor = LogisticRegression(class_weight="balanced").fit(pairs.cosines, pairs.wanted)
    scores = regressor.decision_function(pairs.cosines)
    return Experts(regressor, geometric_mean_threshold(scores, pairs.wanted))


def geometric_mean_threshold(scores: NDArray[np.floating], wanted: NDArray[np.bool_]) -> float:
    """Return the threshold of the greatest sqrt(sensitivity * specificity); yes is at or above."""
    from sklearn.metrics import roc_curve  # noqa: PLC0415

    false_alarms, hits, thresholds = roc_curve(wanted, scores, drop_intermediate=False)
    return float(thresholds[np.argmax(hits * (1 - false_alarms))])


def matched(experts: Experts, pairs: Pairs) -> Matching:
    """Score a combination of experts on pairs that it was not fitted on."""
    scores = experts.scores(pairs)
    yes = scores >= experts.threshold
    return Matching(
        auroc=area(scores, pairs.wanted, pairs.smelled),
        sensitivity=float(yes[pairs.wanted].mean()),
        specificity=float((~yes[~pairs.wanted]).mean()),
        views=tuple(auroc(view, pairs.wanted) for view in pairs.cosines.T),
    )


def cross_fitted(cosines: NDArray[np.float64], truth: NDArray[np.int64], seed: int = 0) -> Matching:
    """Fit the experts on half of the substances and score them on the other, and the reverse.

    So that one fold's held-out recordings serve both without any being scored on itself.
    Arguments as of `all_pairs`; returns the means of the two halves.
    """
    order = np.random.default_rng(seed).permutation(np.unique(truth))
    halves = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
    pairs = [all_pairs(cosines, truth, half) for half in halves]
    results = [matched(fit_experts(pairs[1 - k]), pairs[k]) for k in range(2)]
    return mean_matching(results)


def strangers_matched(pairs: Mapping[int, Pairs]) -> list[Matching]:
    """Match each fold's never-trained substances, by experts fitted on the other folds' ones.

    Not on trained substances: a network is far surer of what it was trained on, and a threshold
    set there says no to nearly every stranger (measured: sensitivity .10). With one fold alone
    its substances serve in halves, as in `cross_fitted`.
    """
    if len(pairs) == 1:
        (only,) = pairs.values()
        order = np.random.default_rng(0).permutation(np.unique(only.smelled))
        first = np.isin(only.smelled, order[: len(order) // 2])
        return [
            matched(fit_experts(_some(only, ~half)), _some(only, half)) for half in (first, ~first)
        ]
    return [
        matched(fit_experts(_joined([p for f, p in pairs.items() if f != fold])), own)
        for fold, own in pairs.items()
    ]


def _some(pairs: Pairs, keep: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.cosines[keep], pairs.wanted[keep], pairs.smelled[keep])


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(
        np.concatenate([part.cosines for part in parts]),
        np.concatenate([part.wanted for part in parts]),
        np.concatenate([part.smelled for part in parts]),
    )


def mean_matching(results: list[Matching]) -> Matching:
    """Return the mean of every figure of several matchings."""
    return Matching(
        auroc=mean_area([one.auroc for one in results]),
        sensitivity=float(np.mean([one.sensitivity for one in results])),
        specificity=float(np.mean([one.specificity for one in results])),
        views=tuple(np.mean([one.views for one in results], axis=0).tolist()),
    )
