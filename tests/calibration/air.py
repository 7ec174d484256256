"""Simulated readings for the tests of calibration: clean air and exposures, drawn by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.correction import to_readings
from hardware.channels import GAS_INDICES, N_GAS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = np.array([-2.0, -1.5, -0.8, 0.6, 2.2, 3.4, 2.5, -4.0])
"""Log-conductances of the gas channels in clean air."""


def frames(signals: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the readings of log-conductances float64[n, 8], in a steady environment."""
    values = np.empty((len(signals), 12), np.float32)
    values[:, [7, 8, 9, 11]] = [25.5, 1013.0, 28.5, 0.0]
    values[:, GAS_INDICES] = to_readings(signals)
    return values


def clean_air(seconds: int, *, seed: int = 0, noise: float = 0.003) -> NDArray[np.float32]:
    """Return clean air at 1 Hz, float32[seconds, 12]."""
    rng = np.random.default_rng(seed)
    return frames(LEVELS + noise * rng.standard_normal((seconds, N_GAS)))


def odour(label: int, *, take: int = 0, seconds: int = 300) -> NDArray[np.float64]:
    """Return the log-conductances float64[seconds, 8] of one exposure to odour number `label`.

    An odour sets the level of each channel and the size of its changes; takes differ a little.
    """
    character = np.random.default_rng([7, label])
    rng = np.random.default_rng([label, take])
    level = LEVELS + character.uniform(0.2, 2.0, N_GAS) + 0.05 * rng.standard_normal(N_GAS)
    size = character.uniform(0.02, 0.06, N_GAS) * np.exp(0.1 * rng.standard_normal(N_GAS))
    walk = np.zeros((seconds, N_GAS))
    for second in range(1, seconds):
        walk[second] = 0.97 * walk[second - 1] + size * rng.standard_normal(N_GAS)
    return level + walk
