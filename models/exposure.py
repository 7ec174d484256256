"""Models: is there an odour at all? Onset and end of exposures, from the gas channels.

May import hardware, models.preprocess and numpy. Pure: time comes in with every sample,
constants are settings of the rig's owner, no model and no clock enters here.

Everything is judged in log-conductance, where a reading's step is a ratio, and in units of
each channel's own noise: how far it wanders in clean air, and never less than one step of
its converter. A Grove count that flips between two numbers is not an odour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from hardware.channels import CHANNELS, GAS_CHANNELS, GROVE_FULL_SCALE, Part, channel_index
from models.preprocess import MQ_FLOOR_PPM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.exposure_settings import ExposureSettings


class Phase(Enum):
    """What is known of the air.

    `UNKNOWN` is a start, or a gap, without clean air beforehand: there may be an odour,
    and it is told apart from clean air only by what a model makes of it.
    """

    WARMING_UP = "warming_up"
    UNKNOWN = "unknown"
    AMBIENT = "ambient"
    EXPOSED = "exposed"
    RECOVERING = "recovering"


class Change(Enum):
    """What a sample changed."""

    SETTLED = "settled"
    ONSET = "onset"
    ENDED = "ended"
    CLEAN = "clean"


_MEAN_TO_SIGMA = math.sqrt(math.pi / 2)
"""Sigma of a Gaussian over its mean absolute value."""


class _Channel:
    """One gas channel's running figures, in log-conductance."""

    __slots__ = (
        "baseline",
        "excess_high",
        "excess_low",
        "grove",
        "high",
        "index",
        "largest_deviation",
        "last",
        "least_noise",
        "low",
        "peak",
        "seen",
        "signal",
        "slope",
        "step",
        "trough",
        "unit",
        "value",
        "wander",
    )

    def __init__(self, index: int, settings: ExposureSettings) -> None:
        self.index = index
        self.grove = CHANNELS[index].part is Part.GROVE
        self.least_noise = settings.least_noise * (1.0 if self.grove else settings.mq_exponent)
        self.largest_deviation = settings.largest_deviation
        self.seen = False
        self.signal = self.baseline = self.last = 0.0
        self.wander = self.slope = self.step = 0.0
        self.value = math.nan
        self.unit = 1.0
        self.low = self.high = 0.0
        self.clear_exposure()

    def clear_exposure(self) -> None:
        """Forget what an odour did to the channel."""
        self.excess_high = self.excess_low = self.peak = self.trough = 0.0

    def anchor(self) -> None:
        """Take the present signal for clean air."""
        self.baseline = self.signal
        self.clear_exposure()

    def follow(self, value: float, dt_s: float, gains: _Gains) -> None:
        """Take one usable reading, `dt_s` after the one before."""
        if value != self.value:  # a count repeats more often than not
            self.value = value
            self.last, self.step = self._linearise(value)
        if not self.seen:
            self.seen = True
            self.signal = self.baseline = self.low = self.high = self.last
            self.unit = self.step
            return
        self.unit = max(self.step, self.wander, self.least_noise)
        if not self.grove:
            # At a few ppm a single step of clean air is as large as an odour's whole rise.
            self.unit = max(self.unit, math.log1p(math.exp(-self.baseline)))
        moved = gains.signal * (self.last - self.signal)
        self.signal += moved
        self.slope += gains.slope * (moved / dt_s - self.slope)

    def track(self, gain: float, *, learn: bool) -> None:
        """Let the baseline follow by `gain`, and learn how far clean air wanders from it."""
        deviation = self.signal - self.baseline
        self.baseline += gain * deviation
        if learn:
            distance = min(abs(deviation), self.largest_deviation * self.unit)
            self.wander += gain * (_MEAN_TO_SIGMA * distance - self.wander)

    def quiet(self, steps: float) -> bool:
        """Whether the signal is still within `steps` noise units since the quiet began."""
        signal = self.signal
        if signal < self.low:
            self.low = signal
        elif signal > self.high:
            self.high = signal
        return self.high - self.low <= steps * self.unit

    def departs(self, dt_s: float, allowance: float, threshold: float) -> bool:
        """Two-sided CUSUM of the deviation from the baseline (Page, Biometrika 41, 1954)."""
        deviation = (self.signal - self.baseline) / self.unit
        self.excess_high = max(0.0, self.excess_high + (deviation - allowance) * dt_s)
        self.excess_low = max(0.0, self.excess_low - (deviation + allowance) * dt_s)
        return self.excess_high >= threshold or self.excess_low >= threshold

    def rises_again(self, dt_s: float, allowance: float, threshold: float) -> bool:
        """Whether a channel on its way back turns away: the same CUSUM, from its lowest point."""
        distance = abs(self.signal - self.baseline) / self.unit
        self.trough = min(self.trough, distance)
        excess = distance - self.trough - allowance
        self.excess_high = max(0.0, self.excess_high + excess * dt_s)
        return self.excess_high >= threshold

    def _linearise(self, value: float) -> tuple[float, float]:
        """Log-conductance as models.preprocess makes it, and the size of one converter step."""
        if self.grove:
            count = min(max(value, 1.0), GROVE_FULL_SCALE - 1.0)
            left = GROVE_FULL_SCALE - count
            return math.log(count / left), GROVE_FULL_SCALE / (count * left)
        ppm = max(value, MQ_FLOOR_PPM)
        # The upstream firmware sends whole ppm: at 1 ppm a step is a factor of two.
        return math.log(ppm), math.log1p(1.0 / ppm)


@dataclass(frozen=True, slots=True)
class _Gains:
    """Shares by which one sample moves each exponential average."""

    signal: float
    slope: float


class ExposureDetector:
    """Follows the gas channels and says in which phase the air is.

    Under the hood: each channel is smoothed and compared with a slowly tracked baseline in
    units of its noise; a two-sided CUSUM per channel finds onsets, which any channel may
    start. The end needs all channels that took part to come most of the way back.

    Parameters
    ----------
    settings: times and thresholds.
    skip_warm_up: start in `UNKNOWN`: the sensors are known to be warm.
    assume_exposed: start, and stay, `EXPOSED`: a recording cut out of one exposure.
    """

    def __init__(
        self,
        settings: ExposureSettings,
        *,
        skip_warm_up: bool = False,
        assume_exposed: bool = False,
    ) -> None:
        self._settings = settings
        self._skip_warm_up = skip_warm_up
        self._assume_exposed = assume_exposed
        self._gains_dt = 0.0
        self.reset()

    @property
    def phase(self) -> Phase:
        """What is known of the air now."""
        return self._phase

    @property
    def air_known(self) -> bool:
        """Whether the baseline was clean air for certain: an exposure began and ended on it."""
        return self._air_known

    @property
    def odour_certain(self) -> bool:
        """Whether an odour is there now and went further than slow changes within one do."""
        return self._phase is Phase.EXPOSED and self._reached_certain()

    def reset(self) -> None:
        """Start anew, as with a board just switched on."""
        self._channels = [_Channel(channel_index(name), self._settings) for name in GAS_CHANNELS]
        self._phase = (
            Phase.EXPOSED
            if self._assume_exposed
            else Phase.UNKNOWN
            if self._skip_warm_up
            else Phase.WARMING_UP
        )
        self._air_known = False
        self._anchored = False
        self._in_phase_s = self._quiet_for_s = self._back_for_s = self._anchored_for_s = 0.0

    def restart(self) -> None:
        """Forget the air, but not that the sensors are warm: their numbers mean something else."""
        warm = self._phase is not Phase.WARMING_UP
        self.reset()
        if warm and self._phase is Phase.WARMING_UP:
            self._enter(Phase.UNKNOWN)

    def presume_odour(self) -> None:
        """Take back that the air is clean, where it only seemed so and a model names an odour."""
        if self._phase is Phase.AMBIENT and not self._air_known:
            self._enter(Phase.UNKNOWN)

    def update(self, values: Sequence[float], dt_s: float, *, named: bool = False) -> Change | None:
        """Take one sample.

        Parameters
        ----------
        values: the board's 12 channels, NaN where unusable.
        dt_s: seconds since the sample before.
        named: a model announces an odour now, so quiet air is not taken for clean.

        Returns
        -------
        What the sample changed, or None.
        """
        if self._assume_exposed:
            return None
        self._follow(values, dt_s)
        self._in_phase_s += dt_s
        if self._phase is Phase.WARMING_UP:
            return self._while_warming_up()
        if self._phase is Phase.EXPOSED:
            return self._while_exposed(dt_s)
        if self._phase is Phase.RECOVERING:
            return self._while_recovering(dt_s)
        return self._while_waiting(dt_s, named=named)

    def _follow(self, values: Sequence[float], dt_s: float) -> None:
        if dt_s != self._gains_dt:
            self._gains_dt = dt_s
            self._gains = self._gains_for(dt_s)
        gains = self._gains
        waiting = self._phase in (Phase.WARMING_UP, Phase.UNKNOWN, Phase.AMBIENT)
        # A young baseline follows quickly: what is left of a recovery is not an odour.
        self._anchored_for_s += dt_s
        settings = self._settings
        age_s = min(max(self._anchored_for_s, settings.young_s), settings.baseline_s)
        baseline_gain = dt_s / (age_s + dt_s)
        learn = self._phase is Phase.AMBIENT
        quiet = True
        for channel in self._channels:
            value = values[channel.index]
            if not math.isfinite(value):
                continue
            channel.follow(value, dt_s, gains)
            quiet &= channel.quiet(settings.quiet_steps)
            if waiting:
                channel.track(baseline_gain, learn=learn)
        self._quiet_for_s += dt_s
        if not quiet:
            self._quiet_for_s = 0.0
            for channel in self._channels:
                channel.low = channel.high = channel.signal

    def _gains_for(self, dt_s: float) -> _Gains:
        settings = self._settings
        return _Gains(
            signal=-math.expm1(-dt_s / settings.smoothing_s),
            slope=-math.expm1(-dt_s / settings.slope_s),
        )

    def _while_warming_up(self) -> Change | None:
        settings = self._settings
        if self._in_phase_s < settings.warm_up_min_s:
            return None
        seen = [channel for channel in self._channels if channel.seen]
        settled = all(abs(channel.slope) < settings.settled_slope for channel in seen)
        if not settled and self._in_phase_s < settings.warm_up_max_s:
            return None
        self._anchor()
        self._enter(Phase.UNKNOWN)
        if self._quiet_for_s >= settings.quiet_s:
            self._anchored = True
            self._enter(Phase.AMBIENT)
        return Change.SETTLED

    def _while_waiting(self, dt_s: float, *, named: bool) -> Change | None:
        """In clean air, or air of which nothing is known."""
        settings = self._settings
        if self._anchored and self._any_departs(dt_s):
            self._enter(Phase.EXPOSED)
            return Change.ONSET
        quiet = self._quiet_for_s >= settings.quiet_s
        if self._phase is Phase.AMBIENT or not quiet or named:
            return None
        if not self._anchored:
            self._anchored = True
            self._anchor()
        self._enter(Phase.AMBIENT)
        return Change.CLEAN

    def _while_exposed(self, dt_s: float) -> Change | None:
        settings = self._settings
        back = True
        for channel in self._channels:
            if not channel.seen:
                continue
            distance = abs(channel.signal - channel.baseline)
            channel.peak = max(channel.peak, distance)
            near = max(settings.end_fraction * channel.peak, settings.recovered * channel.unit)
            back &= distance <= near
        self._back_for_s = self._back_for_s + dt_s if back else 0.0
        if self._back_for_s >= settings.back_s:
            self._end()
            return Change.ENDED
        if self._quiet_for_s >= settings.steady_max_s:
            self._anchor()
            self._enter(Phase.AMBIENT)
            return Change.ENDED
        return None

    def _end(self) -> None:
        self._air_known |= self._reached_certain()
        if not self._air_known:
            # Perhaps only a turn within an odour that was there from the start.
            self._anchor()
            self._enter(Phase.UNKNOWN)
            return
        for channel in self._channels:
            channel.clear_exposure()
            channel.trough = abs(channel.signal - channel.baseline) / channel.unit
        self._enter(Phase.RECOVERING)

    def _reached_certain(self) -> bool:
        certain = self._settings.certain
        return any(channel.peak >= certain * channel.unit for channel in self._channels)

    def _while_recovering(self, dt_s: float) -> Change | None:
        settings = self._settings
        again, recovered = False, True
        for channel in self._channels:
            if not channel.seen:
                continue
            again |= channel.rises_again(dt_s, settings.allowance, settings.threshold)
            distance = abs(channel.signal - channel.baseline)
            recovered &= distance <= settings.recovered * channel.unit
        if again:
            self._enter(Phase.EXPOSED)
            return Change.ONSET
        flat = self._quiet_for_s >= settings.quiet_s
        if recovered or flat or self._in_phase_s >= settings.recovery_max_s:
            self._anchor()
            self._enter(Phase.AMBIENT)
            return Change.CLEAN
        return None

    def _any_departs(self, dt_s: float) -> bool:
        allowance, threshold = self._settings.allowance, self._settings.threshold
        departed = False
        for channel in self._channels:
            if channel.seen:
                departed |= channel.departs(dt_s, allowance, threshold)
        return departed

    def _anchor(self) -> None:
        self._anchored_for_s = 0.0
        for channel in self._channels:
            channel.anchor()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._in_phase_s = self._back_for_s = 0.0
        if phase is Phase.EXPOSED:
            for channel in self._channels:
                channel.clear_exposure()
