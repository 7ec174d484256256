"""training/: recordings brought to a model's rate: averaged down, or interpolated where slower.

numpy only. The value between two readings is a straight line between them, which a live stream
knows when the second reading comes; nothing later is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.decimator import Decimator, decimation_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOWEST_AS_IT_IS = 0.7
"""A rate from this share of the model's on is used as it is, as the daemon does
(`Manifest.rate_ratio`)."""
LONGEST_LINE_S = 10.0
"""Between readings further apart, and more than three periods, nothing is known: NaN."""
_PERIODS = 3.0


def resample(
    values: NDArray[np.float32],
    time_ms: NDArray[np.float64] | None,
    rate_hz: float,
    wanted_hz: float,
) -> NDArray[np.float32]:
    """Return readings at another rate; the same array where the rate is close enough.

    Parameters
    ----------
    values: float32[n, 12], NaN where unusable.
    time_ms: float64[n], when they were measured; None: evenly spaced at `rate_hz`.
    rate_hz: of the readings.
    wanted_hz: of the result.
    """
    factor = decimation_factor(rate_hz, wanted_hz)
    if factor > 1:
        none_lost = np.zeros(len(values), dtype=np.int64)
        return Decimator(factor, factor).feed(values, none_lost)[0]
    if rate_hz >= SLOWEST_AS_IT_IS * wanted_hz:
        return values
    even_ms = np.arange(len(values), dtype=np.float64) * (1000.0 / rate_hz)
    return _interpolate(values, even_ms if time_ms is None else time_ms, rate_hz, wanted_hz)


def _interpolate(
    values: NDArray[np.float32],
    time_ms: NDArray[np.float64],
    rate_hz: float,
    wanted_hz: float,
) -> NDArray[np.float32]:
    forward = np.flatnonzero(time_ms > np.maximum.accumulate(np.r_[-np.inf, time_ms[:-1]]))
    seconds = (time_ms[forward] - time_ms[forward[0]]) / 1000.0
    wanted_s = np.arange(0.0, seconds[-1] + 1e-9, 1.0 / wanted_hz)
    after = np.clip(np.searchsorted(seconds, wanted_s), 1, max(len(seconds) - 1, 1))
    longest_s = max(LONGEST_LINE_S, _PERIODS / rate_hz)
    unknown = np.diff(seconds)[after - 1] > longest_s if len(seconds) > 1 else False
    result = np.full((len(wanted_s), values.shape[1]), np.nan, dtype=np.float32)
    for column in range(values.shape[1]):
        # A missing reading stays missing on both sides of it: NaN enters the straight line.
        result[:, column] = np.interp(wanted_s, seconds, values[forward, column])
    result[unknown] = np.nan
    return result
