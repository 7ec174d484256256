"""Calibration: what a rig reads in clean air, from a capture that is checked first.

May import `hardware`, `models`, `calibration.correction` and numpy; no file and no clock. A
capture that is too short, drifts or contains an odour is refused, with the channel and the reason,
because responses are measured from it.

Resistances: an MQ part is in a voltage divider, Rs = Vc RL / V - RL, and its maker gives the ratio
Rs / R0 in clean air, so that R0 = Rs_clean / ratio. The firmware of these boards sends
ppm = a (Rs / R0)^b with an R0 of its own, from which Rs is computed.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.correction import Compensation, ambient_deviation, converter_step
from hardware.channels import CHANNELS, GAS_INDICES, N_GAS, Part, channel_index
from hardware.errors import ScentdError
from hardware.mq_curves import MQ_CURVES
from models.signals import GAS_NAMES, log_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_CAPTURE_S = 60.0
"""In a shorter capture a slow drift looks like clean air."""

MIN_CAPTURE_SHARE = 0.9
"""Share of a channel's readings that must be usable."""

MAX_DRIFT_PER_MIN = 0.02
"""ln conductance per minute. A heater just switched on drifts a hundred times faster; clean air
in the boards' recordings of calm rooms stays below 0.005."""

MAX_RANGE = 6.0
"""Range of the smoothed signal, in units of its noise, in clean air: the widest within two minutes
of four hours of simulated clean air is 4.6; the faintest real odour shows 15."""

MIN_SPAN_TENS = 0.3
"""3 %RH or 3 degC: with less variation the effect of humidity or temperature is not fitted."""

_RIDGE_TENS = 0.2
"""Ridge of the compensation: at a variation of 2 %RH or 2 degC the fitted effect is halved."""
_BLOCK_S = 30.0
_MIN_NOISE = 0.015
"""As in `models.exposure`: clean air itself varies by 1.5 % with draughts and humidity."""
_SMOOTHING_S = 5.0


class BaselineError(ScentdError):
    """A capture is not of clean air; the message names the channel and the reason."""


@dataclass(frozen=True, slots=True)
class ChannelBaseline:
    """One channel in clean air.

    Attributes
    ----------
    log_conductance: median, linearised as by `models.preprocess`.
    noise: standard deviation about the smoothed signal, at least half a converter's step.
    drift_per_min: slope in ln conductance per minute.
    rs_kohm, r0_kohm: of an MQ part, else None.
    """

    log_conductance: float
    noise: float
    drift_per_min: float
    rs_kohm: float | None = None
    r0_kohm: float | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A rig in clean air.

    Attributes
    ----------
    channels: by name, the gas channels that the rig has.
    environment: medians of Temperature (degC), Pressure (hPa) and Humidity (%RH), where known.
    seconds: duration of the capture.
    """

    channels: Mapping[str, ChannelBaseline]
    environment: Mapping[str, float]
    seconds: float

    @property
    def signal(self) -> NDArray[np.float64]:
        """float64[8], log-conductance in clean air; NaN for a channel that the rig lacks."""
        return np.array(
            [
                self.channels[name].log_conductance if name in self.channels else np.nan
                for name in GAS_NAMES
            ]
        )


def measure_baseline(values: NDArray[np.float32], rate_hz: float) -> Baseline:
    """Return the baseline of readings float32[n, 12], NaN where unusable.

    A channel without any reading counts as one that the rig does not have.

    Raises
    ------
    BaselineError: too short, no usable channel, or any channel drifts, varies or fails.
    """
    seconds = len(values) / rate_hz
    if seconds < MIN_CAPTURE_S:
        raise BaselineError(
            f"A clean-air baseline needs {MIN_CAPTURE_S:.0f} s, this capture has {seconds:.0f} s. "
            "Let it run longer."
        )
    signal = log_signals(values)
    channels, problems = {}, []
    for k in np.flatnonzero(np.isfinite(signal).any(axis=0)).tolist():
        try:
            channels[GAS_NAMES[k]] = _measure_channel(k, signal[:, k], values, rate_hz)
        except BaselineError as error:
            problems.append(f"{GAS_NAMES[k]} {error}")
    if not channels and not problems:
        problems = ["the board has no usable gas channel"]
    if problems:
        raise BaselineError(
            f"This capture is not of clean air: {'; '.join(problems)}. A channel that drifts is "
            "warming up, recovering or exposed to an odour. Air the room, remove every smell, let "
            "the board run for ten minutes and capture again."
        )
    return Baseline(channels, _environment(values), seconds)


def is_clean_air(values: NDArray[np.float32], baseline: Baseline) -> bool:
    """Whether every channel's median in readings float32[n, 12] lies within `MAX_RANGE` of it."""
    signal = log_signals(values)
    for k, name in enumerate(GAS_NAMES):
        if name in baseline.channels and np.isfinite(signal[:, k]).any():
            clean = baseline.channels[name]
            level = float(np.nanmedian(signal[:, k]))
            unit = max(clean.noise, _step(level, k), _MIN_NOISE)
            if abs(level - clean.log_conductance) > MAX_RANGE * unit:
                return False
    return True


def fit_compensation(captures: Sequence[NDArray[np.float32]], rate_hz: float) -> Compensation:
    """Fit the effect of humidity and temperature on the channels, on clean air alone.

    An odour changes both the humidity and the channels; without one, humidity is the cause. Ridge
    regression of the log-conductances' half-minute means, within and between captures. A quantity
    that did not vary by `MIN_SPAN_TENS` is left out.

    Parameters
    ----------
    captures: clean air, float32[n, 12] each, NaN where unusable, best on several days.
    rate_hz: their rate.
    """
    width = max(1, round(_BLOCK_S * rate_hz))
    air = np.concatenate([_block_means(ambient_deviation(item), width) for item in captures])
    signal = np.concatenate([_block_means(log_signals(item), width) for item in captures])
    slopes = np.zeros((2, N_GAS))
    for k in range(N_GAS):
        known = np.isfinite(air).all(axis=1) & np.isfinite(signal[:, k])
        if not known.any():
            continue
        x = air[known] - air[known].mean(axis=0)
        y = signal[known, k] - signal[known, k].mean()
        varies = np.ptp(x, axis=0) >= MIN_SPAN_TENS
        x = x[:, varies]
        ridge = len(x) * _RIDGE_TENS**2 * np.eye(x.shape[1])
        slopes[varies, k] = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    return Compensation(slopes[0], slopes[1])


def _block_means(rows: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return float64[blocks, columns], NaN where any reading of a block is."""
    whole = rows[: len(rows) // width * width]
    means: NDArray[np.float64] = whole.reshape(-1, width, rows.shape[1]).mean(axis=1)
    return means


def _measure_channel(
    k: int, signal: NDArray[np.float64], values: NDArray[np.float32], rate_hz: float
) -> ChannelBaseline:
    usable = np.isfinite(signal).mean()
    if usable < MIN_CAPTURE_SHARE:
        limit = 1 - MIN_CAPTURE_SHARE
        raise BaselineError(
            f"is unusable in {1 - usable:.0%} of the readings (at most {limit:.0%})"
        )
    level = float(np.nanmedian(signal))
    step, noise = _step(level, k), _noise(signal, rate_hz)
    drift = _slope(signal, rate_hz) * 60.0
    # A steady signal at the edge of a converter's step may change by that step.
    allowed = max(MAX_DRIFT_PER_MIN, 2.0 * step / (len(signal) / rate_hz / 60.0))
    if abs(drift) > allowed:
        raise BaselineError(f"drifts by {_percent(drift)} a minute (at most {_percent(allowed)})")
    smooth = _smoothed(signal, rate_hz)
    span = float(np.nanmax(smooth) - np.nanmin(smooth))
    allowed = MAX_RANGE * max(noise, step, _MIN_NOISE)
    if span > allowed:
        raise BaselineError(f"moves by {_percent(span)} (at most {_percent(allowed)}): an odour")
    rs = r0 = None
    if CHANNELS[GAS_INDICES[k]].part is Part.MQ:
        curve = MQ_CURVES[GAS_NAMES[k]]
        rs = curve.resistance_kohm(float(np.nanmedian(values[:, GAS_INDICES[k]])))
        r0 = rs / curve.clean_air_ratio
    return ChannelBaseline(level, max(noise, step / 2.0), drift, rs, r0)


def _step(level: float, k: int) -> float:
    """Return a step of channel k's converter, in log-conductance at a level."""
    return float(converter_step(np.full(N_GAS, level))[k])


def _slope(signal: NDArray[np.float64], rate_hz: float) -> float:
    """Return the slope per second, between the medians of the first and the last third.

    Medians, so that a single outlier does not change it (Tukey's resistant line, 1977).
    """
    third = len(signal) // 3
    rise = np.nanmedian(signal[-third:]) - np.nanmedian(signal[:third])
    return float(rise / ((len(signal) - third) / rate_hz))


def _smoothed(signal: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """Return the means over spans of `_SMOOTHING_S`."""
    width = max(1, round(_SMOOTHING_S * rate_hz))
    whole = signal[: len(signal) // width * width].reshape(-1, width)
    return np.asarray(np.ma.masked_invalid(whole).mean(axis=1).filled(np.nan))


def _noise(signal: NDArray[np.float64], rate_hz: float) -> float:
    """Return the standard deviation about the smoothed signal."""
    smooth = _smoothed(signal, rate_hz)
    width = max(1, round(_SMOOTHING_S * rate_hz))
    if width == 1:
        return float(np.nanstd(np.diff(signal)) / np.sqrt(2))
    rest = signal[: len(smooth) * width].reshape(-1, width) - smooth[:, np.newaxis]
    return float(np.nanstd(rest) * np.sqrt(width / (width - 1)))


def _environment(values: NDArray[np.float32]) -> dict[str, float]:
    medians = {}
    for name in ("Temperature", "Pressure", "Humidity"):
        column = values[:, channel_index(name)]
        if np.isfinite(column).any():
            medians[name] = round(float(np.nanmedian(column)), 2)
    return medians


def _percent(change: float) -> str:
    return f"{np.expm1(abs(change)):.1%}"
