"""Simulator: how another day of the same rig differs: its clean air and its fingerprints.

May import the simulator's tables and numpy. Pure: the same board and day give the same shift.

Both shifts are normal in log-conductance, or in the logarithm of a response above clean air, with
the covariances between channels in `days.csv`; `scent-train fingerprints --days` measures them on
real rigs. The exposures of one day differ by the fingerprints that they draw. Day 0 is the day of
the tables, without a shift.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_GAS
from hardware.errors import UsageError
from hardware.simulator.tables import load_day_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a simulated rig.

    Attributes
    ----------
    number: 0 for the day of the tables; every other number is another day.

    Raises
    ------
    UsageError
        A negative number.
    """

    number: int = 0

    def __post_init__(self) -> None:
        if self.number < 0:
            raise UsageError(
                f"A day's number is 0, the day of the simulator's tables, or above; got "
                f"{self.number}."
            )

    def air_shift(self) -> NDArray[np.float64]:
        """Return float64[8], what is added to the log-conductance of clean air."""
        return load_day_spread().clean_air @ self._draw("clean air")

    def response_factor(self, substance: str) -> NDArray[np.float64]:
        """Return float64[8], the factor on what a substance does above clean air."""
        factor: NDArray[np.float64] = np.exp(
            load_day_spread().fingerprint @ self._draw(f"fingerprint of {substance}")
        )
        return factor

    def generator(self, seed: int) -> np.random.Generator:
        """Return the source of what is random within this day."""
        return np.random.default_rng(seed if self.number == 0 else [seed, self.number])

    def _draw(self, what: str) -> NDArray[np.float64]:
        if self.number == 0:
            return np.zeros(N_GAS)
        return np.random.default_rng([zlib.crc32(what.encode()), self.number]).standard_normal(
            N_GAS
        )
