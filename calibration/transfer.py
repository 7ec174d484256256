"""Calibration: fits the correction that makes one rig's readings those of the training rig.

May import `hardware`, `models`, its neighbours and numpy; no file and no clock. References are
exposures of labels that the model knows, made on this rig; `RigReference`, from the model's bundle,
holds the features of such exposures on the training rig. The fit finds the correction after which
the references have these features.

The samples themselves cannot be compared: they are of another day and another piece of fruit.
Each feature is weighted by how well it repeats from recording to recording
(`RigReference.covariance`). The levels of different odours give a channel's gain and shift, as do
the sizes of its changes; changes within a second against changes within a minute give how much
slower it is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from calibration.correction import Compensation, CorrectionSpec, estimator_taps, round_signals
from calibration.rig_reference import (
    LAGS_S,
    N_FEATURES,
    ResponseExcerpt,
    RigReference,
    TransferError,
    features_of,
)
from hardware.channels import CHANNELS, N_GAS, Part, channel_index
from models.signals import GAS_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


MIN_PAIRED = 6
"""Exposures from which on channels are combined (direct standardisation)."""

STANDARDISED = "standardised"
METHODS = ("none", "shift", "affine", "paced", STANDARDISED)
"""Nothing; a shift per channel; gain and shift; these and a response time; and a matrix."""

_RESPONSES_S = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
_LN_GAINS = np.linspace(-0.9, 0.9, 7)
"""Corrections that are computed; results in between are interpolated."""
_FINE = np.linspace(-0.9, 0.9, 73)
_SHIFTS = np.linspace(-0.5, 0.5, 21)
_GAIN_SPREAD = 0.2
"""Prior standard deviation of ln gain between parts. Of .15 to .3 it did best for four references
on folds 0 and 1 (.58 and .64 of the gap closed; .54 and .63 at .25)."""
_RESPONSE_SPREAD_S = 0.7
"""Scale of the exponential prior on the seconds by which a channel is slower: two minutes determine
it poorly, and too much speed amplifies noise."""
_FREEDOM = 3.0
"""Degrees of freedom of Student's t. Gains came within .17 and .14 of the truth (folds 0 and 1,
four references) against .21 and .17 under a Gaussian; 1 to 6 hardly differ."""
_ROUNDING_VARIANCE = (0.25, 0.06, 0.01, 0.003, 0.0, 0.0)
"""Added to the variance of the mean changes over 1, 2, 5, ... seconds: a converter's steps are part
of these on either rig and cannot be removed. Without it gains come out a third too low."""
_RIDGE = 0.3
"""Per exposure, against squared levels of about 1."""
_WHOLE_PPM = tuple(
    k for k, name in enumerate(GAS_NAMES) if CHANNELS[channel_index(name)].part is Part.MQ
)
"""Channels without a response time: at a few whole ppm, an MQ part's changes within seconds are
steps of its converter."""

_Number = TypeVar("_Number", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """One exposure after each correction of a grid, channel by channel.

    Attributes
    ----------
    level: float64[8], median log-conductance as this rig measured it; NaN where unusable.
    wanted: float64[8, N_FEATURES], the label's features on the training rig.
    changes: float64[8, responses, gains, lags], ln mean changes after the correction.
    """

    level: NDArray[np.float64]
    wanted: NDArray[np.float64]
    changes: NDArray[np.float64]

    @classmethod
    def compute(cls, exposure: ResponseExcerpt, reference: RigReference) -> Match:
        """Apply the corrections of the grid to an exposure and measure the changes."""
        wanted = reference.mean[reference.labels.index(exposure.label)]
        level = exposure.features[:, 0]
        level = np.where(np.isfinite(wanted[:, 0]), level, np.nan)
        signal = np.where(np.isfinite(level), fill_gaps(exposure.signal), 0.0)
        middle, target = np.nan_to_num(level), np.nan_to_num(wanted[:, 0])
        coarse = np.empty((len(_RESPONSES_S), len(_LN_GAINS), N_GAS, len(LAGS_S)))
        for r, response_s in enumerate(_RESPONSES_S):
            for g, gain in enumerate(np.exp(_LN_GAINS)):
                spec = CorrectionSpec(
                    middle=middle,
                    target=middle,
                    matrix=np.eye(N_GAS),
                    response_s=np.full(N_GAS, response_s),
                    wander=np.nan_to_num(reference.wander) / gain**2,
                )
                corrected = target + gain * (smooth(signal, spec) - middle)
                coarse[r, g] = features_of(round_signals(corrected))[:, 1:]
        return cls(level, wanted, _interpolated(coarse.transpose(2, 0, 1, 3)))


def _interpolated(coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read float64[8, responses, gains, lags] at the fine gains, linearly."""
    place = (_FINE - _LN_GAINS[0]) / (_LN_GAINS[1] - _LN_GAINS[0])
    left = np.clip(place.astype(int), 0, len(_LN_GAINS) - 2)
    share = (place - left)[:, np.newaxis]
    fine: NDArray[np.float64] = (1 - share) * coarse[:, :, left] + share * coarse[:, :, left + 1]
    return fine


def fill_gaps(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return signals float64[n, channels] with every gap filled by the last value before it."""
    known = np.isfinite(signal)
    known[0] = True
    last = np.maximum.accumulate(np.where(known, np.arange(len(signal))[:, np.newaxis], 0), axis=0)
    return np.nan_to_num(np.take_along_axis(signal, last, axis=0))


def smooth(signal: NDArray[np.float64], spec: CorrectionSpec) -> NDArray[np.float64]:
    """Return the estimate of `signal` float64[n, 8] once a second, as `RigCorrection` makes it."""
    taps = estimator_taps(spec, 1.0)
    padded = np.concatenate([np.repeat(signal[:1], len(taps) - 1, axis=0), signal])
    return np.stack(
        [np.convolve(padded[:, k], taps[::-1, k], "valid") for k in range(N_GAS)], axis=1
    )


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """The result of a fit.

    Attributes
    ----------
    method: the chosen one of `METHODS`.
    spec: its correction.
    errors: by method, its mean `mismatch` on exposures left out of the fit.
    specs: by method, its correction.
    """

    method: str
    spec: CorrectionSpec
    errors: Mapping[str, float]
    specs: Mapping[str, CorrectionSpec] = field(default_factory=dict)


def fit_transfer(
    exposures: Sequence[ResponseExcerpt],
    reference: RigReference,
    compensation: Compensation | None = None,
) -> Transfer:
    """Fit a rig's correction, by the method that does best on exposures left out.

    Simple methods come first and win ties; one of them is no correction. With a single exposure
    none can be left out, and only a shift is fitted.

    Parameters
    ----------
    exposures: of labels of the model, the more different the better; several may share a label.
    reference: of the model's training rig.
    compensation: was applied to the exposures already, and becomes part of the correction.

    Raises
    ------
    TransferError: no exposure, or one of a label that the model does not know.
    """
    _check(exposures, reference)
    matches = [Match.compute(exposure, reference) for exposure in exposures]
    methods: tuple[str, ...] = METHODS if len(exposures) >= MIN_PAIRED else METHODS[:-1]
    if len(exposures) == 1:
        methods = ("shift",)
    specs = {
        method: dataclasses.replace(
            _fit(method, matches, reference), compensation=compensation or Compensation()
        )
        for method in methods
    }
    if len(exposures) == 1:
        return Transfer("shift", specs["shift"], {}, specs)
    left_out = {method: _left_out(method, exposures, matches, reference) for method in methods}
    best = _best(left_out)
    errors = {method: float(each.mean()) for method, each in left_out.items()}
    return Transfer(best, specs[best], errors, specs)


def _best(left_out: Mapping[str, NDArray[np.float64]]) -> str:
    """Return the method of the least mean error on exposures left out.

    Channels are combined only where that is better by a standard error of the difference: of eight
    references, the mean alone chose it once in five times, which cost windows (.61 right with it,
    .71 without, all folds).
    """
    alone = min(
        (method for method in left_out if method != STANDARDISED),
        key=lambda method: float(left_out[method].mean()),
    )
    if STANDARDISED not in left_out:
        return alone
    gained = left_out[alone] - left_out[STANDARDISED]
    error = gained.std(ddof=1) / math.sqrt(len(gained))
    return STANDARDISED if gained.mean() > error else alone


def mismatch(spec: CorrectionSpec, exposure: ResponseExcerpt, reference: RigReference) -> float:
    """Return how far a corrected exposure is from its label's mean on the training rig, at least 0.

    The mean over channels of -2 ln of the likelihood that the fit maximises, Student's t of the
    features about the label's: a channel that was unlike itself that day counts little more than
    one that is off by a few deviations.
    """
    wanted = reference.mean[reference.labels.index(exposure.label)]
    known = exposure.usable & np.isfinite(wanted[:, 0])
    signal = np.where(known, fill_gaps(exposure.signal), 0.0)
    corrected = round_signals(spec.target + (smooth(signal, spec) - spec.middle) @ spec.matrix.T)
    residuals = features_of(corrected) - np.where(known[:, np.newaxis], wanted, 0.0)
    costs = [
        _cost(residual @ np.linalg.solve(_covariance(reference, k), residual))
        for k, residual in enumerate(residuals)
        if known[k]
    ]
    return float(np.mean(costs)) if costs else 0.0


def _cost(squared: _Number) -> _Number:
    """Return -2 ln of Student's t, up to a constant, of squared Mahalanobis distances."""
    cost: _Number = (_FREEDOM + N_FEATURES) * np.log1p(np.maximum(squared, 0.0) / _FREEDOM)
    return cost


def _check(exposures: Sequence[ResponseExcerpt], reference: RigReference) -> None:
    if not exposures:
        raise TransferError(
            "Fitting a correction needs references: exposures of smells that the model knows. "
            "Capture some first (`scentd calibrate reference LABEL`); four different ones do well."
        )
    unknown = sorted({item.label for item in exposures} - set(reference.labels))
    if unknown:
        raise TransferError(
            f"The model does not know {', '.join(unknown)}, so they cannot be references. It "
            f"knows: {', '.join(reference.labels)}."
        )


def _left_out(
    method: str,
    exposures: Sequence[ResponseExcerpt],
    matches: Sequence[Match],
    reference: RigReference,
) -> NDArray[np.float64]:
    """Return the mismatch of each exposure under a correction fitted on the others."""
    errors = []
    for number, exposure in enumerate(exposures):
        others = [item for place, item in enumerate(matches) if place != number]
        errors.append(mismatch(_fit(method, others, reference), exposure, reference))
    return np.array(errors)


def _fit(method: str, matches: Sequence[Match], reference: RigReference) -> CorrectionSpec:
    if method == "none":
        return CorrectionSpec.identity()
    channels = [_fit_channel(k, matches, reference, method) for k in range(N_GAS)]
    middle, target, gain, own_s = np.array(channels).T
    usable = np.any([np.isfinite(item.level) for item in matches], axis=0)
    response_s = own_s if method in ("shift", "affine") else _shared_response(own_s, usable)
    matrix = np.diag(gain)
    if method == STANDARDISED:
        matrix = _standardise(matches, middle, target, gain)
    wander = np.where(usable, np.nan_to_num(reference.wander), 0.0) / gain**2
    return CorrectionSpec(middle, target, matrix, response_s, wander)


def _shared_response(own_s: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return response times half a channel's own, half the rig's: a housing slows all alike.

    An MQ part has none of its own and takes the rig's. This closed .05 of the gap on folds 0 and 1.
    """
    timed = usable.copy()
    timed[list(_WHOLE_PPM)] = False
    if not timed.any():
        return own_s
    rig_s = own_s[timed].mean()
    shared: NDArray[np.float64] = np.where(timed, 0.5 * (own_s + rig_s), rig_s)
    return np.where(usable, shared, 0.0)


def _fit_channel(
    k: int, matches: Sequence[Match], reference: RigReference, method: str
) -> tuple[float, float, float, float]:
    """Return channel k's middle, target, gain and response time."""
    known = [item for item in matches if np.isfinite(item.level[k])]
    if not known:
        return 0.0, 0.0, 1.0, 0.0
    middle = float(np.mean([item.level[k] for item in known]))
    wanted = float(np.mean([item.wanted[k, 0] for item in known]))
    if method == "shift":
        return middle, wanted, 1.0, 0.0
    ln_gain, shift, response_s = _posterior_mean(
        known, k, _covariance(reference, k), paced=method != "affine" and k not in _WHOLE_PPM
    )
    return middle, wanted + shift, math.exp(ln_gain), response_s


def _covariance(reference: RigReference, k: int) -> NDArray[np.float64]:
    return np.asarray(reference.covariance[k] + np.diag([0.0, *_ROUNDING_VARIANCE]))


def _posterior_mean(
    known: Sequence[Match], k: int, covariance: NDArray[np.float64], *, paced: bool
) -> tuple[float, float, float]:
    """Return channel k's ln gain, shift about the mean levels, and response time in seconds.

    The posterior mean over the grid, under Student's t for the exposures, so that one exposure that
    was unlike its label that day has little weight (Lange, Little & Taylor, Journal of the American
    Statistical Association 84, 1989).
    """
    responses = _RESPONSES_S if paced else _RESPONSES_S[:1]
    precision = np.linalg.inv(covariance)
    levels = np.array([item.level[k] for item in known])
    wanted = np.stack([item.wanted[k] for item in known])
    changes = np.stack([item.changes[k, : len(responses)] for item in known])
    residual = np.empty((*changes.shape[:-1], N_FEATURES))
    moved = np.exp(_FINE) * (levels - levels.mean())[:, np.newaxis]
    residual[..., 0] = (moved - (wanted[:, :1] - wanted[:, 0].mean()))[:, np.newaxis]
    residual[..., 1:] = changes - wanted[:, np.newaxis, np.newaxis, 1:]
    weighted = residual @ precision
    squared = (weighted * residual).sum(axis=-1)[..., np.newaxis]
    squared = squared + 2 * _SHIFTS * weighted[..., :1] + precision[0, 0] * _SHIFTS**2
    cost = _cost(squared).sum(axis=0)
    cost += ((_FINE / _GAIN_SPREAD) ** 2)[:, np.newaxis]
    cost += 2.0 * (responses / _RESPONSE_SPREAD_S)[:, np.newaxis, np.newaxis]
    weight = np.exp(-0.5 * (cost - cost.min()))
    # The grid of response times is uneven: each point has the weight of its interval.
    weight *= np.gradient(_RESPONSES_S)[: len(responses), np.newaxis, np.newaxis]
    weight /= weight.sum()
    return (
        float((weight.sum(axis=(0, 2)) * _FINE).sum()),
        float((weight.sum(axis=(0, 1)) * _SHIFTS).sum()),
        float((weight.sum(axis=(1, 2)) * responses).sum()),
    )


def _standardise(
    matches: Sequence[Match],
    middle: NDArray[np.float64],
    target: NDArray[np.float64],
    gain: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the matrix of direct standardisation.

    Wang, Veltkamp & Kowalski, Analytical Chemistry 63, 1991: every channel of the training rig as
    a linear function of all channels of this one, over the paired levels; ridge towards the
    channel's own gain, so that other channels contribute only with many exposures.
    """
    levels = np.stack([item.level for item in matches]) - middle
    wanted = np.stack([item.wanted[:, 0] for item in matches]) - target
    usable = np.isfinite(levels).all(axis=0) & np.isfinite(wanted).all(axis=0)
    matrix = np.diag(gain)
    x = levels[:, usable]
    rest = wanted[:, usable] - x * gain[usable]
    ridge = _RIDGE * len(matches) * np.eye(int(usable.sum()))
    matrix[np.ix_(usable, usable)] += np.linalg.solve(x.T @ x + ridge, x.T @ rest).T
    return matrix
