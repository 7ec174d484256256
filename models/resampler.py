"""Models: interpolating a slower board up to a model's rate.

May import the channel table and numpy. Pure.

The model's samples lie on a grid of its own, whatever the times of the readings: a board whose
readings come irregularly, or at a rate that is no fraction of the model's, gives evenly spaced
samples. A sample between two readings is known when the second one comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Sampled = tuple[NDArray[np.float32], NDArray[np.int64]]


class Resampler:
    """Linear interpolation in time between readings, whatever the chunking.

    The grid begins at the first reading. Readings are interpolated as sent, before any logarithm.
    A channel that cannot be used in one of two readings gives NaN between them. Where readings
    were lost, the samples up to one period of the board before the next reading count as lost, and
    those of that last period are interpolated over the whole gap. After more than `longest_gap`
    lost samples the grid begins anew at the next reading.

    Parameters
    ----------
    board_hz: rate of the readings.
    wanted_hz: rate of the grid.
    longest_gap: lost samples, at the wanted rate, over which is interpolated.
    """

    __slots__ = ("_lost", "_newest", "_newest_ms", "_next", "_origin_ms", "_period_ms", "_settings")

    def __init__(self, board_hz: float, wanted_hz: float, longest_gap: int) -> None:
        self._settings = 1000.0 / wanted_hz, longest_gap
        self._period_ms = 1000.0 / board_hz
        self._newest: NDArray[np.float64] = np.empty((0, N_CHANNELS))
        self._newest_ms = self._origin_ms = 0.0
        self._next = 0  # number of the next sample on the grid
        self._lost = 0  # samples lost since the latest one

    def feed(
        self, values: NDArray[np.float32], lost: NDArray[np.int64], t_ms: NDArray[np.int64]
    ) -> _Sampled:
        """Return the samples that these readings complete, and those lost before each.

        Parameters
        ----------
        values: float32[n, 12], readings in order, NaN where unusable.
        lost: int64[n], readings lost just before each.
        t_ms: int64[n], their times, increasing.

        Returns
        -------
        float32[m, 12] and int64[m], both at the wanted rate.
        """
        parts: list[_Sampled] = []
        start = 0
        for position in (*np.flatnonzero(lost).tolist(), len(values)):
            parts.append(self._interpolate(values[start:position], t_ms[start:position]))
            if position < len(values):
                self._skip(float(t_ms[position]))
            start = position
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([n for _, n in parts])

    def _skip(self, t_ms: float) -> None:
        """Count the samples lost before a reading at `t_ms`; after too many, begin anew there."""
        if not len(self._newest):
            return
        step_ms, longest_gap = self._settings
        first = max(self._next, self._last_sample(t_ms - self._period_ms) + 1)
        if first - self._next <= longest_gap:
            self._lost += first - self._next
            self._next = first
            return
        self._lost += max(longest_gap + 1, self._last_sample(t_ms - step_ms / 2) + 1 - self._next)
        self._newest = self._newest[:0]

    def _last_sample(self, t_ms: float) -> int:
        """Return the number of the last sample of the grid up to `t_ms`."""
        return int((t_ms - self._origin_ms) // self._settings[0])

    def _interpolate(self, values: NDArray[np.float32], t_ms: NDArray[np.int64]) -> _Sampled:
        """Return the samples up to the last of some readings without a gap before them."""
        if not len(values):
            return np.empty((0, N_CHANNELS), dtype=np.float32), np.empty(0, dtype=np.int64)
        if not len(self._newest):
            self._newest = values[:1].astype(np.float64)
            self._origin_ms = self._newest_ms = float(t_ms[0])
            self._next = 0
        step_ms = self._settings[0]
        readings = np.concatenate([self._newest, values])
        times = np.concatenate([[self._newest_ms], t_ms]).astype(np.float64)
        # Of every reading the last sample up to it: what one call returns does not depend on
        # the readings of the next.
        last = ((times[1:] - self._origin_ms) // step_ms).astype(np.int64)
        counts = np.diff(last, prepend=self._next - 1)
        numbers = np.arange(self._next, last[-1] + 1)
        after = np.repeat(np.arange(1, len(times)), counts)
        self._newest, self._newest_ms = readings[-1:], float(times[-1])
        self._next = int(last[-1]) + 1
        span_ms = np.maximum(times[after] - times[after - 1], 1.0)
        share = (self._origin_ms + numbers * step_ms - times[after - 1]) / span_ms
        share = np.where(times[after] > times[after - 1], share, 1.0)[:, np.newaxis]
        early, late = readings[after - 1], readings[after]
        # A reading at the time of a sample is that sample, usable or not in the one before.
        samples = np.where(share >= 1.0, late, early + share * (late - early)).astype(np.float32)
        gaps = np.zeros(len(samples), dtype=np.int64)
        if len(gaps):
            gaps[0], self._lost = self._lost, 0
        return samples, gaps
