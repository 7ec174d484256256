"""Trainer: responses of simulated rigs, as rows, without the readings that they come from.

May import the simulator's parts, models and numpy. A general encoder needs thousands of exposures
of hundreds of rigs; the simulator's readings, one by one, would take hours. The response above
clean air follows from the same tables: fingerprints, their shift between days, sensitivities
and lags of the parts (`hardware.simulator.other_rig`). Load resistors and levels of clean air
cancel in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_GAS
from hardware.simulator.days import Day
from hardware.simulator.other_rig import OtherRig
from hardware.simulator.response import relaxed_response
from hardware.simulator.tables import load_board
from models.response import LAGS_S, ROW_S, ResponseRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 120
"""Of an exposure: ten minutes."""
DAYS = 1000
"""Days of a rig that are told apart: day n of rig r is the simulator's day 1 + n + r * DAYS."""

STRENGTH = 0.35
"""Standard deviation of the logarithm of a response between exposures: distance and amount."""
AIR_ERROR = 0.03
"""Standard deviation of clean air as it was measured, per channel, in log-conductance."""
NOISE = 0.02
"""Standard deviation of a row, in log-conductance: one count of a Grove channel at 100 is .01."""


def simulate_rows(
    rig: int, day: int, substance: str, rng: np.random.Generator, rows: int = ROWS
) -> ResponseRows:
    """Return one exposure of a random rig from its onset on.

    Parameters
    ----------
    rig: seed of the rig, as in `scentd simulate --rig`.
    day: its number, below `DAYS`.
    substance: one of the simulator's.
    rng: of the exposure.
    rows: how many.
    """
    board = load_board()
    parts = OtherRig.random(rig).parts
    fingerprint = board.fingerprints[substance][rng.integers(len(board.fingerprints[substance]))]
    t_s = ROW_S * (1 + np.arange(rows))
    steady = np.stack([relaxed_response(fingerprint, float(at), board.middle_s) for at in t_s])
    lag_s = fingerprint.rise_s + np.array([part.response_s for part in parts])
    gamma = np.array([part.gamma for part in parts])
    factor = Day(1 + day + rig * DAYS).response_factor(substance)
    strength = np.exp(STRENGTH * rng.standard_normal())
    rising = -np.expm1(-t_s[:, None] / np.maximum(lag_s, 0.1))
    response = gamma * factor * strength * steady * rising
    response += AIR_ERROR * rng.standard_normal(N_GAS)
    response += NOISE * rng.standard_normal(response.shape)
    return ResponseRows(response, np.stack([_change(response, lag) for lag in LAGS_S], axis=1))


def _change(response: NDArray[np.float64], lag_s: float) -> NDArray[np.float64]:
    """Return the change over a lag; before the first row there is clean air, a response of 0."""
    rows = round(lag_s / ROW_S)
    before = np.concatenate([np.zeros((rows, response.shape[1])), response])[: len(response)]
    change: NDArray[np.float64] = response - before
    return change
