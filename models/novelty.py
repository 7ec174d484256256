"""Models: how little a window is like anything that the network learned.

May import numpy, models.taught_head and models.embedding_space. Pure: arrays in, one number per
window out, larger = less known. `scent-train trust` compares the scores on substances never trained
on; a bundle's manifest names the one that its trainer found best (`novelty`), and bounds it
(`unknown_above`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from models.embedding_space import unit_rows
from models.taught_head import known_means

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.embedding_space import EmbeddingSpace
    from models.taught_head import TaughtSmell

NoveltyName = Literal["cosine", "distance", "relative", "energy", "probability"]
"""The scores that a manifest may name."""


def score(
    name: NoveltyName,
    space: EmbeddingSpace,
    embedding: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    taught: Sequence[TaughtSmell] = (),
) -> NDArray[np.float64]:
    """Return the novelty of windows by the score of that name.

    Parameters
    ----------
    name: of the score.
    space: of the embeddings.
    embedding: float32[windows, D].
    logits: float32[windows, labels], as the network gives them.
    taught: smells that the rig was taught: they are known too. How far one lies counts in units
        of its `variance`: of ten smells taught once for two minutes, the novelty that 95 % of
        known recordings stay below was passed by .49 of other recordings without that and by .25
        with it, and by .57 and .46 of those of smells that were not taught.

    Returns
    -------
    float64[windows], larger = less known.
    """
    return _SCORES[name](space, embedding, logits, taught)


def cosine(
    space: EmbeddingSpace,
    embedding: NDArray[np.float32],
    _logits: NDArray[np.float32],
    taught: Sequence[TaughtSmell],
) -> NDArray[np.float64]:
    """One less the largest cosine to a mean, seen from the middle, whitened (0 alike, 2 opposite).

    Nearest class mean by angle (Wang et al., SimpleShot, 2019): how strong an odour is moves an
    embedding towards or away from the middle, and says nothing of whether it is known.
    """
    means, variances = known_means(space, taught)
    angles = unit_rows(space.whiten(embedding)) @ unit_rows(means).T
    least: NDArray[np.float64] = ((1.0 - angles) / variances).min(axis=1)
    return least


def distance(
    space: EmbeddingSpace,
    embedding: NDArray[np.float32],
    _logits: NDArray[np.float32],
    taught: Sequence[TaughtSmell],
) -> NDArray[np.float64]:
    """Squared Mahalanobis distance to the nearest mean (Lee et al., NeurIPS 2018)."""
    means, variances = known_means(space, taught)
    distances = space.squared_distances(space.whiten(embedding), means) / variances
    nearest: NDArray[np.float64] = distances.min(axis=1)
    return nearest


def relative(
    space: EmbeddingSpace,
    embedding: NDArray[np.float32],
    logits: NDArray[np.float32],
    taught: Sequence[TaughtSmell],
) -> NDArray[np.float64]:
    """Distance to the nearest mean less the one to the mean of all (Ren et al., 2021).

    What every embedding has far from everything, known or not, so cancels. Of all, not whitened
    by its own covariance as in the paper: the bundle holds one whitening.
    """
    z = space.whiten(embedding)
    overall: NDArray[np.float64] = (z**2).sum(axis=1)
    return distance(space, embedding, logits, taught) - overall


def energy(
    _space: EmbeddingSpace,
    _embedding: NDArray[np.float32],
    logits: NDArray[np.float32],
    _taught: Sequence[TaughtSmell],
) -> NDArray[np.float64]:
    """Negative log of the summed exponentials of the logits (Liu et al., NeurIPS 2020)."""
    x = logits.astype(np.float64)
    largest = x.max(axis=1, keepdims=True)
    summed: NDArray[np.float64] = largest[:, 0] + np.log(np.exp(x - largest).sum(axis=1))
    return -summed


def probability(
    _space: EmbeddingSpace,
    _embedding: NDArray[np.float32],
    logits: NDArray[np.float32],
    _taught: Sequence[TaughtSmell],
) -> NDArray[np.float64]:
    """One less the largest probability (Hendrycks & Gimpel, ICLR 2017): what others must beat."""
    x = logits.astype(np.float64)
    shares = np.exp(x - x.max(axis=1, keepdims=True))
    least: NDArray[np.float64] = 1.0 - 1.0 / shares.sum(axis=1)
    return least


def neighbours(
    space: EmbeddingSpace, embedding: NDArray[np.float32], exemplars: NDArray[np.float32]
) -> NDArray[np.float64]:
    """One less the cosine to the nearest of many known windows (Sun et al., ICML 2022).

    For comparison alone, as it would have to ship with the windows: of 600 it tells no more than
    `cosine` does of fifty means.

    Parameters
    ----------
    space: of the embeddings.
    embedding: float32[windows, D].
    exemplars: float32[known windows, D].
    """
    nearest = unit_rows(space.whiten(embedding)) @ unit_rows(space.whiten(exemplars)).T
    least: NDArray[np.float64] = 1.0 - nearest.max(axis=1)
    return least


_SCORES: Mapping[NoveltyName, Callable[..., NDArray[np.float64]]] = {
    "cosine": cosine,
    "distance": distance,
    "relative": relative,
    "energy": energy,
    "probability": probability,
}
