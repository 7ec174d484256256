"""Simulator: the physics of metal-oxide sensors in changing air. Pure, seeded by its caller.

May import the channel table, this package's tables and numpy. Must know no scenario, clock or
port: every function and object takes time steps in seconds and returns arrays.

Modelled:

- the response to a mixture of gases, by `hardware.mixing_law`;
- a sensor follows its gas with a first-order lag, quicker when the gas comes than when it goes
  (adsorption against desorption), each channel with its own times;
- under a steady gas the oxide relaxes over minutes, as fitted per recording;
- air moves: the eddies of a plume reach all sensors at once, so fluctuations are correlated
  between channels and smooth on the sensor's own time scale;
- the baseline drifts over hours, and humidity raises the conductance a little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import (
    GAS_INDICES,
    GROVE_FULL_SCALE,
    GROVE_INDICES,
    MQ_INDICES,
    N_GAS,
    UINT32_INFINITY,
)
from hardware.simulator.tables import RELAXATION_TIMES_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hardware.simulator.tables import BoardModel, Fingerprint

_MAX_LOG_SIGNAL = 60.0
"""exp(60) is beyond any sensor's range and far from overflow."""

_RELAXATION_TIMES_S = np.array(RELAXATION_TIMES_S)
_GAS = np.array(GAS_INDICES)
_IS_GROVE = np.isin(_GAS, GROVE_INDICES)
_IS_MQ = np.isin(_GAS, MQ_INDICES)


def relaxed_response(fingerprint: Fingerprint, t_s: float, middle_s: float) -> NDArray[np.float64]:
    """Return ln(G / G_air), float64[8], `t_s` seconds into an exposure at full concentration."""
    decay = np.exp(-t_s / _RELAXATION_TIMES_S) - np.exp(-middle_s / _RELAXATION_TIMES_S)
    response: NDArray[np.float64] = fingerprint.response + fingerprint.relaxation @ decay
    return response


class LaggedSensors:
    """Eight first-order sensors that follow a target with their own time constants.

    Parameters
    ----------
    start: float64[8], initial levels.
    recovery_s: float64[8], time constant towards clean air.
    """

    __slots__ = ("_recovery_s", "level")

    def __init__(self, start: NDArray[np.float64], recovery_s: NDArray[np.float64]) -> None:
        self.level = start.copy()
        self._recovery_s = recovery_s

    def step(
        self, target: NDArray[np.float64], rise_s: NDArray[np.float64], dt_s: float
    ) -> NDArray[np.float64]:
        """Advance by `dt_s` and return the new levels; never past the target."""
        leaving_air = np.abs(target) >= np.abs(self.level)
        tau_s = np.where(leaving_air, rise_s, self._recovery_s)
        self.level = self.level + (target - self.level) * -np.expm1(-dt_s / tau_s)
        return self.level


class SmoothNoise:
    """Independent unit-variance processes with the autocorrelation (1 + h/tau) exp(-h/tau).

    An eddy through a sensor: white noise through two first-order lags of the same time. A plain
    first-order (Ornstein-Uhlenbeck) process is rougher than real readings, which windows of lag
    differences show.

    Parameters
    ----------
    times_s: float64[bands], correlation time per band.
    dt_s: seconds per step.
    rng: the only source of randomness.
    width: processes per band.
    """

    __slots__ = ("_decay", "_last", "_rng", "_scale", "_shape", "now")

    def __init__(
        self,
        times_s: NDArray[np.float64],
        dt_s: float,
        rng: np.random.Generator,
        width: int = N_GAS,
    ) -> None:
        self._rng = rng
        self._shape = (len(times_s), width)
        decay = np.exp(-dt_s / times_s)[:, None]
        self._decay = decay
        # Stationary variance of an AR(2) process with a double root.
        self._scale = np.sqrt((1 - decay**2) ** 3 / (1 + decay**2))
        self.now = rng.standard_normal(self._shape)
        next_correlation = 2 * decay / (1 + decay**2)
        self._last = next_correlation * self.now + np.sqrt(
            1 - next_correlation**2
        ) * rng.standard_normal(self._shape)

    def step(self) -> NDArray[np.float64]:
        """Advance one step and return float64[bands, width]."""
        forcing = self._scale * self._rng.standard_normal(self._shape)
        following: NDArray[np.float64] = (
            2 * self._decay * self.now - self._decay**2 * self._last + forcing
        )
        self._last, self.now = self.now, following
        return following


class SlowVariation:
    """Ornstein-Uhlenbeck processes for what changes over minutes to hours: drift and weather.

    Parameters
    ----------
    spread: float64[n], standard deviation of each.
    times_s: float64[n], correlation time of each.
    dt_s: seconds per step.
    rng: the only source of randomness; the processes begin at zero.
    """

    __slots__ = ("_decay", "_rng", "_step_size", "now")

    def __init__(
        self,
        spread: NDArray[np.float64],
        times_s: NDArray[np.float64],
        dt_s: float,
        rng: np.random.Generator,
    ) -> None:
        self._rng = rng
        self._decay = np.exp(-dt_s / times_s)
        self._step_size = spread * np.sqrt(1 - self._decay**2)
        self.now: NDArray[np.float64] = np.zeros(len(spread))

    def step(self) -> NDArray[np.float64]:
        """Advance one step and return float64[n]."""
        noise = self._rng.standard_normal(len(self.now))
        self.now = self._decay * self.now + self._step_size * noise
        return self.now


def mixed_loadings(
    board: BoardModel, names: Sequence[str], weights: Sequence[float]
) -> NDArray[np.float64]:
    """Return loadings, float64[bands + 1, 8, 8], whose covariance is the weighted mean.

    Parameters
    ----------
    board: with each substance's own loadings.
    names: substances in the air.
    weights: of each; only their proportions matter.
    """
    if len(names) == 1:
        return board.loadings[names[0]]
    share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    stacked = np.stack([board.loadings[name] for name in names])
    covariance = np.einsum("s,sbij,sbkj->bik", share, stacked, stacked)
    values, vectors = np.linalg.eigh(covariance)
    # The symmetric root changes smoothly with its matrix, so a change of air causes no jump.
    root: NDArray[np.float64] = np.einsum(
        "bij,bj,bkj->bik", vectors, np.sqrt(np.maximum(values, 0.0)), vectors
    )
    return root


def gas_readings(
    log_conductance: NDArray[np.float64], fluctuation: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return what the eight gas channels send, float32[8], quantised as the real parts do.

    Parameters
    ----------
    log_conductance: float64[8]; of a Grove part the logit of its count, of an MQ part ln ppm,
        of the BME680 minus ln kOhm.
    fluctuation: float64[8], added to a log-conductance; to an MQ part's ppm as a fraction,
        because its number is small and its noise is not.
    """
    noisy = np.clip(log_conductance + fluctuation, -_MAX_LOG_SIGNAL, _MAX_LOG_SIGNAL)
    count = np.rint(GROVE_FULL_SCALE / (1.0 + np.exp(-noisy)))
    ppm = np.rint(
        np.exp(np.clip(log_conductance, -_MAX_LOG_SIGNAL, _MAX_LOG_SIGNAL))
        * np.maximum(1.0 + fluctuation, 0.0)
    )
    kilohm = np.round(np.exp(-noisy), 2)
    readings = np.where(
        _IS_GROVE, count, np.where(_IS_MQ, np.minimum(ppm, UINT32_INFINITY), kilohm)
    )
    return readings.astype(np.float32)


def place_gas_readings(values: NDArray[np.float32], readings: NDArray[np.float32]) -> None:
    """Write float32[8] of gas readings into their places in float32[12] of a whole board."""
    values[_GAS] = readings
