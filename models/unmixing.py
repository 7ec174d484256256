"""Models: which of the taught smells a response is made of, and in what proportions.

May import hardware and numpy. Pure: a response in, probabilities of compositions out; no clock, no
files. `calibration.unmixing` fits what is needed from taught exposures.

All compositions of up to three taught smells lie on a grid of proportions. Each has the response
that the mixing law predicts (`hardware.mixing_law`) from the responses of the smells alone. A
composition is the likelier, the nearer its response is to the measured one, in units of the rig's
own spread between exposures of one smell. The strength of an exposure is unknown: to first order,
a strength c adds ln c times the derivative of the response by it, so that its spread is one more
direction of the covariance (a rank-one update, integrated in closed form). A Student t distribution
takes the place of the normal one, as the covariance comes from few exposures.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import UsageError
from hardware.mixing_law import doses, mixed_response
from models.substance_decision import ComponentGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PARTS = 3
"""Four channels that move alike determine no more; a fourth part changes nothing that is seen."""

SIZE_PRIOR = (0.4, 0.4, 0.2)
"""Probability of one, two and three parts before anything is measured, each divided among the sets
of that size, and within a set by the product of the proportions: people mix comparable parts rather
than traces. Assumed, as no recordings say how often a rig smells mixtures."""

PAIR_SHARES = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))
TRIPLE_SHARES = (
    (1 / 3, 1 / 3, 1 / 3),
    *sorted(set(itertools.permutations((0.6, 0.2, 0.2)))),
    *sorted(set(itertools.permutations((0.4, 0.4, 0.2)))),
    *sorted(set(itertools.permutations((0.5, 0.3, 0.2)))),
    *sorted(set(itertools.permutations((0.8, 0.1, 0.1)))),
)
"""Proportions of the grid. Below a tenth a part is not seen beside a stronger one."""

STRENGTH_SPREAD = 0.5
"""Standard deviation of the logarithm of an exposure's strength: a factor of 1.6 either way. With
0.3 simulated mixtures of equal strengths are found a little more often and real pairs as often
(`scent-train unmix`), but a smell of half the strength is taken for a mixture."""

INTERVAL_COVERAGE = 0.9
SUBSTITUTE = 0.25
"""A set as likely as this share of the likeliest one, with one smell exchanged, means that the two
smells cannot be told apart here."""

UNEXPLAINED_RATE = 0.01
"""Share of mixtures of taught smells alone that are taken for having something else in them."""

_LEAST_PRESENCE = 0.05
_NORMAL_QUANTILE = 2.326
"""Of the standard normal distribution at 1 - `UNEXPLAINED_RATE`."""


class UnmixingError(UsageError):
    """A response does not fit the smells that were taught."""


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """What a response is made of; arrays are in the order of `labels`.

    Attributes
    ----------
    labels: of the taught smells.
    presence: float64[labels], probability that the smell is in it.
    proportion: float64[labels], of the whole, expected where the smell is present.
    low, high: float64[labels], interval of the proportion where it is present, of
        `INTERVAL_COVERAGE`; 0 and 1 where the smell is hardly possible.
    likeliest: labels of the most probable set, the largest proportion first.
    probability: of that set.
    groups: smells that cannot be told apart here, with the probability that one of them is present.
    misfit: squared distance of the nearest composition, in units of the spread.
    unexplained: no composition fits: something that was not taught is in it.
    """

    labels: tuple[str, ...]
    presence: NDArray[np.float64]
    proportion: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    likeliest: tuple[str, ...]
    probability: float
    groups: tuple[ComponentGroup, ...]
    misfit: float
    unexplained: bool


@dataclass(frozen=True, slots=True, eq=False)
class CompositionGrid:
    """Compositions, sorted by set.

    Attributes
    ----------
    shares: float64[compositions, labels], rows sum to 1.
    member: bool[sets, labels].
    owner: int64[compositions], the set of each.
    log_prior: float64[compositions].
    """

    shares: NDArray[np.float64]
    member: NDArray[np.bool_]
    owner: NDArray[np.int64]
    log_prior: NDArray[np.float64]


def mean_response(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[channels], the mean of rows[n, channels] without NaN; NaN where there is none.

    `numpy.nanmean` does the same, with a warning for every channel that is missing.
    """
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    mean: NDArray[np.float64] = np.full(rows.shape[1], np.nan)
    np.divide(np.where(known, rows, 0.0).sum(axis=0), count, out=mean, where=count > 0)
    return mean


def composition_grid(labels: int, size_prior: tuple[float, ...] = SIZE_PRIOR) -> CompositionGrid:
    """Return all compositions of up to `MOST_PARTS` of so many smells."""
    shares: list[NDArray[np.float64]] = []
    member: list[NDArray[np.bool_]] = []
    owner: list[int] = []
    log_prior: list[NDArray[np.float64]] = []
    by_size = (((1.0,),), tuple((one, 1.0 - one) for one in PAIR_SHARES), TRIPLE_SHARES)
    for size, choices in enumerate(by_size[: min(labels, MOST_PARTS)], 1):
        weights = np.prod(choices, axis=1)
        log_weights = np.log(
            size_prior[size - 1] / math.comb(labels, size) * weights / weights.sum()
        )
        for parts in itertools.combinations(range(labels), size):
            rows = np.zeros((len(choices), labels))
            rows[:, list(parts)] = choices
            shares.append(rows)
            log_prior.append(log_weights)
            owner += [len(member)] * len(choices)
            present = np.zeros(labels, dtype=bool)
            present[list(parts)] = True
            member.append(present)
    return CompositionGrid(
        np.concatenate(shares), np.array(member), np.array(owner), np.concatenate(log_prior)
    )


@dataclass(frozen=True, eq=False)
class Unmixing:
    """The taught smells of a rig and how far their exposures differ.

    Attributes
    ----------
    labels: of the smells.
    responses: float64[labels, channels], response above clean air at strength 1; NaN in a channel
        that was not measured for a smell, which is not used then.
    exponents: float64[channels], of the mixing law.
    spread: float64[channels, channels], covariance of the response between two exposures of one
        smell, apart from their strengths.
    exposures: float64[labels], how many of each smell were taught: a mean of n is known to a share
        of 1/n of the spread.
    freedom: degrees of freedom of the Student t distribution: how well the spread is known.
    """

    labels: tuple[str, ...]
    responses: NDArray[np.float64]
    exponents: NDArray[np.float64]
    spread: NDArray[np.float64]
    exposures: NDArray[np.float64]
    freedom: float = 5.0

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.exponents))
        if not self.labels or self.responses.shape != shape:
            raise UnmixingError(
                f"Expected responses of {shape[0]} smells on {shape[1]} channels, one smell at "
                f"least, got an array of shape {self.responses.shape}."
            )

    @cached_property
    def _grid(self) -> CompositionGrid:
        return composition_grid(len(self.labels))

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """bool[channels]: measured for all smells."""
        return np.asarray(np.isfinite(self.responses).all(axis=0))

    @cached_property
    def _predicted(self) -> NDArray[np.float64]:
        """float64[compositions, channels]: responses at strength 1."""
        return mixed_response(self.responses, self._grid.shares, self.exponents)

    @cached_property
    def _by_strength(self) -> NDArray[np.float64]:
        """float64[compositions, channels]: derivative of the response by the log strength."""
        dose = doses(self.responses, self.exponents)
        reducing = self._grid.shares @ np.maximum(dose, 0.0)
        oxidising = self._grid.shares @ np.maximum(-dose, 0.0)
        slope: NDArray[np.float64] = reducing / (1 + reducing) - oxidising / (1 + oxidising)
        return self.exponents * slope

    @cached_property
    def _inflation(self) -> NDArray[np.float64]:
        """float64[compositions]: variance in units of the spread, with that of the taught means."""
        return np.asarray(1.0 + self._grid.shares**2 @ (1.0 / self.exposures))

    def estimate(
        self, response: NDArray[np.float64], uncertainty: NDArray[np.float64] | None = None
    ) -> Composition:
        """Return what a response is made of.

        Parameters
        ----------
        response: float64[channels], above clean air; NaN in a channel that cannot be used.
        uncertainty: float64[channels], standard deviation of the response beyond the spread: what
            its noise is, and how far a rise may still go. None for a quiet plateau.

        Raises
        ------
        UnmixingError: the number of channels differs, or none can be used.
        """
        log_weight, misfit, channels = self._log_posterior(response, uncertainty)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        nearest = float(misfit.min())
        limit = _largest_misfit(channels, self.freedom)
        return self._summary(weight, nearest, unexplained=nearest > limit)

    def usable_channels(self, response: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the channels of a response that were measured for all smells and now."""
        return np.flatnonzero(np.isfinite(response) & self._known)

    def log_compositions(
        self, response: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return all compositions, float64[compositions, labels], and their log likelihoods.

        To choose among some of them only, or by another prior than `estimate`. Parameters and
        errors are those of `estimate`.
        """
        log_weight, _, _ = self._log_posterior(response, None)
        return self._grid.shares, log_weight - self._grid.log_prior

    def _log_posterior(
        self, response: NDArray[np.float64], uncertainty: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Return `_log_likelihood` and how many channels it rests on."""
        if response.shape != self.exponents.shape:
            raise UnmixingError(
                f"Expected a response of {len(self.exponents)} channels, got {response.shape}."
            )
        usable = self.usable_channels(response)
        if not len(usable):
            raise UnmixingError("No channel was measured both for all smells and now.")
        return *self._log_likelihood(response, uncertainty, usable), len(usable)

    def _log_likelihood(
        self,
        response: NDArray[np.float64],
        uncertainty: NDArray[np.float64] | None,
        usable: NDArray[np.intp],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log posterior, unnormalised, and the squared distance, float64[compositions].

        The variance of a composition is inflation * spread + strength^2 slope slope^T.
        """
        covariance = self.spread[np.ix_(usable, usable)].copy()
        if uncertainty is not None:
            covariance += np.diag(uncertainty[usable] ** 2)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
        scale = 1.0 / np.sqrt(self._inflation)[:, np.newaxis]
        difference = (response - self._predicted)[:, usable] @ whitening * scale
        slope = self._by_strength[:, usable] @ whitening * scale
        # Sherman-Morrison, for the covariance with the strength in it.
        along = (difference * slope).sum(axis=1)
        steepness = STRENGTH_SPREAD**2 * (slope**2).sum(axis=1)
        distance = (difference**2).sum(axis=1)
        distance -= STRENGTH_SPREAD**2 * along**2 / (1.0 + steepness)
        log_volume = 0.5 * (np.log1p(steepness) + len(usable) * np.log(self._inflation))
        exponent = 0.5 * (self.freedom + len(usable))
        tail = np.log1p(distance / self.freedom)
        return self._grid.log_prior - log_volume - exponent * tail, distance

    def _summary(
        self, weight: NDArray[np.float64], misfit: float, *, unexplained: bool
    ) -> Composition:
        """Return the composition of the posterior weight, float64[compositions]."""
        grid = self._grid
        sets = _summed(grid.owner, weight, len(grid.member))
        presence = np.minimum(sets @ grid.member, 1.0)
        expected = weight @ grid.shares
        proportion = np.divide(expected, presence, out=np.zeros_like(expected), where=presence > 0)
        low, high = np.zeros(len(presence)), np.ones(len(presence))
        for label in np.flatnonzero(presence >= _LEAST_PRESENCE):
            low[label], high[label] = _interval(grid.shares[:, label], weight)
        best = int(sets.argmax())
        order = np.argsort(-np.where(grid.member[best], proportion, -1.0), kind="stable")
        likeliest = tuple(self.labels[label] for label in order[: grid.member[best].sum()])
        groups = self._groups(sets, best)
        return Composition(
            labels=self.labels,
            presence=presence,
            proportion=proportion,
            low=low,
            high=high,
            likeliest=likeliest,
            probability=float(sets[best]),
            groups=groups,
            misfit=misfit,
            unexplained=unexplained,
        )

    def _groups(self, sets: NDArray[np.float64], best: int) -> tuple[ComponentGroup, ...]:
        """Return each smell of the likeliest set with those that may stand in its place."""
        member = self._grid.member
        likeliest = member[best]
        size = int(likeliest.sum())
        exchanged = (member.sum(axis=1) == size) & ((member & likeliest).sum(axis=1) == size - 1)
        found = []
        for label in np.flatnonzero(likeliest):
            instead = exchanged & ~member[:, label] & (sets >= SUBSTITUTE * sets[best])
            others = (member[instead] & ~likeliest).any(axis=0)
            if not others.any():
                continue
            together = others.copy()
            together[label] = True
            names = tuple(self.labels[k] for k in np.flatnonzero(together))
            presence = float(sets[(member & together).any(axis=1)].sum())
            found.append(ComponentGroup(names, min(presence, 1.0)))
        return tuple(found)


def _summed(
    owner: NDArray[np.intp], weight: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Return the weights summed by owner, float64[count]."""
    return np.bincount(owner, weights=weight, minlength=count).astype(np.float64)


def _interval(share: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Return the central interval of `INTERVAL_COVERAGE` of the shares above 0."""
    present = share > 0
    levels, level = np.unique(share[present], return_inverse=True)
    cumulative = np.cumsum(_summed(level, weight[present], len(levels)))
    cumulative /= cumulative[-1]
    tail = (1.0 - INTERVAL_COVERAGE) / 2.0
    low = levels[np.searchsorted(cumulative, tail)]
    high = levels[min(int(np.searchsorted(cumulative, 1.0 - tail)), len(levels) - 1)]
    return float(low), float(high)


def _largest_misfit(channels: int, freedom: float) -> float:
    """Return the squared distance that `UNEXPLAINED_RATE` of the taught exceed.

    The squared distance over the channels is F distributed; by Paulson's cube-root approximation
    (Annals of Mathematical Statistics 13, 1942), which needs no scipy.
    """
    above, below = 2.0 / (9.0 * channels), 2.0 / (9.0 * freedom)
    z = _NORMAL_QUANTILE
    # The root of (1 - below) x - (1 - above) = z sqrt(below x^2 + above), x being F^(1/3).
    a = (1.0 - below) ** 2 - z**2 * below
    b = (1.0 - above) * (1.0 - below)
    c = (1.0 - above) ** 2 - z**2 * above
    root = (b + math.sqrt(b**2 - a * c)) / a
    return channels * root**3
