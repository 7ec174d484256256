"""Models: the response of a board: what its channels do above their own clean air.

May import numpy. Pure: log-conductances and clean air in, features out; no clock, no files.

A board's levels tell the board, its responses tell the smell. The direction of the response over
the channels hardly depends on how strong a smell is: by the sensors' power law a concentration
scales all channels' log responses alike to first order (Clifford and Tuma, Sensors and Actuators
3, 1983). Its size and its changes over a few lags say how the exposure goes on. On recordings of
another day of the same rig these features name more than absolute values or lags alone do; the
figures are those of `scent-train rigs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAGS_S = (10.0, 50.0)
"""Seconds of the differences: an onset lasts some ten, a rise about a minute."""

SMALLEST_SIZE = 0.2
"""A response below this, in log-conductance over all channels, has no direction worth the name:
one count of a Grove channel at 100 counts is .01, drift within an hour .1."""


def feature_count(channels: int) -> int:
    """Return how many features a row has."""
    return channels * (2 + len(LAGS_S)) + 1


def response_features(
    signals: NDArray[np.float64], clean_air: NDArray[np.float64], rate_hz: float
) -> NDArray[np.float64]:
    """Return the features of every row of an exposure.

    Parameters
    ----------
    signals : float64[rows, channels]
        Log-conductances from the onset on, evenly spaced; NaN where a channel could not be used.
    clean_air : float64[channels]
        Log-conductance of clean air; what lies before the first row.
    rate_hz : float
        Rows per second.

    Returns
    -------
    float64[rows, `feature_count`]
        Direction of the response, the logarithm of its size, the response, and its changes over
        `LAGS_S`. NaN where the channel is.
    """
    response = signals - clean_air
    size = np.sqrt(np.nansum(response**2, axis=1, keepdims=True))
    bounded = np.maximum(size, SMALLEST_SIZE)
    changes = []
    for lag_s in LAGS_S:
        lag = max(1, round(lag_s * rate_hz))
        before = np.concatenate([np.zeros((lag, response.shape[1])), response])[: len(response)]
        changes.append(response - before)
    return np.concatenate([response / bounded, np.log(bounded), response, *changes], axis=1)
