"""Calibration: the unmixing of a rig, fitted to the exposures that the rig was taught.

May import hardware, models and numpy. Pure and without scipy: responses of exposures in, a
`models.unmixing.Unmixing` out, in some milliseconds.

Channel by channel, the responses are those of the mixing law plus an offset that all exposures of
one session share plus a rest:

    response = offset(session) + law(sum of strengths and responses at strength 1) + rest

The responses and offsets are the most probable ones (Gauss-Newton steps on the squared errors with
normal priors). Single smells at strength 1 determine them in closed form. A smell that was also
taught at another strength, or within a mixture of known proportions, determines the exponents too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hardware.channels import CHANNELS, GAS_EXPONENTS, GAS_INDICES, MQ_FLOOR_PPM, Part
from hardware.mixing_law import mixed_response, mixed_slopes
from models.response import ROW_S
from models.unmixing import Unmixing, UnmixingError, mean_response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.recogniser import TaughtExposure

_PARTS = [CHANNELS[index].part for index in GAS_INDICES]

WITHIN_SESSION = np.array([0.15 if part is Part.MQ else 0.1 for part in _PARTS])
"""Standard deviation of a response between two exposures of one session, apart from their
strengths, float64[8]: about half of that between the published recordings of one substance
(.16/.16/.20/.12, MQ .33/.17/.34, heater plate .19), whose strengths differ too."""

BETWEEN_SESSIONS = np.array([0.2, 0.2, 0.35, 0.1, 0.29, 0.08, 0.31, 0.16])
"""The same between two days, float64[8]: of the Grove channels measured on the published
substances of two days; of the others, what `WITHIN_SESSION` leaves of the spread between
recordings, as no second day of them is known."""

FLOOR_SPREAD = 0.78
"""The same of an MQ part whose ppm is rounded to nothing in clean air: how far its response begins
below the least number is unknown, and changes with the day's clean air for all smells alike. Clean
air of the MQ-135 moves by .55 from day to day (`hardware/simulator/days.csv`), so that two days
differ by that times the root of 2."""

_CORRELATION = np.eye(len(_PARTS))
for _first, _second, _value in (
    *((0, 1, 0.39), (0, 2, 0.44), (0, 3, 0.31), (0, 7, 0.21), (1, 2, 0.38), (1, 3, 0.35)),
    *((1, 7, 0.21), (2, 3, 0.30), (2, 7, 0.16), (3, 7, 0.18), (4, 5, 0.18)),
):
    _CORRELATION[_first, _second] = _CORRELATION[_second, _first] = _value
CORRELATION: NDArray[np.float64] = _CORRELATION
"""Correlation of the spread between channels, float64[8, 8]: half of that between the published
recordings of one substance (NO2 with VOC .87, C2H5OH with CO .71, MQ with MQ .37). The whole of it
would trust the direction in which no two recordings differed by chance."""

_FLOOR = np.array([np.log(2.0 * MQ_FLOOR_PPM) if part is Part.MQ else -np.inf for part in _PARTS])
"""A mean below one ppm is mostly readings of 0."""

PRIOR_FREEDOM = 5.0
"""Weight of these figures, in exposures."""

EXPONENT_SPREAD = 0.4
"""Standard deviation of the logarithm of an exponent: the table's are known to a factor of 1.5."""
_EXPONENT_FACTORS = np.exp(EXPONENT_SPREAD * np.linspace(-2.0, 2.0, 17))

_RESPONSE_SPREAD = 2.0
"""Of the responses to all smells around their mean, in log-conductance."""

_STEPS = 40
_LARGEST_STEP = 0.5
_SMALL_STEP = 1e-6


LEAST_SMELLS = 2
"""One smell alone has no mixtures."""


class TaughtResponse(NamedTuple):
    """The plateau of one exposure.

    Attributes
    ----------
    strengths: by label: `{"orange": 1.0}`, a dilution `{"orange": 0.5}`, or a mixture of known
        proportions `{"orange": 0.2, "clove": 0.8}`.
    session: the day, or whatever else names one sitting.
    response: float64[channels], above clean air; NaN in a channel that could not be used.
    clean_air: float64[channels], log-conductances of it, or None where they are not known.
    """

    strengths: Mapping[str, float]
    session: str
    response: NDArray[np.float64]
    clean_air: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Priors:
    """What is known of a board before anything was taught.

    Attributes
    ----------
    exponents: float64[channels], of the mixing law.
    within, between: float64[channels], standard deviations as `WITHIN_SESSION` and
        `BETWEEN_SESSIONS`.
    correlation: float64[channels, channels], of both.
    floor: float64[channels], log-conductance below which clean air is not resolved; minus infinity
        where it always is.
    """

    exponents: NDArray[np.float64]
    within: NDArray[np.float64]
    between: NDArray[np.float64]
    correlation: NDArray[np.float64]
    floor: NDArray[np.float64]

    @classmethod
    def of_channels(cls, chosen: Sequence[int] = tuple(range(len(GAS_INDICES)))) -> Priors:
        """Return those of the chosen ones of the eight channels of `GAS_INDICES`."""
        columns = list(chosen)
        exponents = np.array(GAS_EXPONENTS)[columns]
        correlation = CORRELATION[np.ix_(columns, columns)]
        within, between = WITHIN_SESSION[columns], BETWEEN_SESSIONS[columns]
        return cls(exponents, within, between, correlation, _FLOOR[columns])

    def with_floor_of(self, exposures: Sequence[TaughtResponse]) -> Priors:
        """Return them with `FLOOR_SPREAD` where clean air was not resolved in some exposure."""
        below = np.zeros(len(self.floor), dtype=bool)
        for exposure in exposures:
            if exposure.clean_air is not None:
                below |= exposure.clean_air <= self.floor
        return replace(self, between=np.where(below, FLOOR_SPREAD, self.between))


@dataclass(frozen=True, slots=True, eq=False)
class _Design:
    """The exposures as arrays.

    Attributes
    ----------
    strengths: float64[exposures, labels].
    session: float64[exposures, sessions], 1 where the exposure belongs to the session.
    responses: float64[exposures, channels].
    """

    strengths: NDArray[np.float64]
    session: NDArray[np.float64]
    responses: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _ChannelFit:
    """One channel: responses float64[labels], offsets float64[sessions], rest, and how unlikely."""

    responses: NDArray[np.float64]
    offsets: NDArray[np.float64]
    rest: NDArray[np.float64]
    badness: float


def plateau(
    response: NDArray[np.float64], rate_hz: float, last_s: float = 30.0
) -> NDArray[np.float64]:
    """Return float64[channels], the mean of the last seconds of a response[rows, channels]."""
    return mean_response(response[-max(1, round(last_s * rate_hz)) :])


def unmixing_of_smells(exposures: Sequence[TaughtExposure]) -> Unmixing | None:
    """Return the unmixing of the smells that a rig was taught; None of fewer than two."""
    if len({exposure.label for exposure in exposures}) < LEAST_SMELLS:
        return None
    return fit_unmixing(
        [
            TaughtResponse(
                {exposure.label: 1.0},
                exposure.session,
                plateau(exposure.rows.response, 1.0 / ROW_S),
                exposure.clean_air,
            )
            for exposure in exposures
        ]
    )


def fit_unmixing(
    exposures: Sequence[TaughtResponse],
    priors: Priors | None = None,
    *,
    session: str | None = None,
) -> Unmixing:
    """Fit the unmixing of the smells that the exposures hold.

    Parameters
    ----------
    exposures: of one rig.
    priors: of the board's channels; None for all eight of `GAS_INDICES`.
    session: in which mixtures will be asked for. Where something was taught in it, its offset is
        known; else the spread between sessions is added.

    Raises
    ------
    UnmixingError: there is no exposure, or one without a smell or with other channels.
    """
    known = priors or Priors.of_channels()
    labels = tuple(sorted({label for exposure in exposures for label in exposure.strengths}))
    sessions = sorted({exposure.session for exposure in exposures})
    design = _design(exposures, labels, sessions, len(known.exponents))
    known = known.with_floor_of(exposures)
    mixed = bool(((design.strengths > 0) & (design.strengths != 1.0)).any())
    exponents, fits = known.exponents.copy(), []
    for channel in range(len(exponents)):
        factors = _EXPONENT_FACTORS if mixed else np.ones(1)
        tried = [
            _fit_channel(design, channel, known, known.exponents[channel] * f) for f in factors
        ]
        penalty = (np.log(factors) / EXPONENT_SPREAD) ** 2
        best = int(np.argmin([one.badness for one in tried] + penalty))
        exponents[channel] *= factors[best]
        fits.append(tried[best])
    responses = np.stack([one.responses for one in fits], axis=1)
    offsets = np.stack([one.offsets for one in fits], axis=1)
    rest = np.stack([one.rest for one in fits], axis=1)
    spare = max(0, len(exposures) - len(labels) - len(sessions) + 1)
    within = _pooled(rest, known.within, known.correlation, spare)
    freedom = PRIOR_FREEDOM + spare
    if session in sessions:
        place = sessions.index(session)
        responses = responses + offsets[place]
        spread = within * (1.0 + 1.0 / design.session[:, place].sum())
    else:
        spread = within + _pooled(offsets, known.between, known.correlation, len(sessions) - 1)
        freedom = PRIOR_FREEDOM + len(sessions) - 1
    counts = np.minimum(design.strengths, 1.0).sum(axis=0)
    return Unmixing(labels, responses, exponents, spread, counts, freedom)


def _design(
    exposures: Sequence[TaughtResponse],
    labels: tuple[str, ...],
    sessions: list[str],
    channels: int,
) -> _Design:
    for exposure in exposures:
        values = list(exposure.strengths.values())
        if not values or not all(np.isfinite(values)) or min(values) <= 0:
            raise UnmixingError(
                "Expected the strength of every smell of an exposure, above 0, got "
                f"{dict(exposure.strengths)}."
            )
        if exposure.response.shape != (channels,):
            raise UnmixingError(
                f"Expected responses of {channels} channels, got {exposure.response.shape} for "
                f"{', '.join(exposure.strengths)}."
            )
    if not exposures:
        raise UnmixingError("Expected exposures of one smell at least, got none. Teach a smell.")
    return _Design(
        np.array([[one.strengths.get(label, 0.0) for label in labels] for one in exposures]),
        np.array([[float(one.session == name) for name in sessions] for one in exposures]),
        np.array([one.response for one in exposures]),
    )


def _fit_channel(design: _Design, channel: int, priors: Priors, exponent: float) -> _ChannelFit:
    """Return the most probable responses and offsets of one channel."""
    measured = np.isfinite(design.responses[:, channel])
    target = design.responses[measured, channel]
    strengths, session = design.strengths[measured], design.session[measured]
    labels, sessions = strengths.shape[1], session.shape[1]
    if not len(target):
        nothing = np.zeros(len(measured))
        return _ChannelFit(np.full(labels, np.nan), np.zeros(sessions), nothing, 0.0)
    middle = target.mean()
    beta = np.array([exponent])
    within, between = priors.within[channel], priors.between[channel]
    precision = np.concatenate(
        [np.full(labels, _RESPONSE_SPREAD**-2.0), np.full(sessions, between**-2.0)]
    )
    prior = np.concatenate([np.full(labels, middle), np.zeros(sessions)])
    found = prior.copy()
    error, badness = _errors(found, prior, precision, strengths, session, target, beta, within)
    damping = 0.0
    for _ in range(_STEPS):
        law = mixed_slopes(found[:labels, np.newaxis], strengths, beta)[..., 0]
        slope = np.concatenate([law, session], axis=1)
        normal = slope.T @ slope / within**2 + np.diag(precision * (1.0 + damping))
        downhill = slope.T @ error / within**2 - precision * (found - prior)
        step = np.clip(np.linalg.solve(normal, downhill), -_LARGEST_STEP, _LARGEST_STEP)
        tried = found + step
        error_then, then = _errors(
            tried, prior, precision, strengths, session, target, beta, within
        )
        if then > badness:
            damping = max(1.0, 10.0 * damping)
            continue
        found, error, badness, damping = tried, error_then, then, damping / 10.0
        if np.abs(step).max() < _SMALL_STEP:
            break
    rest = np.zeros(len(measured))
    rest[measured] = error
    responses = np.where(strengths.any(axis=0), found[:labels], np.nan)
    return _ChannelFit(responses, found[labels:], rest, badness)


def _errors(
    found: NDArray[np.float64],
    prior: NDArray[np.float64],
    precision: NDArray[np.float64],
    strengths: NDArray[np.float64],
    session: NDArray[np.float64],
    target: NDArray[np.float64],
    beta: NDArray[np.float64],
    within: float,
) -> tuple[NDArray[np.float64], float]:
    """Return the rests float64[exposures], and twice the negative log posterior."""
    labels = strengths.shape[1]
    law = mixed_response(found[:labels, np.newaxis], strengths, beta)[:, 0]
    error = target - law - session @ found[labels:]
    return error, float((error**2).sum() / within**2 + (precision * (found - prior) ** 2).sum())


def _pooled(
    deviations: NDArray[np.float64],
    prior: NDArray[np.float64],
    correlation: NDArray[np.float64],
    freedom: int,
) -> NDArray[np.float64]:
    """Return the covariance float64[channels, channels] of deviations, shrunk to the prior's."""
    scatter = PRIOR_FREEDOM * correlation * np.outer(prior, prior) + deviations.T @ deviations
    return np.asarray(scatter / (PRIOR_FREEDOM + freedom))
