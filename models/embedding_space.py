"""Models: the space of a network's embeddings, with the mean of each label.

May import numpy and hardware.errors. Pure: arrays in, arrays out; a bundle contains these arrays
and `models.bundle` reads them.

The space is that of a linear discriminant: all labels share one within-class covariance, which
the whitening transforms to the identity, so that plain squared distances are Mahalanobis distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MIDDLE = "embedding_middle"
WHITENING = "embedding_whitening"
MEANS = "class_means"
"""Names of the three arrays among those of a bundle."""

SHRINKAGE = 0.1
"""Share of a scaled identity in the covariance, so that directions with little variance do not
dominate the distance (Friedman 1989, regularised discriminant analysis, JASA 84)."""

_SMALLEST_VARIANCE = 1e-12
"""Below it a direction is constant, and dividing by its spread would amplify rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingSpace:
    """A space in which embeddings are compared, and the labels' means in it.

    Attributes
    ----------
    labels: those of `means`, in the order of the model's outputs.
    middle: float64[D], the mean embedding.
    whitening: float64[D, D], transforms the shrunk within-class covariance to the identity.
    means: float64[labels, D], the labels' mean embeddings, whitened.
    """

    labels: tuple[str, ...]
    middle: NDArray[np.float64]
    whitening: NDArray[np.float64]
    means: NDArray[np.float64]

    def __post_init__(self) -> None:
        width = len(self.middle)
        if self.whitening.shape != (width, width) or self.means.shape != (len(self.labels), width):
            raise UsageError(
                f"An embedding space of width {width} with {len(self.labels)} labels needs a "
                f"whitening [{width}, {width}] and means [{len(self.labels)}, {width}], got "
                f"{list(self.whitening.shape)} and {list(self.means.shape)}. Export the bundle "
                "anew."
            )

    @classmethod
    def fit(
        cls,
        embedding: NDArray[np.float32],
        label: NDArray[np.int64],
        labels: tuple[str, ...],
        shrinkage: float = SHRINKAGE,
    ) -> EmbeddingSpace:
        """Fit the space to embeddings of known labels.

        Parameters
        ----------
        embedding: float32[windows, D], from recordings whose labels the network was trained on.
        label: int64[windows], the index in `labels` of each; every label must be there.
        labels: names.
        shrinkage: share of a scaled identity in the covariance, 0..1.

        Raises
        ------
        UsageError: a label without a single window.
        """
        absent = [name for k, name in enumerate(labels) if not (label == k).any()]
        if absent:
            raise UsageError(
                f"Every label needs windows to measure its mean; there are none of "
                f"{', '.join(absent)}. Add recordings of them, or leave these labels out."
            )
        x = embedding.astype(np.float64)
        raw = np.stack([x[label == k].mean(axis=0) for k in range(len(labels))])
        within = x - raw[label]
        covariance = within.T @ within / len(x)
        width = len(covariance)
        scale = np.trace(covariance) / width
        shrunk = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(width)
        size, axes = np.linalg.eigh(shrunk)
        middle = x.mean(axis=0)
        whitening = axes / np.sqrt(np.maximum(size, _SMALLEST_VARIANCE))
        return cls(labels, middle, whitening, (raw - middle) @ whitening)

    @classmethod
    def from_arrays(
        cls, labels: tuple[str, ...], arrays: Mapping[str, NDArray[np.floating]]
    ) -> EmbeddingSpace | None:
        """Return the space in a bundle's arrays, None where there is none."""
        if not all(name in arrays for name in (MIDDLE, WHITENING, MEANS)):
            return None
        middle, whitening, means = (
            np.asarray(arrays[name], dtype=np.float64) for name in (MIDDLE, WHITENING, MEANS)
        )
        return cls(labels, middle, whitening, means)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays by their names in a bundle."""
        return {MIDDLE: self.middle, WHITENING: self.whitening, MEANS: self.means}

    def whiten(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return embedding[n, D] whitened, float64[n, D]."""
        whitened: NDArray[np.float64] = (
            embedding.astype(np.float64) - self.middle
        ) @ self.whitening
        return whitened

    @staticmethod
    def squared_distances(
        z: NDArray[np.float64], means: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return float64[n, k], from each whitened z[n, D] to each of means[k, D]."""
        # |z|^2 - 2 z.m + |m|^2 needs no [n, k, D] array; rounding may make it negative.
        cross = z @ means.T
        squares = (z**2).sum(axis=1)[:, None] - 2 * cross + (means**2).sum(axis=1)
        distances: NDArray[np.float64] = np.maximum(squares, 0.0)
        return distances


def unit_rows(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x[n, D] with every row of length 1; rows of zeros stay so."""
    length: NDArray[np.float64] = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(length, 1e-12)
