"""Calibration: settled or not, where clean air has drifted to, and when to calibrate again.

May import `hardware`, `calibration.baseline` and numpy-free arithmetic only: this runs beside the
live path. No clock: time comes in with every sample. Three things, from fast to slow:
`Settling` watches the slopes of a warm-up, `BaselineTracker` follows clean air over hours, and
`ControlChart` says when it has gone further than chance takes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.correction import GAS_NAMES, N_GAS
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibration.baseline import Baseline


@dataclass(frozen=True, slots=True)
class SettlingSettings:
    """When a warm-up is over.

    Attributes
    ----------
    least_s: shortest warm-up, whatever the slopes say: heaters need it.
    slope_per_min: ln conductance per minute below which a channel counts as settled.
    smoothing_s: time constant of the slopes.
    hold_s: so long all channels must stay settled.
    """

    least_s: float = 60.0
    slope_per_min: float = 0.02
    smoothing_s: float = 20.0
    hold_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.least_s, self.hold_s) < 0 or min(self.slope_per_min, self.smoothing_s) <= 0:
            raise UsageError(
                "Settling needs a slope and a smoothing above zero and times that are not "
                f"negative; got {self}."
            )


class Settling:
    """Says, sample by sample, whether the sensors have settled, and which have not.

    Two exponential averages of a signal, one twice as slow as the other, lie apart by the slope
    times the difference of their time constants; so a slope comes without keeping samples.
    """

    def __init__(self, settings: SettlingSettings | None = None) -> None:
        self._settings = settings or SettlingSettings()
        self.reset()

    def reset(self) -> None:
        """Start anew, as with a board just switched on."""
        self.elapsed_s = 0.0
        self._quiet_s = 0.0
        self._fast: list[float | None] = [None] * N_GAS
        self._slow = [0.0] * N_GAS

    def update(self, signal: Sequence[float], dt_s: float) -> bool:
        """Take log-conductances [8], NaN where unusable, `dt_s` after the last; tell if settled."""
        self.elapsed_s += dt_s
        fast = -math.expm1(-dt_s / self._settings.smoothing_s)
        slow = -math.expm1(-dt_s / (2.0 * self._settings.smoothing_s))
        for k, value in enumerate(signal):
            if not math.isfinite(value):
                continue
            before = self._fast[k]
            if before is None:
                self._fast[k] = self._slow[k] = value
            else:
                self._fast[k] = before + fast * (value - before)
                self._slow[k] += slow * (value - self._slow[k])
        calm = not self.unsettled
        self._quiet_s = self._quiet_s + dt_s if calm else 0.0
        return self.settled

    @property
    def slopes_per_min(self) -> dict[str, float]:
        """Change of ln conductance per minute by channel, of those heard."""
        lag_min = self._settings.smoothing_s / 60.0
        return {
            name: (fast - self._slow[k]) / lag_min
            for k, (name, fast) in enumerate(zip(GAS_NAMES, self._fast, strict=True))
            if fast is not None
        }

    @property
    def unsettled(self) -> tuple[str, ...]:
        """Channels whose slope is still too steep."""
        limit = self._settings.slope_per_min
        return tuple(name for name, slope in self.slopes_per_min.items() if abs(slope) > limit)

    @property
    def settled(self) -> bool:
        """Whether the least time has passed and all slopes have been low for long enough."""
        return self.elapsed_s >= self._settings.least_s and self._quiet_s >= self._settings.hold_s


class BaselineTracker:
    """Follows what clean air reads, hour by hour, from a baseline on.

    Only samples that the exposure detector calls ambient may be given; an exponential average of
    several hours then follows ageing, and no odour that was taken for air can move it far.

    Parameters
    ----------
    baseline: where it starts.
    time_constant_s: of the average.
    """

    def __init__(self, baseline: Baseline, time_constant_s: float = 4 * 3600.0) -> None:
        self._start = baseline.signal.tolist()
        self._now = list(self._start)
        self._time_constant_s = time_constant_s

    def update(self, signal: Sequence[float], dt_s: float) -> None:
        """Take log-conductances [8] of clean air, NaN where unusable."""
        share = -math.expm1(-dt_s / self._time_constant_s)
        for k, value in enumerate(signal):
            if math.isfinite(value) and math.isfinite(self._now[k]):
                self._now[k] += share * (value - self._now[k])

    @property
    def drift(self) -> dict[str, float]:
        """Change of ln conductance since the baseline, by channel."""
        return {
            name: now - start
            for name, now, start in zip(GAS_NAMES, self._now, self._start, strict=True)
            if math.isfinite(start)
        }


@dataclass(frozen=True, slots=True)
class ChartSettings:
    """An exponentially weighted control chart (Roberts, Technometrics 1, 1959).

    Attributes
    ----------
    weight: of the newest point. 0.2 finds a shift of one standard deviation in about ten points.
    width: limits in standard deviations of the average. With eight channels, a false alarm comes
        once in some 500 points at 3.5 (Lucas & Saccucci, Technometrics 32, 1990, for one: 2,000).
    every_s: clean air is averaged this long for one point; points must not resemble each other.
    scale: standard deviation of such points, in ln conductance, that is no drift: what weather
        and a room's ventilation do.
    """

    weight: float = 0.2
    width: float = 3.5
    every_s: float = 600.0
    scale: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1 or min(self.width, self.every_s, self.scale) <= 0:
            raise UsageError(
                "A control chart needs a weight above 0 and up to 1, and a width, a time and a "
                f"scale above zero; got {self}."
            )


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """What the chart says.

    Attributes
    ----------
    recalibrate: whether any channel is out of its limits.
    reason: which and by how much, for people; None while all is well.
    drift: by channel, the chart's average in ln conductance.
    points: how many points went in.
    """

    recalibrate: bool
    reason: str | None
    drift: Mapping[str, float]
    points: int


class ControlChart:
    """Watches clean air and says `recalibrate`, and why.

    Parameters
    ----------
    baseline: what the rig was calibrated on.
    settings: limits.
    """

    def __init__(self, baseline: Baseline, settings: ChartSettings | None = None) -> None:
        self._settings = settings or ChartSettings()
        self._names = [name for name in GAS_NAMES if name in baseline.channels]
        self._columns = [GAS_NAMES.index(name) for name in self._names]
        self._center = [baseline.channels[name].log_conductance for name in self._names]
        self._sigma = [
            max(self._settings.scale, baseline.channels[name].noise) for name in self._names
        ]
        self._average = [0.0] * len(self._names)
        self._sum = [0.0] * len(self._names)
        self._count = [0] * len(self._names)
        self._seconds = 0.0
        self._points = 0

    def update(self, signal: Sequence[float], dt_s: float) -> bool:
        """Take log-conductances [8] of clean air; True where a new point was made."""
        for place, column in enumerate(self._columns):
            if math.isfinite(signal[column]):
                self._sum[place] += signal[column]
                self._count[place] += 1
        self._seconds += dt_s
        if self._seconds < self._settings.every_s:
            return False
        weight = self._settings.weight
        for place, count in enumerate(self._count):
            if count:
                deviation = self._sum[place] / count - self._center[place]
                self._average[place] += weight * (deviation - self._average[place])
        self._sum = [0.0] * len(self._names)
        self._count = [0] * len(self._names)
        self._seconds = 0.0
        self._points += 1
        return True

    @property
    def verdict(self) -> DriftVerdict:
        """What the points so far say."""
        weight = self._settings.weight
        spread = weight / (2 - weight) * (1 - (1 - weight) ** (2 * self._points))
        limits = [self._settings.width * sigma * math.sqrt(spread) for sigma in self._sigma]
        out = [
            (abs(average) / limit, name, average, limit)
            for name, average, limit in zip(self._names, self._average, limits, strict=True)
            if self._points and abs(average) > limit
        ]
        reason = None
        if out:
            _, name, average, limit = max(out)
            others = f" ({len(out)} channels are out)" if len(out) > 1 else ""
            reason = (
                f"{name} in clean air reads {math.expm1(average):+.0%} in conductance since the "
                f"baseline; chance takes it to {math.expm1(limit):.0%}{others}"
            )
        drift = dict(zip(self._names, self._average, strict=True))
        return DriftVerdict(bool(out), reason, drift, self._points)
