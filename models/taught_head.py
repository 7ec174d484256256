"""Models: what a rig adds to a shipped substance model: taught smells, hidden and renamed labels.

May import numpy, models.embedding_space and models.softmax. Pure: no files, no clock;
`calibration.smell_store` keeps what was taught and makes the `TaughtHead` of it.

A taught smell is a class mean in the whitened space of the embedding (nearest class mean: Mensink
et al., IEEE TPAMI 35, 2013; Snell et al., NeurIPS 2017). Whether a window is of a taught smell is
decided there, among the means of all labels; which shipped label it is otherwise, by the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from models.softmax import log_softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.embedding_space import EmbeddingSpace

HIDDEN_LOG_PROBABILITY = -1e4
"""Log-probability of a hidden label. Finite, so that the evidence's means and products stay so."""

HIDDEN_SUFFIX = " (hidden)"
"""Ends the published name of a hidden label, which leaves its own name free to be taught anew."""


class HeadError(ScentdError):
    """Taught smells, hidden and renamed labels do not fit together, or not to the model."""


EXPOSURE_VARIANCE = 2.0 / 3.0
"""What a manifest says unless its trainer found better: variance between exposures of a smell, in
units of that within a class. Without it a smell taught once "lies further away" than the shipped
ones, whose means are of many recordings, and is lost to them: of ten smells taught for two minutes
each beside forty known ones, .28 of other recordings were named rightly. With 1/3, 2/3 and 1 it was
.51, .62 and .69, and of the known smells .89, .87 and .83 (without anything taught, .90; two
networks, each without the substances and the recordings asked about). Less harm to what is known
went before the last of the new."""


@dataclass(frozen=True, slots=True, eq=False)
class TaughtSmell:
    """A smell that a rig was taught.

    Attributes
    ----------
    label: as published.
    mean: float64[D], of its windows' embeddings, whitened; each exposure counts the same.
    windows: how many windows taught it.
    exposures: in how many separate exposures.
    exposure_variance: between exposures of one smell, in units of that within a class.
    """

    label: str
    mean: NDArray[np.float64]
    windows: int
    exposures: int
    exposure_variance: float = EXPOSURE_VARIANCE

    @property
    def variance(self) -> float:
        """Variance of a new window about the mean, in units of that within a class.

        The mean of e exposures is itself off by what tells one exposure from the next, over e
        (the predictive distribution of a normal class whose mean is estimated: Geisser, J. Roy.
        Stat. Soc. B 26, 1964). Windows of one exposure are off together, so their number does
        not lower it.
        """
        return 1.0 + self.exposure_variance / self.exposures


@dataclass(frozen=True, slots=True, eq=False)
class TaughtHead:
    """What stands beside a shipped model's labels on one rig.

    Attributes
    ----------
    taught: the rig's own smells.
    hidden: shipped labels, by their shipped names, that the rig never says.
    renamed: published name by shipped name.

    Raises
    ------
    HeadError: two taught smells share a name.
    """

    taught: tuple[TaughtSmell, ...] = ()
    hidden: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [smell.label for smell in self.taught]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise HeadError(
                f"Every taught smell needs a name of its own, but {', '.join(twice)} came twice. "
                "Rename or forget one of them."
            )

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not (self.taught or self.hidden or self.renamed)

    def labels(self, shipped: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels as published: those of the model, renamed, then the taught ones.

        Raises
        ------
        HeadError: a published name is not unique, the model has no label of a name, or all of
            its labels are hidden.
        """
        unknown = sorted((self.hidden | set(self.renamed)) - set(shipped))
        if unknown:
            raise HeadError(
                f"The rig hides or renames {', '.join(unknown)}, which the model does not know. "
                "Show these labels again, or take their new names back."
            )
        if self.hidden.issuperset(shipped):
            raise HeadError(
                "All labels of the model are hidden, so nothing is left to tell a taught smell "
                "from. Show at least one of them."
            )
        published = tuple(
            self.renamed.get(label, label) + (HIDDEN_SUFFIX if label in self.hidden else "")
            for label in shipped
        ) + tuple(smell.label for smell in self.taught)
        twice = sorted({name for name in published if published.count(name) > 1})
        if twice:
            raise HeadError(
                f"Two labels would be published as {', '.join(twice)}. Give the taught one "
                "another name, or rename or hide the model's own."
            )
        return published

    def log_probabilities(
        self,
        space: EmbeddingSpace,
        logits: NDArray[np.float32],
        embedding: NDArray[np.float32],
        temperature: float,
        head_temperature: float,
    ) -> NDArray[np.float64]:
        """Return the log-probabilities float64[windows, labels + taught], each row summing to 1.

        Taught label k has the probability of a linear discriminant over the means of all labels,
        softmax(-d_j / (2 * head_temperature)), where d_j is the squared distance to mean j over
        its `variance` (1 for a shipped label: many recordings made its mean). What the taught
        ones leave, the shipped ones share as the network's softmax says.

        Parameters
        ----------
        space: of the model, with the means of its labels.
        logits: float32[windows, labels].
        embedding: float32[windows, D].
        temperature: of the logits.
        head_temperature: of the discriminant.
        """
        there = np.array([label not in self.hidden for label in space.labels])
        shipped = _log_shares(np.where(there, logits / temperature, -np.inf))
        if not self.taught:
            return shipped
        z = space.whiten(embedding)
        means, variance = known_means(space, self.taught)
        nearness = -space.squared_distances(z, means) / (2.0 * head_temperature * variance)
        nearness[:, : len(there)][:, ~there] = -np.inf
        belief = _log_shares(nearness)
        taught = belief[:, len(there) :]
        rest = np.logaddexp.reduce(belief[:, : len(there)], axis=1, keepdims=True)
        return np.concatenate([np.maximum(shipped + rest, HIDDEN_LOG_PROBABILITY), taught], axis=1)


def known_means(
    space: EmbeddingSpace, taught: Sequence[TaughtSmell]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of all that is known, float64[k, D], and the variance about each.

    The model's labels come first, with a variance of 1: many recordings made their means.
    """
    means = np.stack([*space.means, *(smell.mean for smell in taught)])
    variances = [*np.ones(len(space.means)), *(smell.variance for smell in taught)]
    return means, np.array(variances)


def _log_shares(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the log-softmax of scores[windows, labels], never below `HIDDEN_LOG_PROBABILITY`."""
    shares = log_softmax(scores.astype(np.float64))
    return np.maximum(shares, HIDDEN_LOG_PROBABILITY)
