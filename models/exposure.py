"""Models: onset and end of exposures, from the gas channels.

May import hardware and models.preprocess. Pure: time comes with every sample, constants are
settings of the rig's owner; must know no model and no clock.

Signals are log-conductances, in which a reading's step is a ratio, and are compared in units of
each channel's own noise: its deviation in clean air, and never less than one step of its
converter. A Grove count that alternates between two numbers is not an odour.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

from hardware.channels import (
    CHANNELS,
    GAS_CHANNELS,
    GAS_INDICES,
    GROVE_FULL_SCALE,
    MQ_FLOOR_PPM,
    Part,
    channel_index,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from models.exposure_settings import ExposureSettings


class Phase(Enum):
    """What is known of the air.

    `UNKNOWN` is a start, or a gap, without clean air beforehand: there may be an odour, which only
    a model can tell from clean air.
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
    """One gas channel's running figures, in log-conductance.

    `signal` is smoothed, `unit` the noise, `deviation` the estimated deviation in clean air, `low`
    and `high` the range since the quiet began, `peak` and `trough` the largest distance of an
    exposure and the smallest one after it.
    """

    def __init__(self, index: int, settings: ExposureSettings) -> None:
        self.index = index
        self._grove = CHANNELS[index].part is Part.GROVE
        self._least_noise = settings.least_noise * (1.0 if self._grove else settings.mq_exponent)
        self._settings = settings
        self.seen = False
        self.signal = self.baseline = self._newest = 0.0
        self._deviation = self.slope = self._step = 0.0
        self._value = math.nan
        self.unit = 1.0
        self.low = self.high = 0.0
        self._residue = 0.0
        self.clear_exposure()

    @property
    def distance(self) -> float:
        """Of the signal from the baseline."""
        return abs(self.signal - self.baseline)

    def clear_exposure(self) -> None:
        """Forget the effects of an odour."""
        self._excess_high = self._excess_low = self.peak = self.trough = 0.0

    def set_baseline(self, *, recovered: bool = False) -> None:
        """Use the present signal as clean air; after a recovery a residue of the odour is left."""
        self._residue = self.signal - self.baseline if recovered else 0.0
        self.baseline = self.signal
        self.clear_exposure()

    def update(self, value: float, dt_s: float, signal_gain: float, slope_gain: float) -> None:
        """Add a usable reading, `dt_s` after the one before."""
        if value != self._value:  # a count often repeats
            self._value = value
            self._newest, self._step = self._linearise(value)
        if not self.seen:
            self.seen = True
            self.signal = self.baseline = self.low = self.high = self._newest
            self.unit = self._step
            return
        self.unit = max(self._step, self._deviation, self._least_noise)
        if not self._grove:
            # At a few ppm a single step of clean air is as large as an odour's whole rise.
            self.unit = max(self.unit, math.log1p(math.exp(-self.baseline)))
        moved = signal_gain * (self._newest - self.signal)
        self.signal += moved
        self.slope += slope_gain * (moved / dt_s - self.slope)

    def track(self, gain: float, slow_gain: float, *, learn: bool) -> None:
        """Move the baseline by `gain`, and learn the deviation of clean air from it.

        Away from the air that was clean before a residue it moves by `slow_gain`: that is no rest
        of the recovery, but perhaps the next odour.
        """
        deviation = self.signal - self.baseline
        if deviation * self._residue > 0.0:
            gain = slow_gain
        self.baseline += gain * deviation
        if learn:
            distance = min(abs(deviation), self._settings.largest_deviation * self.unit)
            self._deviation += gain * (_MEAN_TO_SIGMA * distance - self._deviation)

    def is_quiet(self) -> bool:
        """Whether the signal has stayed within `quiet_steps` noise units."""
        signal = self.signal
        if signal < self.low:
            self.low = signal
        elif signal > self.high:
            self.high = signal
        return self.high - self.low <= self._settings.quiet_steps * self.unit

    def departs(self, dt_s: float) -> bool:
        """Two-sided CUSUM of the deviation from the baseline (Page, Biometrika 41, 1954)."""
        allowance, threshold = self._settings.allowance, self._settings.threshold
        deviation = (self.signal - self.baseline) / self.unit
        self._excess_high = max(0.0, self._excess_high + (deviation - allowance) * dt_s)
        self._excess_low = max(0.0, self._excess_low - (deviation + allowance) * dt_s)
        return self._excess_high >= threshold or self._excess_low >= threshold

    def rises_again(self, dt_s: float) -> bool:
        """Whether a recovering channel turns away: the same CUSUM, from its smallest distance."""
        distance = self.distance / self.unit
        self.trough = min(self.trough, distance)
        excess = distance - self.trough - self._settings.allowance
        self._excess_high = max(0.0, self._excess_high + excess * dt_s)
        return self._excess_high >= self._settings.threshold

    def is_back(self) -> bool:
        """Whether the signal has come most of the way back from its largest distance."""
        settings, distance = self._settings, self.distance
        self.peak = max(self.peak, distance)
        near = max(settings.end_fraction * self.peak, settings.recovered * self.unit)
        return distance <= near

    def _linearise(self, value: float) -> tuple[float, float]:
        """Return log-conductance as models.preprocess does, and the size of a converter step."""
        if self._grove:
            count = min(max(value, 1.0), GROVE_FULL_SCALE - 1.0)
            left = GROVE_FULL_SCALE - count
            return math.log(count / left), GROVE_FULL_SCALE / (count * left)
        ppm = max(value, MQ_FLOOR_PPM)
        # The upstream firmware sends whole ppm: at 1 ppm a step is a factor of two.
        return math.log(ppm), math.log1p(1.0 / ppm)


class ExposureDetector:
    """Follows the gas channels and determines the phase of the air.

    Under the hood: each channel is smoothed and compared with a slowly tracked baseline in
    units of its noise; a two-sided CUSUM per channel finds onsets, which any channel may
    start. The end needs all channels that took part to come most of the way back.

    Parameters
    ----------
    settings: times and thresholds.
    skip_warm_up: start in `UNKNOWN`: the sensors are known to be warm.
    assume_exposed: start, and stay, `EXPOSED`: a recording within one exposure.

    Attributes
    ----------
    phase: the present one.
    air_known: whether the baseline was certainly clean air: an exposure began and ended on it.
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
        self._steady_max_s = settings.steady_max_s
        self.reset()

    @property
    def odour_certain(self) -> bool:
        """Whether there is an odour that exceeds slow changes within one."""
        return self.phase is Phase.EXPOSED and self._reached_certain()

    def reset(self) -> None:
        """Start anew, as with a board just switched on."""
        self._channels = [_Channel(channel_index(name), self._settings) for name in GAS_CHANNELS]
        self.phase = Phase.UNKNOWN if self._skip_warm_up else Phase.WARMING_UP
        if self._assume_exposed:
            self.phase = Phase.EXPOSED
        self.air_known = False
        self._baseline_set = False
        self._in_phase_s = self._quiet_for_s = self._back_for_s = self._baseline_age_s = 0.0

    def restart(self) -> None:
        """Start anew with sensors as warm as before: the numbers have another meaning now."""
        warm = self.phase is not Phase.WARMING_UP
        self.reset()
        if warm and self.phase is Phase.WARMING_UP:
            self._enter(Phase.UNKNOWN)

    def begin_exposure(
        self, clean_air: NDArray[np.float64], steady_max_s: float | None = None
    ) -> Change:
        """Begin an exposure above clean air float64[8], known otherwise.

        It ends where the air stays quiet for `steady_max_s`, None for that of the settings.
        """
        for channel in self._channels:
            baseline = float(clean_air[GAS_INDICES.index(channel.index)])
            if math.isfinite(baseline):
                channel.baseline = baseline
        self._baseline_set = True
        self._enter(Phase.EXPOSED)
        self._steady_max_s = steady_max_s or self._settings.steady_max_s
        return Change.ONSET

    def end_presumed(self) -> Change | None:
        """End an exposure whose clean air has proved not to be clean: the air is unknown again."""
        if self._assume_exposed:
            return None
        self._baseline_set = False
        self._quiet_for_s = 0.0
        self._enter(Phase.UNKNOWN)
        return Change.ENDED

    def update(self, values: Sequence[float], dt_s: float, *, named: bool = False) -> Change | None:
        """Add a sample; return what it changed, or None.

        Parameters
        ----------
        values: the board's 12 channels, NaN where unusable.
        dt_s: seconds since the sample before.
        named: a model announces an odour now, so quiet air does not count as clean.
        """
        if self._assume_exposed:
            return None
        self._update_channels(values, dt_s)
        self._in_phase_s += dt_s
        seen = [channel for channel in self._channels if channel.seen]
        if self.phase is Phase.WARMING_UP:
            return self._while_warming_up(seen)
        if self.phase is Phase.EXPOSED:
            return self._while_exposed(seen, dt_s)
        if self.phase is Phase.RECOVERING:
            return self._while_recovering(seen, dt_s)
        return self._while_waiting(seen, dt_s, named=named)

    def _update_channels(self, values: Sequence[float], dt_s: float) -> None:
        settings = self._settings
        if dt_s != self._gains_dt:
            self._gains_dt = dt_s
            self._signal_gain = -math.expm1(-dt_s / settings.smoothing_s)
            self._slope_gain = -math.expm1(-dt_s / settings.slope_s)
        tracks = self.phase in (Phase.WARMING_UP, Phase.UNKNOWN, Phase.AMBIENT)
        # A young baseline follows quickly: the rest of a recovery is not an odour.
        self._baseline_age_s += dt_s
        age_s = min(max(self._baseline_age_s, settings.young_s), settings.baseline_s)
        baseline_gain = dt_s / (age_s + dt_s)
        slow_gain = dt_s / (settings.baseline_s + dt_s)
        learn = self.phase is Phase.AMBIENT
        quiet = True
        for channel in self._channels:
            value = values[channel.index]
            if not math.isfinite(value):
                continue
            channel.update(value, dt_s, self._signal_gain, self._slope_gain)
            quiet &= channel.is_quiet()
            if tracks:
                channel.track(baseline_gain, slow_gain, learn=learn)
        self._quiet_for_s += dt_s
        if not quiet:
            self._quiet_for_s = 0.0
            for channel in self._channels:
                channel.low = channel.high = channel.signal

    def _while_warming_up(self, seen: list[_Channel]) -> Change | None:
        settings = self._settings
        if self._in_phase_s < settings.warm_up_min_s:
            return None
        settled = all(abs(channel.slope) < settings.settled_slope for channel in seen)
        if not settled and self._in_phase_s < settings.warm_up_max_s:
            return None
        self._set_baseline()
        self._enter(Phase.UNKNOWN)
        if self._quiet_for_s >= settings.quiet_s:
            self._baseline_set = True
            self._enter(Phase.AMBIENT)
        return Change.SETTLED

    def _while_waiting(self, seen: list[_Channel], dt_s: float, *, named: bool) -> Change | None:
        """In clean or unknown air."""
        if self._baseline_set:
            departed = [channel.departs(dt_s) for channel in seen]
            if any(departed):
                self._enter(Phase.EXPOSED)
                return Change.ONSET
        quiet = self._quiet_for_s >= self._settings.quiet_s
        if self.phase is Phase.AMBIENT or not quiet or named:
            return None
        if not self._baseline_set:
            self._baseline_set = True
            self._set_baseline()
        self._enter(Phase.AMBIENT)
        return Change.CLEAN

    def _while_exposed(self, seen: list[_Channel], dt_s: float) -> Change | None:
        settings = self._settings
        back = [channel.is_back() for channel in seen]
        self._back_for_s = self._back_for_s + dt_s if all(back) else 0.0
        if self._back_for_s >= settings.back_s:
            self._end()
            return Change.ENDED
        if min(self._quiet_for_s, self._in_phase_s) >= self._steady_max_s:
            self._set_baseline()
            self._enter(Phase.AMBIENT)
            return Change.ENDED
        return None

    def _end(self) -> None:
        self.air_known |= self._reached_certain()
        if not self.air_known:
            # Perhaps only a turn within an odour that was there from the start.
            self._set_baseline()
            self._enter(Phase.UNKNOWN)
            return
        for channel in self._channels:
            channel.clear_exposure()
            channel.trough = channel.distance / channel.unit
        self._enter(Phase.RECOVERING)

    def _reached_certain(self) -> bool:
        certain = self._settings.certain
        return any(channel.peak >= certain * channel.unit for channel in self._channels)

    def _while_recovering(self, seen: list[_Channel], dt_s: float) -> Change | None:
        settings = self._settings
        rose = [channel.rises_again(dt_s) for channel in seen]
        if any(rose):
            self._enter(Phase.EXPOSED)
            return Change.ONSET
        recovered = all(channel.distance <= settings.recovered * channel.unit for channel in seen)
        flat = self._quiet_for_s >= settings.quiet_s
        if recovered or flat or self._in_phase_s >= settings.recovery_max_s:
            self._set_baseline(recovered=True)
            self._enter(Phase.AMBIENT)
            return Change.CLEAN
        return None

    def _set_baseline(self, *, recovered: bool = False) -> None:
        self._baseline_age_s = 0.0
        for channel in self._channels:
            channel.set_baseline(recovered=recovered)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._in_phase_s = self._back_for_s = 0.0
        if phase is Phase.EXPOSED:
            self._steady_max_s = self._settings.steady_max_s
            for channel in self._channels:
                channel.clear_exposure()
