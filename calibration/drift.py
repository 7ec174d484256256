"""Calibration: whether the sensors have settled, where clean air drifts to, when to recalibrate.

May import `hardware`, `models`, its neighbours and numpy. No clock: the time comes with every
sample. From fast to slow: `Settling` follows the slopes of a warm-up, `BaselineTracker` follows
clean air over hours, and `ControlChart` detects that it has drifted further than by chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_GAS
from models.signals import GAS_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.baseline import Baseline

SHORTEST_WARM_UP_S = 60.0
"""Whatever the slopes are: heaters need it."""

SETTLED_SLOPE_PER_MIN = 0.02
"""Change of ln conductance per minute below which a channel counts as settled."""

SLOPE_SMOOTHING_S = 20.0
SETTLED_HOLD_S = 20.0
"""All channels must stay settled for so long."""

TRACKING_TIME_S = 4 * 3600.0
"""Time constant of the average that follows clean air."""

CHART_WEIGHT = 0.2
"""Of the newest point; a shift of one standard deviation is found in about ten points."""

CHART_WIDTH = 3.5
"""Limits in standard deviations of the average. With eight channels, a false alarm comes once in
some 500 points (Lucas & Saccucci, Technometrics 32, 1990, for one channel: 2,000)."""

CHART_POINT_S = 600.0
"""Clean air is averaged so long for one point: successive points must not be correlated."""

CHART_SCALE = 0.05
"""Standard deviation of such points in ln conductance without drift: weather and ventilation."""


class Settling:
    """Judges, sample by sample, whether the sensors have settled, and which have not.

    Two exponential averages of a signal, one twice as slow as the other, differ by the slope times
    the difference of their time constants, so that no samples need to be kept.
    """

    def __init__(self) -> None:
        self._elapsed_s = self._quiet_s = 0.0
        self._fast = np.full(N_GAS, np.nan)
        self._slow = np.full(N_GAS, np.nan)

    def update(self, signal: NDArray[np.float64], dt_s: float) -> bool:
        """Take log-conductances [8], NaN where unusable; return `settled`."""
        known = np.isfinite(signal)
        first = known & np.isnan(self._fast)
        for average, time_s in (
            (self._fast, SLOPE_SMOOTHING_S),
            (self._slow, 2 * SLOPE_SMOOTHING_S),
        ):
            average[first] = signal[first]
            average[known] -= math.expm1(-dt_s / time_s) * (signal - average)[known]
        self._elapsed_s += dt_s
        self._quiet_s = 0.0 if self.unsettled else self._quiet_s + dt_s
        return self.settled

    @property
    def slopes_per_min(self) -> NDArray[np.float64]:
        """float64[8], change of ln conductance per minute; NaN without a reading."""
        return np.asarray((self._fast - self._slow) / (SLOPE_SMOOTHING_S / 60.0))

    @property
    def unsettled(self) -> tuple[str, ...]:
        """Channels whose slope is still too steep."""
        steep = np.abs(self.slopes_per_min) > SETTLED_SLOPE_PER_MIN
        return tuple(GAS_NAMES[k] for k in np.flatnonzero(steep))

    @property
    def settled(self) -> bool:
        """Whether the shortest time has passed and all slopes have been low for long enough."""
        return self._elapsed_s >= SHORTEST_WARM_UP_S and self._quiet_s >= SETTLED_HOLD_S


class BaselineTracker:
    """Follows clean air, hour by hour, from a baseline on.

    Only samples that the exposure detector calls ambient may be given. The average over several
    hours follows ageing, and an odour that was taken for clean air cannot move it far.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._start = baseline.signal
        self._now = self._start.copy()

    def update(self, signal: NDArray[np.float64], dt_s: float) -> None:
        """Take log-conductances [8] of clean air, NaN where unusable."""
        known = np.isfinite(signal)
        self._now[known] -= math.expm1(-dt_s / TRACKING_TIME_S) * (signal - self._now)[known]

    @property
    def drift(self) -> dict[str, float]:
        """Change of ln conductance since the baseline, by channel."""
        changes = zip(GAS_NAMES, (self._now - self._start).tolist(), strict=True)
        return {name: change for name, change in changes if math.isfinite(change)}


class ControlChart:
    """Detects drift of clean air: an exponentially weighted control chart per channel.

    Roberts, Technometrics 1, 1959. `baseline` is what the rig was calibrated on.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._center = baseline.signal
        self._sigma = np.full(N_GAS, CHART_SCALE)
        for name, channel in baseline.channels.items():
            self._sigma[GAS_NAMES.index(name)] = max(CHART_SCALE, channel.noise)
        self._average = np.zeros(N_GAS)
        self._points = 0
        self._start_point()

    def _start_point(self) -> None:
        self._sum, self._count = np.zeros(N_GAS), np.zeros(N_GAS)
        self._seconds = 0.0

    def update(self, signal: NDArray[np.float64], dt_s: float) -> bool:
        """Take log-conductances [8] of clean air; return whether they completed a point."""
        known = np.isfinite(signal) & np.isfinite(self._center)
        self._sum[known] += signal[known]
        self._count += known
        self._seconds += dt_s
        if self._seconds < CHART_POINT_S:
            return False
        seen = self._count > 0
        deviation = self._sum[seen] / self._count[seen] - self._center[seen]
        self._average[seen] += CHART_WEIGHT * (deviation - self._average[seen])
        self._points += 1
        self._start_point()
        return True

    @property
    def reason(self) -> str | None:
        """Why the rig should be calibrated again, for people; None while no channel has drifted."""
        spread = CHART_WEIGHT / (2 - CHART_WEIGHT) * (1 - (1 - CHART_WEIGHT) ** (2 * self._points))
        limits = CHART_WIDTH * self._sigma * math.sqrt(spread)
        out = np.flatnonzero(np.abs(self._average) > limits)
        if not len(out):
            return None
        worst = max(out, key=lambda k: abs(self._average[k]) / limits[k])
        others = f" ({len(out)} channels are out)" if len(out) > 1 else ""
        return (
            f"{GAS_NAMES[worst]} in clean air reads {math.expm1(self._average[worst]):+.0%} in "
            f"conductance since the baseline; chance takes it to {math.expm1(limits[worst]):.0%}"
            f"{others}"
        )
