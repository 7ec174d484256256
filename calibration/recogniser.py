"""Calibration: the rig's own recogniser of the smells that it was taught.

May import numpy and models. Pure: features of exposures in, probabilities and distances out. It
needs neither torch nor scipy, and is fitted in closed form, so that a Raspberry Pi fits it anew
after every exposure that it is taught.

The recogniser is a linear discriminant in random Fourier features of the response (Rahimi and
Recht, Random features for large-scale kernel machines, NIPS 2007). They approximate a Gaussian
kernel; all smells share one shrunk within-class covariance. Smells count alike, so do the sessions
of a smell, however many exposures and readings they have. A smell that was never taught is far from
every taught reading. `scent-train rigs` prints what this reaches on real rigs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from hardware.errors import ScentdError
from models.softmax import log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RANDOM_FEATURES = 300
KERNEL_WIDTH = 0.7
"""Length scale of the Gaussian kernel, times the root of the number of standardised features, which
is the typical distance of a row from the centre. Chosen on fruits5 and ai-nose, where anything from
0.5 to 1.0 gave the same figures within noise."""

SHRINKAGE = 1.0
"""Identity added to the within-class covariance, times its mean variance: few exposures say little
about it. Chosen likewise, from 0.3 to 3."""

LEAST_SMELLS = 2
MOST_ROWS = 4096
"""Taught rows kept for the distance to the nearest one: 0.34 MB at 21 features."""

TEMPERATURES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)
DEFAULT_TEMPERATURE = 12.0
DEFAULT_NOVELTY = 1.0
"""Used where one session only was taught, so that nothing can be held out. Both are assumed, not
fitted: after one session most unknown smells are given a name (`scent-train rigs`)."""

ROW_S = 5
"""Seconds between rows of features: neighbouring readings say the same."""

STAGES = (6, 12, 24, 48, 120)
"""Rows of an exposure so far at which the novelty limit is fitted: a rise is unlike the rest."""

FAMILIAR_WEIGHT = 2.0
"""How much worse it is to keep silent about a taught smell than to name an unknown one, in fitting
the novelty limit."""

_LEAST_SPREAD = 1e-6
_SEED = 0


class RecogniserError(ScentdError):
    """A recogniser cannot be fitted to these exposures."""


class TaughtExposure(NamedTuple):
    """One exposure of a smell.

    Attributes
    ----------
    label: of the smell.
    session: the day, or whatever else names one sitting; its exposures resemble each other.
    features: float64[rows, features] of `models.response.response_features`.
    """

    label: str
    session: str
    features: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Recogniser:
    """What a rig was taught, fitted; make one with `fit`.

    Attributes
    ----------
    labels: of the smells, sorted.
    centre, spread: float64[features], of the standardisation.
    frequencies, phases: float64[features, random features] and float64[random features].
    means: float64[labels, random features], whitened.
    whitening: float64[random features, random features].
    rows: float32[taught rows, features], standardised.
    temperature: divides the squared distances.
    novelty_limits: by `STAGES`; an exposure whose `novelty` is above it is none of the smells.
    """

    labels: tuple[str, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    phases: NDArray[np.float64]
    means: NDArray[np.float64]
    whitening: NDArray[np.float64]
    rows: NDArray[np.float32]
    temperature: float = DEFAULT_TEMPERATURE
    novelty_limits: tuple[float, ...] = (DEFAULT_NOVELTY,) * len(STAGES)

    @classmethod
    def fit(cls, exposures: Sequence[TaughtExposure]) -> Self:
        """Fit a recogniser; `with_limits` fits what depends on held-out sessions.

        Raises
        ------
        RecogniserError: there are fewer than two smells.
        """
        labels = tuple(sorted({exposure.label for exposure in exposures}))
        if len(labels) < LEAST_SMELLS:
            raise RecogniserError(
                f"Expected exposures of {LEAST_SMELLS} smells or more, got "
                f"{', '.join(labels) or 'none'}. Teach another smell, or clean air as one."
            )
        rows = np.concatenate([exposure.features for exposure in exposures])
        lengths = [len(exposure.features) for exposure in exposures]
        owner = np.repeat([labels.index(exposure.label) for exposure in exposures], lengths)
        weight = _row_weights(exposures)
        known = np.isfinite(rows)
        share = np.maximum(weight @ known, _LEAST_SPREAD)
        centre = (weight @ np.where(known, rows, 0.0)) / share
        deviation = np.where(known, rows - centre, 0.0)
        spread = np.maximum(np.sqrt((weight @ deviation**2) / share), _LEAST_SPREAD)
        standard = deviation / spread
        rng = np.random.default_rng(_SEED)
        width = KERNEL_WIDTH * np.sqrt(rows.shape[1])
        frequencies = rng.normal(size=(rows.shape[1], RANDOM_FEATURES)) / width
        phases = rng.uniform(0.0, 2.0 * np.pi, RANDOM_FEATURES)
        lifted = _lift(standard, frequencies, phases)
        member = weight[:, np.newaxis] * (owner[:, np.newaxis] == np.arange(len(labels)))
        means = (member.T @ lifted) / member.sum(axis=0)[:, np.newaxis]
        residual = lifted - means[owner]
        covariance = (weight[:, np.newaxis] * residual).T @ residual
        scale = np.trace(covariance) / RANDOM_FEATURES + _LEAST_SPREAD
        covariance += SHRINKAGE * scale * np.eye(RANDOM_FEATURES)
        whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        kept = standard[:: 1 + (len(standard) - 1) // MOST_ROWS].astype(np.float32)
        return cls(labels, centre, spread, frequencies, phases, means @ whitening, whitening, kept)

    def with_limits(self, exposures: Sequence[TaughtExposure]) -> Self:
        """Return the recogniser with temperature and novelty limit fitted to held-out sessions.

        Every session is held out in turn, once as it is and once without each of its smells in
        training. With one session the defaults stay.

        Parameters
        ----------
        exposures
            Those that it was fitted to.
        """
        log_likelihoods: list[NDArray[np.float64]] = []
        novelties: dict[bool, list[list[float]]] = {True: [], False: []}
        for recogniser, held_out, is_known in _held_out(exposures):
            for exposure in held_out:
                novelties[is_known].append(
                    [recogniser.novelty(exposure.features[:rows]) for rows in STAGES]
                )
                if is_known:
                    label = recogniser.labels.index(exposure.label)
                    log_likelihoods.append(recogniser.likelihood_by_temperature(exposure, label))
        fitted = self
        if log_likelihoods:
            best = int(np.mean(log_likelihoods, axis=0).argmax())
            fitted = replace(fitted, temperature=TEMPERATURES[best])
        if novelties[True] and novelties[False]:
            by_stage = zip(
                np.transpose(novelties[True]), np.transpose(novelties[False]), strict=True
            )
            limits = tuple(_separating_limit(familiar, new) for familiar, new in by_stage)
            fitted = replace(fitted, novelty_limits=limits)
        return fitted

    def is_unknown(self, features: NDArray[np.float64]) -> bool:
        """Return whether an exposure so far is none of the taught smells."""
        limit = np.interp(len(features), STAGES, self.novelty_limits)
        return self.novelty(features) > float(limit)

    def squared_distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[rows, labels], to the mean of each smell."""
        lifted = _lift(self._standardised(features), self.frequencies, self.phases)
        difference: NDArray[np.float64] = (lifted @ self.whitening)[:, np.newaxis] - self.means
        distances: NDArray[np.float64] = (difference**2).sum(axis=2)
        return distances

    def log_probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[labels] of an exposure: the mean over its rows, normalised."""
        rows = log_softmax(self.squared_distances(features) / (-2.0 * self.temperature))
        return log_softmax(rows.mean(axis=0))

    def novelty(self, features: NDArray[np.float64]) -> float:
        """Return the mean distance of an exposure's rows to the nearest taught row.

        In standard deviations of one feature; 0 where a row was taught.
        """
        standard = self._standardised(features)
        known = self.rows.astype(np.float64)
        squares = (standard**2).sum(axis=1)[:, np.newaxis] + (known**2).sum(axis=1)
        nearest = (squares - 2.0 * standard @ known.T).min(axis=1)
        return float(np.sqrt(np.maximum(nearest, 0.0) / standard.shape[1]).mean())

    def likelihood_by_temperature(
        self, exposure: TaughtExposure, label: int
    ) -> NDArray[np.float64]:
        """Return the log-probability of a label at each of `TEMPERATURES`."""
        return np.array(
            [
                replace(self, temperature=temperature).log_probabilities(exposure.features)[label]
                for temperature in TEMPERATURES
            ]
        )

    def _standardised(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        # A channel that is missing says nothing: it lies at the centre.
        standard: NDArray[np.float64] = np.nan_to_num((features - self.centre) / self.spread)
        return standard


def _lift(
    standard: NDArray[np.float64], frequencies: NDArray[np.float64], phases: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the random Fourier features float64[rows, random features]."""
    lifted: NDArray[np.float64] = math.sqrt(2.0 / len(phases)) * np.cos(
        standard @ frequencies + phases
    )
    return lifted


def _row_weights(exposures: Sequence[TaughtExposure]) -> NDArray[np.float64]:
    """Return float64[rows], sum 1: smells, their sessions and a session's exposures count alike."""
    labels = {exposure.label for exposure in exposures}
    weights = []
    for exposure in exposures:
        same = [other for other in exposures if other.label == exposure.label]
        sessions = {other.session for other in same}
        together = sum(other.session == exposure.session for other in same)
        count = len(labels) * len(sessions) * together * len(exposure.features)
        weights.append(np.full(len(exposure.features), 1.0 / count))
    return np.concatenate(weights)


def _held_out(
    exposures: Sequence[TaughtExposure],
) -> Iterator[tuple[Recogniser, list[TaughtExposure], bool]]:
    """Yield recognisers, exposures of a session that they never met, and whether they know these.

    First with every smell in training, then without each smell of the session in turn.
    """
    for session in sorted({exposure.session for exposure in exposures}):
        earlier = [exposure for exposure in exposures if exposure.session != session]
        later = [exposure for exposure in exposures if exposure.session == session]
        for without in (None, *sorted({exposure.label for exposure in later})):
            training = [exposure for exposure in earlier if exposure.label != without]
            labels = {exposure.label for exposure in training}
            judged = [
                exposure
                for exposure in later
                if (exposure.label in labels if without is None else exposure.label == without)
            ]
            if len(labels) >= LEAST_SMELLS and judged:
                yield Recogniser.fit(training), judged, without is None


def _separating_limit(familiar: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Return the novelty that best separates taught smells from new ones (Youden, weighted)."""
    limits = np.sort(np.concatenate([familiar, new]))
    passed = (familiar <= limits[:, np.newaxis]).mean(axis=1)
    refused = (new > limits[:, np.newaxis]).mean(axis=1)
    return float(limits[int((FAMILIAR_WEIGHT * passed + refused).argmax())])
