"""Calibration: what makes one rig's readings those of the rig that a model was trained on.

May import `hardware`, `models`, `calibration.correction` and numpy; no network, no file, no
clock. References are exposures of labels that the model knows, made on this rig;
`RigReference`, from the model's bundle, says what such exposures looked like on the training
rig. The fit finds the correction under which they look so again.

No sample of the one is a sample of the other: another day, another piece of fruit. So what is
matched is what repeats from recording to recording of a label - the level, and how much a channel
moves within 1 to 50 seconds - each weighted by how well it repeats (`RigReference.covariance`).
Levels of different odours give a channel's gain and shift, as do the sizes of its changes;
changes within a second against changes within a minute give how much slower it is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from calibration.correction import (
    GAS_NAMES,
    N_GAS,
    Compensation,
    CorrectionSpec,
    estimator_taps,
    round_signals,
)
from calibration.rig_reference import (
    LAGS_S,
    MIN_KNOWN_SHARE,
    N_FEATURES,
    ResponseExcerpt,
    RigReference,
    TransferError,
    log_mean_changes,
)
from hardware.channels import CHANNELS, Part, channel_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


MIN_PAIRED = 6
"""Exposures from which on channels are let speak for each other (direct standardisation)."""


_RESPONSES_S = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
_LN_GAINS = np.linspace(-0.9, 0.9, 7)
"""Corrections that are tried out on the references; in between, what they make is interpolated."""
_FINE = np.linspace(-0.9, 0.9, 73)
_SHIFTS = np.linspace(-0.5, 0.5, 21)
_GAIN_SPREAD = 0.2
"""Standard deviation of ln gain between parts, before any reference. Of .15 to .3 it did best for
four references on folds 0 and 1 (.58 and .64 of the gap closed; .54 and .63 at .25)."""
_RESPONSE_SPREAD_S = 0.7
"""Scale of the exponential prior on the seconds by which a channel is slower: a reference of two
minutes says little about it, and too much speed is noise."""
_FREEDOM = 3.0
"""Degrees of freedom of Student's t. Gains came within .17 and .14 of the truth (folds 0 and 1,
four references) against .21 and .17 under a Gaussian; 1 to 6 hardly differ."""
_ROUNDING_VARIANCE = (0.25, 0.06, 0.01, 0.003, 0.0, 0.0)
"""Added to the variance of the mean changes over 1, 2, 5, ... seconds: a converter's steps make
part of those, on either rig, and nothing undoes that. Without it gains come out a third low."""
_RIDGE = 0.3
"""Per exposure, against squared levels of about 1."""
_WHOLE_PPM = tuple(
    k for k, name in enumerate(GAS_NAMES) if CHANNELS[channel_index(name)].part is Part.MQ
)
"""At a few whole ppm, an MQ part's changes within seconds are its converter's: no response time."""

STANDARDISED = "standardised"
METHODS = ("none", "shift", "affine", "paced", STANDARDISED)
"""Nothing; a shift per channel; gain and shift; these and a response time; and a matrix."""


_Number = TypeVar("_Number", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """One exposure under the corrections of a grid, channel by channel.

    Attributes
    ----------
    level: float64[8], median log-conductance as this rig measured it; NaN where unusable.
    wanted: float64[8, N_FEATURES], the label's features on the training rig.
    changes: float64[8, responses, gains, lags], ln mean changes once corrected.
    """

    level: NDArray[np.float64]
    wanted: NDArray[np.float64]
    changes: NDArray[np.float64]

    @classmethod
    def compute(cls, exposure: ResponseExcerpt, reference: RigReference) -> Match:
        """Correct an exposure in every way of the grid and measure what comes of it."""
        wanted = reference.mean[reference.labels.index(exposure.label)]
        level = exposure.features[:, 0]
        level = np.where(np.isfinite(wanted[:, 0]), level, np.nan)
        signal = np.where(np.isfinite(level), fill_gaps(exposure.signal), 0.0)
        middle, target = np.nan_to_num(level), np.nan_to_num(wanted[:, 0])
        coarse = np.empty((len(_RESPONSES_S), len(_LN_GAINS), N_GAS, len(LAGS_S)))
        for r, response_s in enumerate(_RESPONSES_S):
            for g, gain in enumerate(np.exp(_LN_GAINS)):
                spec = _tried(middle, float(gain), float(response_s), reference)
                corrected = target + gain * (smooth(signal, spec) - middle)
                coarse[r, g] = log_mean_changes(round_signals(corrected))
        return cls(level, wanted, _interpolated(coarse.transpose(2, 0, 1, 3)))


def _interpolated(coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read float64[8, responses, gains, lags] at the fine gains, linearly."""
    place = (_FINE - _LN_GAINS[0]) / (_LN_GAINS[1] - _LN_GAINS[0])
    left = np.clip(place.astype(int), 0, len(_LN_GAINS) - 2)
    share = (place - left)[:, np.newaxis]
    fine: NDArray[np.float64] = (1 - share) * coarse[:, :, left] + share * coarse[:, :, left + 1]
    return fine


def _tried(
    middle: NDArray[np.float64], gain: float, response_s: float, reference: RigReference
) -> CorrectionSpec:
    return CorrectionSpec(
        middle=middle,
        target=middle,
        matrix=np.eye(N_GAS),
        response_s=np.full(N_GAS, response_s),
        wander=np.nan_to_num(reference.wander) / gain**2,
    )


def fill_gaps(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return signals float64[n, channels] with every gap at the last value before it."""
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
    """What a fit came to.

    Attributes
    ----------
    method: the chosen one of `METHODS`.
    spec: the correction.
    errors: by method tried, its mean `mismatch` on exposures left out of the fit.
    specs: by method tried, its correction.
    """

    method: str
    spec: CorrectionSpec
    errors: Mapping[str, float]
    specs: Mapping[str, CorrectionSpec] = field(default_factory=dict)


def fit_transfer(
    exposures: Sequence[ResponseExcerpt],
    reference: RigReference,
    compensation: Compensation | None = None,
    matches: Sequence[Match] | None = None,
) -> Transfer:
    """Fit a rig's correction, in the way that does best on exposures left out.

    Simple ways come first and win ties. Nothing is chosen that is worse on those than no
    correction.
    With a single exposure nothing can be left out; a shift is all that it supports.

    Parameters
    ----------
    exposures: of labels of the model, the more different the better; several may share a label.
    reference: of the model's training rig.
    compensation: what was taken off the exposures already, to be taken off readings too.
    matches: of the exposures, where they were made before.

    Raises
    ------
    TransferError: no exposure, or one of a label that the model does not know.
    """
    _check(exposures, reference)
    made = matches or [Match.compute(exposure, reference) for exposure in exposures]
    methods: tuple[str, ...] = METHODS if len(exposures) >= MIN_PAIRED else METHODS[:-1]
    if len(exposures) == 1:
        methods = ("shift",)
    tried = {
        method: dataclasses.replace(
            _fitted(method, made, reference), compensation=compensation or Compensation()
        )
        for method in methods
    }
    if len(exposures) == 1:
        return Transfer("shift", tried["shift"], {}, tried)
    left_out = {method: _left_out(method, exposures, made, reference) for method in methods}
    best = _best(left_out)
    errors = {method: float(each.mean()) for method, each in left_out.items()}
    return Transfer(best, tried[best], errors, tried)


def _best(left_out: Mapping[str, NDArray[np.float64]]) -> str:
    """Return the method of the least mean error on exposures left out.

    Channels speak for each other only where that is better by a standard error of the difference:
    of eight references, the mean alone let them in once in five times, to the loss of windows
    (.61 right with them, .71 without, all folds).
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
    """Return how unlike the training rig's an exposure is once corrected; 0 is its label's mean.

    The mean over channels of -ln of the likelihood that the fit maximises, Student's t of the
    features about the label's: a channel that was not itself that day counts little more than
    one that is off by a few deviations.
    """
    wanted = reference.mean[reference.labels.index(exposure.label)]
    known = np.isfinite(exposure.signal).mean(axis=0) >= MIN_KNOWN_SHARE
    known &= np.isfinite(wanted[:, 0])
    signal = np.where(known, fill_gaps(exposure.signal), 0.0)
    corrected = round_signals(spec.target + (smooth(signal, spec) - spec.middle) @ spec.matrix.T)
    level = np.median(corrected, axis=0)[:, np.newaxis]
    features = np.concatenate([level, log_mean_changes(corrected)], axis=1)
    costs = [
        _cost(residual @ np.linalg.solve(_errors_of(reference, k), residual))
        for k, residual in enumerate(features - np.where(known[:, np.newaxis], wanted, 0.0))
        if known[k]
    ]
    return float(np.mean(costs)) if costs else 0.0


def _cost(squared: _Number) -> _Number:
    """Return -2 ln of Student's t, but for a constant, of squared Mahalanobis distances."""
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
        errors.append(mismatch(_fitted(method, others, reference), exposure, reference))
    return np.array(errors)


def _fitted(method: str, matches: Sequence[Match], reference: RigReference) -> CorrectionSpec:
    if method == "none":
        return CorrectionSpec.identity()
    channels = [_fitted_channel(k, matches, reference, method) for k in range(N_GAS)]
    middle, target, gain, own_s = np.array(channels).T
    heard = np.any([np.isfinite(item.level) for item in matches], axis=0)
    response_s = own_s if method in ("shift", "affine") else _shared_response(own_s, heard)
    matrix = np.diag(gain)
    if method == STANDARDISED:
        matrix = _standardised(matches, middle, target, gain)
    wander = np.where(heard, np.nan_to_num(reference.wander), 0.0) / gain**2
    return CorrectionSpec(middle, target, matrix, response_s, wander)


def _shared_response(own_s: NDArray[np.float64], heard: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return response times half a channel's own, half the rig's: a housing slows all alike.

    An MQ part has none of its own and takes the rig's. It brought .05 of the gap on folds 0 and 1.
    """
    tells = heard.copy()
    tells[list(_WHOLE_PPM)] = False
    if not tells.any():
        return own_s
    rig_s = own_s[tells].mean()
    shared: NDArray[np.float64] = np.where(tells, 0.5 * (own_s + rig_s), rig_s)
    return np.where(heard, shared, 0.0)


def _fitted_channel(
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
        known, k, _errors_of(reference, k), paced=method != "affine" and k not in _WHOLE_PPM
    )
    return middle, wanted + shift, math.exp(ln_gain), response_s


def _errors_of(reference: RigReference, k: int) -> NDArray[np.float64]:
    covariance: NDArray[np.float64] = reference.covariance[k] + np.diag([0.0, *_ROUNDING_VARIANCE])
    return covariance


def _posterior_mean(
    known: Sequence[Match], k: int, covariance: NDArray[np.float64], *, paced: bool
) -> tuple[float, float, float]:
    """Return channel k's ln gain, shift about the mean levels, and response time in seconds.

    The posterior mean over the grid, under Student's t for the exposures: one that was not like
    its label that day is overruled by the others instead of tilting the line (Lange, Little &
    Taylor, Journal of the American Statistical Association 84, 1989).
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
    # The grid of response times is uneven: a point stands for the stretch around it.
    weight *= np.gradient(_RESPONSES_S)[: len(responses), np.newaxis, np.newaxis]
    weight /= weight.sum()
    return (
        float((weight.sum(axis=(0, 2)) * _FINE).sum()),
        float((weight.sum(axis=(0, 1)) * _SHIFTS).sum()),
        float((weight.sum(axis=(1, 2)) * responses).sum()),
    )


def _standardised(
    matches: Sequence[Match],
    middle: NDArray[np.float64],
    target: NDArray[np.float64],
    gain: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the matrix of direct standardisation.

    Wang, Veltkamp & Kowalski, Analytical Chemistry 63, 1991: every channel of the training rig as
    a linear function of all channels of this one, over the paired levels; ridge towards the
    channel's own gain, so that other channels speak only where many exposures let them.
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
