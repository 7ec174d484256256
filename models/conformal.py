"""Models: bounds with a stated coverage, from cases whose truth is known.

May import numpy. Pure. The trainer takes the cases from held-out recordings, a rig from
exposures that its owner has named: the same quantile serves both.

Split conformal prediction (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random
World): a bound at the right quantile of n exchangeable cases holds for the next one with at least
the stated probability, whatever the model; the n + 1 in the quantile pays for n being finite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def set_threshold(belief: NDArray[np.float64], coverage: float) -> float | None:
    """Return the probability from which on a label belongs to the prediction set.

    Least ambiguous sets: of all sets with this coverage those with the fewest labels on average,
    as far as the probabilities are right (Sadinle, Lei & Wasserman 2019, JASA 114).

    Parameters
    ----------
    belief: float[cases], the probability that the model gave the truth.
    coverage: share of cases in which the set is to hold the truth, between 0 and 1.

    Returns
    -------
    `DecisionSpec.set_threshold`; None where so few cases can state no such coverage.
    """
    rank = math.floor((len(belief) + 1) * (1 - coverage) + _ROUNDING)
    return float(np.partition(belief, rank - 1)[rank - 1]) if rank >= 1 else None


def margin(error: NDArray[np.float64], coverage: float) -> float | None:
    """Return half the width of an interval about a prediction (Lei et al. 2018, JASA 113).

    Parameters
    ----------
    error: float[cases], |prediction - truth|.
    coverage: share of cases in which the interval is to hold the truth, between 0 and 1.

    Returns
    -------
    `DecisionSpec.proportion_margin`; None where so few cases can state no such coverage.
    """
    rank = math.ceil((len(error) + 1) * coverage - _ROUNDING)
    return float(np.partition(error, rank - 1)[rank - 1]) if rank <= len(error) else None


_ROUNDING = 1e-9
"""(9 + 1) * (1 - 0.9) is one case, not one less a rounding error."""
