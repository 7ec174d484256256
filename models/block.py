"""Models: the samples that all readers of one board share until each has read them.

May import the channel table, numpy and models. A reader takes the samples at its own rate, when it
needs them, so that a sample costs little more than its copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS
from models.rate_conversion import RATE_RATIO, RateConverter

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_SAMPLES = 512
"""Capacity of a block: 25 s at 20 Hz. No result depends on it."""


class Block:
    """Samples of the board that not every reader has read yet.

    Attributes
    ----------
    values: float32[BLOCK_SAMPLES, 12], corrected where the rig has a correction, NaN where
        unusable.
    measured: the same, uncorrected.
    lost: int64[BLOCK_SAMPLES], samples lost just before each.
    t_ms: int64[BLOCK_SAMPLES], the samples' times.
    count: samples in the block.
    """

    __slots__ = ("count", "lost", "measured", "t_ms", "values")

    def __init__(self) -> None:
        self.values: NDArray[np.float32] = np.empty((BLOCK_SAMPLES, N_CHANNELS), dtype=np.float32)
        self.measured: NDArray[np.float32] = np.empty_like(self.values)
        self.lost: NDArray[np.int64] = np.zeros(BLOCK_SAMPLES, dtype=np.int64)
        self.t_ms: NDArray[np.int64] = np.zeros(BLOCK_SAMPLES, dtype=np.int64)
        self.count = 0


class BlockReader:
    """One reader's position in the block, and its conversion to another rate.

    Parameters
    ----------
    board_hz: rate of the block.
    wanted_hz: rate of the reader.
    max_hold: lost samples, at the reader's rate, that it bridges.
    rate_ratio: rates over the wanted one that are taken for it.
    as_measured: read the uncorrected values.
    """

    __slots__ = ("_as_measured", "_position", "converter")

    def __init__(
        self,
        board_hz: float,
        wanted_hz: float,
        max_hold: int,
        rate_ratio: tuple[float, float] = RATE_RATIO,
        *,
        as_measured: bool = False,
    ) -> None:
        self._as_measured = as_measured
        self.converter = RateConverter(board_hz, wanted_hz, max_hold, rate_ratio)
        self._position = 0

    def read(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the samples since the last call, at the reader's rate, and the lost ones."""
        start, self._position = self._position, block.count
        values = block.measured if self._as_measured else block.values
        new = slice(start, block.count)
        return self.converter.feed(values[new], block.lost[new], block.t_ms[new])

    def rewind(self) -> None:
        """Start again at the beginning of the block, which has been emptied."""
        self._position = 0
