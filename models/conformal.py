"""Models: bounds with a stated coverage, from cases whose truth is known.

May import numpy. Pure. The cases come from held-out recordings, or on a rig from exposures that its
owner has labelled.

Split conformal prediction (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random
World): a bound at the right quantile of n exchangeable cases holds for the next one with at least
the stated probability, whatever the model; the n + 1 in the quantile corrects for a finite n.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def set_threshold(
    belief: NDArray[np.float64], coverage: float, cases: int | None = None
) -> float | None:
    """Return the smallest probability of a label in the prediction set.

    Least ambiguous sets: of all sets with this coverage those with the fewest labels on average,
    if the probabilities are right (Sadinle, Lei & Wasserman 2019, JASA 114).

    Parameters
    ----------
    belief: float[predictions], the probability that the model gave the truth.
    coverage: share of predictions whose set is to contain the truth, between 0 and 1.
    cases: number of independent ones: those of one exposure are not. None: all.

    Returns
    -------
    `DecisionSpec.set_threshold`; None where the cases are too few for this coverage.
    """
    bound = margin(-belief, coverage, cases)
    return None if bound is None else -bound


def margin(error: NDArray[np.float64], coverage: float, cases: int | None = None) -> float | None:
    """Return half the width of an interval about a prediction (Lei et al. 2018, JASA 113).

    Parameters
    ----------
    error: float[predictions], |prediction - truth|.
    coverage: share of predictions whose interval is to contain the truth, between 0 and 1.
    cases: number of independent ones. None: all.

    Returns
    -------
    `DecisionSpec.proportion_margin`; None where the cases are too few for this coverage.
    """
    cases = cases or len(error)
    rank = math.ceil((cases + 1) * coverage - _ROUNDING)
    if rank > cases:
        return None
    place = math.ceil(rank / cases * len(error) - _ROUNDING) - 1
    return float(np.partition(error, place)[place])


_ROUNDING = 1e-9
"""(9 + 1) * 0.9 are nine cases, not ten because of rounding."""
