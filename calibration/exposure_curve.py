"""Calibration: the course of an exposure in few points, for people to look at.

May import hardware, models and numpy. Pure. Nothing is learnt from it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from models.signals import GAS_NAMES, log_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardware.recording import Recording

MOST_POINTS = 120
"""Most points of a channel's curve; a screen does not show more."""

CLEAN_AIR_S = 60.0
"""Seconds before an exposure whose median is taken as clean air."""

FEWEST_READINGS = 3
"""Readings before an exposure that are needed for its clean air; with fewer, its own first readings
are taken."""


def exposure_curve(
    recording: Recording, start_ms: int, points: int = MOST_POINTS
) -> dict[str, list[float | None] | list[float]]:
    """Return the log-conductances above those before an exposure.

    Parameters
    ----------
    recording: of the exposure, with readings before it.
    start_ms: time since its first reading at which the exposure begins.
    points: of every channel at most; each is the mean of successive readings.

    Returns
    -------
    `t_s`, seconds since `start_ms` of each point, and the values of every channel that has any, by
    its name; None where it has none.
    """
    t_ms = recording.timestamp_ms
    if t_ms is None:
        t_ms = np.arange(len(recording)) * round(1000.0 / recording.nominal_rate_hz)
    t_s = (t_ms - t_ms[0] - start_ms) / 1000.0
    signals = log_signals(recording.values)
    before = (t_s < 0) & (t_s >= -CLEAN_AIR_S)
    if before.sum() < FEWEST_READINGS:
        before = np.arange(len(t_s)) < FEWEST_READINGS
    edges = np.unique(np.linspace(0, len(t_s), min(points, len(t_s)) + 1).astype(int))[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of no number are NaN
        above = signals - np.nanmedian(signals[before], axis=0)
    curve: dict[str, list[float | None] | list[float]] = {
        "t_s": [round(value, 1) for value in _means(t_s[:, None], edges)[:, 0].tolist()]
    }
    means = _means(above, edges)
    for name, values in zip(GAS_NAMES, means.T, strict=True):
        if np.isfinite(values).any():
            numbers = values.tolist()
            curve[name] = [round(v, 3) if np.isfinite(v) else None for v in numbers]
    return curve


def _means(values: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the means of the finite values float64[n, k] from each edge to the next."""
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), edges, axis=0)
    counts = np.add.reduceat(finite.astype(np.int64), edges, axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
