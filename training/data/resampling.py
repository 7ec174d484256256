"""training/: recordings brought to a model's rate, as the nose does it live.

numpy only. The rule is that of `models.rate_conversion`: faster boards are averaged down, slower
ones interpolated; a board below a quarter of the model's rate cannot feed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS
from models.rate_conversion import Conversion, conversion, convert_recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_PAUSE_S = 600.0
"""A longer pause within a recording is shortened to this: nothing is known of it anyway."""
_MAX_HOLD = 3
"""Lost samples that the nose bridges by default (`PreprocessSpec.max_hold`)."""


def resample(
    values: NDArray[np.float32],
    time_ms: NDArray[np.float64] | None,
    rate_hz: float,
    wanted_hz: float,
) -> NDArray[np.float32] | None:
    """Return readings at another rate; the same array where the rate is close enough.

    Parameters
    ----------
    values: float32[n, 12], NaN where unusable.
    time_ms: float64[n], when they were measured; None: evenly spaced at `rate_hz`.
    rate_hz: of the readings.
    wanted_hz: of the result, whose rows are evenly spaced: lost samples are rows of NaN.

    Returns
    -------
    None where the board is too slow for the wanted rate.
    """
    kind = conversion(rate_hz, wanted_hz)
    if kind is Conversion.IMPOSSIBLE:
        return None
    if kind is Conversion.AVERAGED and round(rate_hz / wanted_hz) <= 1:
        return values
    # The trainer takes the rows of a board that is fast enough as evenly spaced.
    even_ms = np.arange(len(values)) * (1000.0 / rate_hz)
    times_ms = even_ms if time_ms is None or kind is Conversion.AVERAGED else time_ms
    forward = np.flatnonzero(np.diff(np.maximum.accumulate(times_ms), prepend=-np.inf) > 0)
    samples, lost = convert_recording(
        values[forward], np.rint(times_ms[forward]).astype(np.int64), rate_hz, wanted_hz, _MAX_HOLD
    )
    if not lost.any():
        return samples
    place = np.arange(len(samples)) + np.cumsum(np.minimum(lost, LONGEST_PAUSE_S * wanted_hz))
    spaced = np.full((int(place[-1]) + 1, N_CHANNELS), np.nan, dtype=np.float32)
    spaced[place.astype(np.int64)] = samples
    return spaced
