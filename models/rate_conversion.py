"""Models: from a board's rate to that of a model.

May import models and numpy. Pure. The one rule for the running nose, for teaching, for the
trainer, and for what `models.requirements` refuses: a faster board is averaged down, a slower one
is interpolated, and one below `SLOWEST_SHARE` of the model's rate cannot feed it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from models.decimator import Decimator, decimation_factor
from models.resampler import Resampler
from models.timing import lost_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOWEST_SHARE = 0.25
"""The slowest board that feeds a model, as a share of the model's rate. Of the shortest lag of the
shipped models, five samples, one reading is left then."""

RATE_ERROR = 0.02
"""Relative error of a measured rate: a board at exactly `SLOWEST_SHARE` must not depend on it."""

LONGEST_PAUSE_S = 600.0
"""A longer pause within a recording is shortened to this: nothing is known of it anyway."""

_MAX_HOLD = 3
"""Lost samples that the nose bridges by default (`PreprocessSpec.max_hold`)."""

RATE_RATIO = (0.7, 1.5)
"""Rates over the wanted one that are taken for it, where a manifest does not say otherwise."""


class Conversion(Enum):
    """How the readings of a board become samples of a model."""

    AVERAGED = "averaged"
    """Over one reading or several."""
    INTERPOLATED = "interpolated"
    IMPOSSIBLE = "impossible"


def conversion(
    board_hz: float, wanted_hz: float, rate_ratio: tuple[float, float] = RATE_RATIO
) -> Conversion:
    """Return how a board's readings are converted to a rate.

    Parameters
    ----------
    board_hz: readings per second.
    wanted_hz: samples per second.
    rate_ratio: the board's rate, divided by a whole number, over the wanted one: the lowest and
        the highest that is taken for it.
    """
    low, high = rate_ratio
    factor = decimation_factor(board_hz, wanted_hz)
    if low <= board_hz / factor / wanted_hz <= high:
        return Conversion.AVERAGED
    slowest_hz = SLOWEST_SHARE * (1.0 - RATE_ERROR) * wanted_hz
    if factor == 1 and board_hz >= slowest_hz:
        return Conversion.INTERPOLATED
    return Conversion.IMPOSSIBLE


class RateConverter:
    """Converts readings to a model's rate, whatever the chunking.

    Where that is impossible, readings are averaged all the same, so that a caller which has no
    use for them need not ask first.

    Parameters
    ----------
    board_hz, wanted_hz, rate_ratio: as in `conversion`.
    max_hold: lost samples, at the wanted rate, that the caller bridges.

    Attributes
    ----------
    rate_hz: samples per second that come out.
    """

    __slots__ = ("_converter", "_factor", "rate_hz")

    def __init__(
        self,
        board_hz: float,
        wanted_hz: float,
        max_hold: int,
        rate_ratio: tuple[float, float] = RATE_RATIO,
    ) -> None:
        self._converter: Decimator | Resampler
        if conversion(board_hz, wanted_hz, rate_ratio) is Conversion.INTERPOLATED:
            self._factor = 1
            self.rate_hz = wanted_hz
            self._converter = Resampler(board_hz, wanted_hz, max_hold)
        else:
            self._factor = decimation_factor(board_hz, wanted_hz)
            self.rate_hz = board_hz / self._factor
            self._converter = Decimator(self._factor, (max_hold + 1) * self._factor)

    def feed(
        self, values: NDArray[np.float32], lost: NDArray[np.int64], t_ms: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return float32[m, 12] and the samples lost before each, both at `rate_hz`.

        Parameters
        ----------
        values: float32[n, 12], readings in order, NaN where unusable.
        lost: int64[n], readings lost just before each.
        t_ms: int64[n], their times, increasing.
        """
        if isinstance(self._converter, Resampler):
            return self._converter.feed(values, lost, t_ms)
        return self._converter.feed(values, lost)

    def readings_for(self, samples: int) -> int:
        """Return the fewest readings that can complete this many further samples.

        The group of readings that is being averaged may lack a single one, and one reading after
        a gap completes several interpolated samples.
        """
        if samples <= 0:
            return 0
        return 1 if isinstance(self._converter, Resampler) else (samples - 1) * self._factor + 1

    def readings_covering(self, samples: int) -> int:
        """Return how many readings certainly span this many samples."""
        return samples * self._factor


def convert_recording(
    values: NDArray[np.float32],
    t_ms: NDArray[np.int64],
    board_hz: float,
    wanted_hz: float,
    max_hold: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a whole recording at another rate, as a model receives it live.

    Parameters
    ----------
    values: float32[n, 12], NaN where unusable.
    t_ms: int64[n], times of the readings, increasing.
    board_hz: readings per second; steps of `t_ms` much longer than that are losses.
    wanted_hz: samples per second.
    max_hold: lost samples, at the wanted rate, that the caller bridges.

    Returns
    -------
    float32[m, 12] and int64[m], the samples lost before each, for `models.preprocess`.
    """
    period_ms = 1000.0 / board_hz
    steps = np.diff(t_ms, prepend=t_ms[:1]).tolist()
    lost = np.array([lost_samples(step, period_ms) for step in steps], dtype=np.int64)
    return RateConverter(board_hz, wanted_hz, max_hold).feed(values, lost, t_ms)


def resample(
    values: NDArray[np.float32],
    time_ms: NDArray[np.float64] | NDArray[np.int64] | None,
    board_hz: float,
    wanted_hz: float,
) -> NDArray[np.float32] | None:
    """Return a whole recording at another rate, evenly spaced; the same array where that is close.

    Parameters
    ----------
    values: float32[n, 12], NaN where unusable.
    time_ms: times of the readings; None: evenly spaced at `board_hz`.
    board_hz: readings per second.
    wanted_hz: rows per second of the result, in which lost samples are rows of NaN.

    Returns
    -------
    None where the board is too slow for the wanted rate.
    """
    kind = conversion(board_hz, wanted_hz)
    if kind is Conversion.IMPOSSIBLE:
        return None
    if kind is Conversion.AVERAGED and round(board_hz / wanted_hz) <= 1:
        return values
    # The rows of a board that is fast enough are taken as evenly spaced.
    even_ms = np.arange(len(values)) * (1000.0 / board_hz)
    times_ms = even_ms if time_ms is None or kind is Conversion.AVERAGED else time_ms
    forward = np.flatnonzero(np.diff(np.maximum.accumulate(times_ms), prepend=-np.inf) > 0)
    samples, lost = convert_recording(
        values[forward], np.rint(times_ms[forward]).astype(np.int64), board_hz, wanted_hz, _MAX_HOLD
    )
    if not lost.any():
        return samples
    place = np.arange(len(samples)) + np.cumsum(np.minimum(lost, LONGEST_PAUSE_S * wanted_hz))
    spaced = np.full((int(place[-1]) + 1, values.shape[1]), np.nan, dtype=np.float32)
    spaced[place.astype(np.int64)] = samples
    return spaced
