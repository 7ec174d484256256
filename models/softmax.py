"""Models: probabilities from scores, for live decisions and for their evaluation.

May import numpy. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_softmax(
    scores: NDArray[np.floating], temperature: float | NDArray[np.float64] = 1.0
) -> NDArray[np.float64]:
    """Return the log-softmax of scores[..., classes] / temperature over the last axis, in float64.

    A class with a score of -inf has probability 0; a row with NaN stays NaN.
    """
    scaled = scores.astype(np.float64) / temperature
    shifted = scaled - scaled.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
