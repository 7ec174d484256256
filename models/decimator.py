"""Models: averaging a faster board down to a model's rate.

May import the channel table and numpy. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decimation_factor(board_hz: float, wanted_hz: float) -> int:
    """Return how many readings of the board are averaged into one at the wanted rate."""
    return max(1, round(board_hz / wanted_hz))


class Decimator:
    """Averages `factor` consecutive samples into one, NaN-aware, whatever the chunking.

    Every `factor` samples, lost ones included, make one group. A group's mean is over its usable
    samples; a group whose samples were all lost counts as one lost sample. Readings are averaged
    as sent, before any logarithm, as a slower board with the same converter would measure.

    Parameters
    ----------
    factor: samples per group; 1 passes everything through.
    longest_gap: lost samples of the input that count towards a group; after more, a new group
        starts at the next sample.
    """

    __slots__ = ("_factor", "_filled", "_group", "_longest_gap", "_lost", "_measured")

    def __init__(self, factor: int, longest_gap: int) -> None:
        self._factor = factor
        self._longest_gap = longest_gap
        self._group = np.full((factor, N_CHANNELS), np.nan, dtype=np.float32)
        self._filled = 0
        self._measured = False
        self._lost = 0

    def feed(
        self, values: NDArray[np.float32], lost: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return float32[n, 12] and the samples lost before each, both at the lower rate."""
        if self._factor == 1:
            return values, lost
        rows: list[NDArray[np.float32]] = []
        gaps: list[int] = []
        start = 0
        for position in np.flatnonzero(lost):
            self._fill(values[start:position], rows, gaps)
            self._skip(int(lost[position]), rows, gaps)
            start = int(position)
        self._fill(values[start:], rows, gaps)
        if not rows:
            return np.empty((0, N_CHANNELS), dtype=np.float32), np.empty(0, dtype=np.int64)
        return np.stack(rows), np.array(gaps, dtype=np.int64)

    def _fill(
        self, values: NDArray[np.float32], rows: list[NDArray[np.float32]], gaps: list[int]
    ) -> None:
        while len(values):
            taken = min(len(values), self._factor - self._filled)
            self._group[self._filled : self._filled + taken] = values[:taken]
            self._filled += taken
            self._measured = True
            values = values[taken:]
            if self._filled == self._factor:
                self._close(rows, gaps)

    def _skip(self, lost: int, rows: list[NDArray[np.float32]], gaps: list[int]) -> None:
        if lost > self._longest_gap:
            self._clear()
            self._lost += max(1, round(lost / self._factor))
            return
        self._filled += lost
        while self._filled >= self._factor:
            left = self._filled - self._factor
            self._close(rows, gaps)
            self._filled = left

    def _close(self, rows: list[NDArray[np.float32]], gaps: list[int]) -> None:
        if self._measured:
            rows.append(_mean_of_usable(self._group))
            gaps.append(self._lost)
            self._lost = 0
        else:
            self._lost += 1
        self._clear()

    def _clear(self) -> None:
        self._group[:] = np.nan
        self._filled = 0
        self._measured = False


def _mean_of_usable(group: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the rows of float32[n, 12] that are numbers, NaN where none is."""
    usable = ~np.isnan(group)
    count = usable.sum(axis=0)
    total = np.where(usable, group, np.float32(0)).sum(axis=0, dtype=np.float64)
    mean: NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(
        np.float32
    )
    return mean
