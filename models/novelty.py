"""Models: scores of how little a window resembles anything that the network learned.

May import numpy, models.taught_head and models.embedding_space. Pure: arrays in, one number per
window out, larger = less known. `scent-train trust` compares the scores on substances never trained
on; a bundle's manifest names the best one (`novelty`) and bounds it (`unknown_above`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from models.embedding_space import unit_rows
from models.taught_head import known_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.embedding_space import EmbeddingSpace
    from models.taught_head import TaughtSmell

NoveltyName = Literal["cosine", "distance", "relative", "energy", "probability"]
"""The scores that a manifest may name.

- cosine: one less the largest cosine to a mean, whitened, from the middle (0 alike, 2 opposite).
  Nearest class mean by angle (Wang et al., SimpleShot, 2019): the strength of an odour moves an
  embedding towards or away from the middle and does not show whether it is known.
- distance: squared Mahalanobis distance to the nearest mean (Lee et al., NeurIPS 2018).
- relative: that distance less the one to the mean of all (Ren et al., 2021), which cancels what
  makes an embedding far from everything, known or not. The mean of all is not whitened by its own
  covariance as in the paper: the bundle holds one whitening.
- energy: negative log of the summed exponentials of the logits (Liu et al., NeurIPS 2020).
- probability: one less the largest probability (Hendrycks & Gimpel, ICLR 2017), the baseline.
"""


def score(
    name: NoveltyName,
    space: EmbeddingSpace,
    embedding: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    taught: Sequence[TaughtSmell] = (),
) -> NDArray[np.float64]:
    """Return the novelty of windows, float64[windows], larger = less known.

    Parameters
    ----------
    name: of the score.
    space: of the embeddings.
    embedding: float32[windows, D].
    logits: float32[windows, labels], as the network gives them.
    taught: smells that the rig was taught: they are known too. Their distances count in units of
        their `variance`: of ten smells taught once for two minutes, the novelty that 95 % of
        known recordings stay below was exceeded by .49 of other recordings without that and by .25
        with it, and by .57 and .46 of those of smells that were not taught.
    """
    if name in ("energy", "probability"):
        x = logits.astype(np.float64)
        largest = x.max(axis=1)
        summed: NDArray[np.float64] = np.exp(x - largest[:, np.newaxis]).sum(axis=1)
        return -(largest + np.log(summed)) if name == "energy" else 1.0 - 1.0 / summed
    z = space.whiten(embedding)
    means, variances = known_means(space, taught)
    if name == "cosine":
        angles = 1.0 - unit_rows(z) @ unit_rows(means).T
        return _nearest(angles / variances)
    distance = _nearest(space.squared_distances(z, means) / variances)
    return distance if name == "distance" else distance - (z**2).sum(axis=1)


def neighbours(
    space: EmbeddingSpace, embedding: NDArray[np.float32], exemplars: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return one less the cosine to the nearest of many known windows (Sun et al., ICML 2022).

    Only for comparison, since it would have to ship with the windows: with 600 of them it is no
    better than `cosine` with fifty means.

    Parameters
    ----------
    space: of the embeddings.
    embedding: float32[windows, D].
    exemplars: float32[known windows, D].
    """
    return _nearest(1.0 - unit_rows(space.whiten(embedding)) @ unit_rows(space.whiten(exemplars)).T)


def _nearest(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest: NDArray[np.float64] = distances.min(axis=1)
    return nearest
