"""Models: a board's readings as log-conductances of all channels that respond to gas.

May import the channel table and numpy. Pure. The order is that of `hardware.channels.GAS_INDICES`:
four Grove channels, three MQ parts, the heater plate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GAS_INDICES, Part
from models.preprocess import Lineariser, PreprocessSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAS_NAMES = tuple(CHANNELS[index].name for index in GAS_INDICES)

GROVE_SIGNALS = tuple(
    place for place, index in enumerate(GAS_INDICES) if CHANNELS[index].part is Part.GROVE
)
"""Places of the Grove channels among the signals."""

_LINEARISE = Lineariser(PreprocessSpec(channels=GAS_NAMES, rate_hz=1.0))


def log_signals(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log-conductances float64[n, 8] of readings float32[n, 12]; NaN stays NaN."""
    return _LINEARISE(values).astype(np.float64)
