"""Models: what a rig adds to a shipped substance model: taught smells, hidden and renamed labels.

May import numpy, models.embedding_space and models.softmax. Pure: no files, no clock;
`calibration.smell_store` keeps what was taught and makes the `TaughtHead` of it.

A taught smell is a class mean in the whitened space of the embedding (nearest class mean: Mensink
et al., IEEE TPAMI 35, 2013; Snell et al., NeurIPS 2017). The means of all labels decide whether a
window is of a taught smell, and otherwise the network decides which shipped label it has.
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
"""Log-probability of a hidden label. Finite, so that means and products of it are finite."""

HIDDEN_SUFFIX = " (hidden)"
"""Ends the published name of a hidden label, so that its own name can be taught."""


class HeadError(ScentdError):
    """Taught smells, hidden and renamed labels do not fit together, or not to the model."""


EXPOSURE_VARIANCE = 2.0 / 3.0
"""Default of the manifest: variance between exposures of a smell, in units of that within a class.

A smell taught once has a less accurate mean than the shipped ones, whose means are of many
recordings. Without this variance, of ten smells taught for two minutes each beside forty known
ones, .28 of other recordings were recognised. With 1/3, 2/3 and 1 it was .51, .62 and .69, and of
the known smells .89, .87 and .83 (without anything taught, .90; two networks, each trained without
the tested substances and recordings)."""


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

        The mean of e exposures itself has the variance between exposures over e (the predictive
        distribution of a normal class with an estimated mean: Geisser, J. Roy. Stat. Soc. B 26,
        1964). Windows of one exposure deviate together, so their number does not lower it.
        """
        return 1.0 + self.exposure_variance / self.exposures


@dataclass(frozen=True, slots=True, eq=False)
class TaughtHead:
    """One rig's changes to the labels of a shipped model.

    Attributes
    ----------
    taught: the rig's own smells.
    hidden: shipped labels, by their shipped names, that are never announced.
    renamed: published name by shipped name.

    Raises
    ------
    HeadError: two taught smells share a name.
    """

    taught: tuple[TaughtSmell, ...] = ()
    hidden: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = _duplicates([smell.label for smell in self.taught])
        if twice:
            raise HeadError(
                f"Every taught smell needs a name of its own, but {twice} came twice. "
                "Rename or forget one of them."
            )

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not (self.taught or self.hidden or self.renamed)

    def labels(self, shipped: tuple[str, ...]) -> tuple[str, ...]:
        """Return the published labels: those of the model, renamed, then the taught ones.

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
        twice = _duplicates(published)
        if twice:
            raise HeadError(
                f"Two labels would be published as {twice}. Give the taught one "
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

        Taught labels have the probabilities of a linear discriminant over the means of all labels,
        softmax(-d_j / (2 * head_temperature)), where d_j is the squared distance to mean j over
        its `variance` (1 for a shipped label, whose mean is of many recordings). The shipped
        labels share the rest by the network's softmax.

        Parameters
        ----------
        space: of the model, with the means of its labels.
        logits: float32[windows, labels].
        embedding: float32[windows, D].
        temperature: of the logits.
        head_temperature: of the discriminant.
        """
        shown = np.array([label not in self.hidden for label in space.labels])
        shipped = _log_shares(np.where(shown, logits / temperature, -np.inf))
        if not self.taught:
            return shipped
        z = space.whiten(embedding)
        means, variance = known_means(space, self.taught)
        nearness = -space.squared_distances(z, means) / (2.0 * head_temperature * variance)
        nearness[:, : len(shown)][:, ~shown] = -np.inf
        belief = _log_shares(nearness)
        taught = belief[:, len(shown) :]
        rest = np.logaddexp.reduce(belief[:, : len(shown)], axis=1, keepdims=True)
        return np.concatenate([np.maximum(shipped + rest, HIDDEN_LOG_PROBABILITY), taught], axis=1)


def known_means(
    space: EmbeddingSpace, taught: Sequence[TaughtSmell]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of the model's labels and the taught smells, and the variance about each.

    Returns
    -------
    float64[k, D] and float64[k], 1 for a shipped label, whose mean is of many recordings.
    """
    if not taught:
        return space.means, np.ones(len(space.means))
    means = np.stack([*space.means, *(smell.mean for smell in taught)])
    variances = [*np.ones(len(space.means)), *(smell.variance for smell in taught)]
    return means, np.array(variances)


def _duplicates(names: Sequence[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def _log_shares(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the log-softmax of scores[windows, labels], never below `HIDDEN_LOG_PROBABILITY`."""
    return np.maximum(log_softmax(scores), HIDDEN_LOG_PROBABILITY)
