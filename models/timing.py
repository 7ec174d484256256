"""Models: the time of every reading, and the rate of the board.

May import hardware and numpy. Must never read a clock, a port or a file: times are arguments, so
a replay decides as the live run did.

Everything else uses `t_ms` alone. `Timeline` computes it from what the board sends; with its own
output as the device clock it gives the same numbers again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from hardware.frames import SensorFrame

ARRIVAL_SPAN = 20
"""Frames over which arrivals are averaged to detect another rate, since one read may deliver
several frames. An even number keeps pairs together."""

HOUR_MS = 3_600_000
"""A device clock that jumps this far is wrong; a silence counts as at most just less."""

RESTART_GAP_MS = 60_000
"""Step to a restarted board's first frame: more than any model bridges, even at 0.1 Hz."""

RATE_DIFFERENCES = 8
"""Differences whose median is the first rate: 0.8 s of a 10 Hz board."""

CHANGE_RUN = 9
"""Differences in a row, all longer or all shorter than the period, that make a new rate.

Losses and jitter deviate to both sides or now and then; nine in a row to one side is a board that
was set to another rate.
"""

OFF_PERIOD = 0.25
"""Relative deviation from the period from which a difference counts as longer or shorter."""

NEW_RATE_SPREAD = 0.05
"""Relative error up to which a new rate is kept. `Timeline` keeps the first steps at a new rate
near the old one, so the rate is measured again by the next ones."""

AGREEING_SPREAD = 0.1
"""Median deviation, relative to the median, up to which the first differences agree."""

LOSS_RATIO = 2.5
"""Among jittering first differences, one this many times the median contains lost samples."""

SHORTEST_PERIOD_MS = 25
"""Boards send at 20 Hz at most. Frames closer than this at the beginning had been waiting in a
buffer when the port was opened, and are not used for the rate."""

SLACK = 0.4
"""Share of a period by which one difference may deviate before it counts as another lost sample."""

ARRIVAL_SILENCE_MS = 500.0
"""Without a device clock, a frame later than this and 1.5 periods is a real gap; less is jitter."""

ARRIVAL_GAIN = 0.1
"""Share of the lateness by which a stream without a device clock is corrected per frame (a slow
phase-locked loop: USB and scheduler jitter averages out, the board's true rate remains)."""


def lost_samples(dt_ms: int, period_ms: float) -> int:
    """Return how many samples are missing between two that are `dt_ms` apart."""
    return max(0, round(dt_ms / period_ms) - 1)


class RateMeter:
    """Measures the period of a stream from its time steps, and detects another one.

    Parameters
    ----------
    rate_hz: the rate where it is given (`source.rate_hz`); it never changes then.

    Attributes
    ----------
    period_ms: the period, None until known.
    fixed: whether the rate was given.
    """

    __slots__ = ("_check", "_run", "_seen", "_side", "fixed", "period_ms")

    def __init__(self, rate_hz: float | None = None) -> None:
        self.period_ms: float | None = None if rate_hz is None else 1000.0 / rate_hz
        self.fixed = rate_hz is not None
        self._seen: list[float] = []
        self._run: deque[float] = deque(maxlen=CHANGE_RUN)
        self._check: list[float] | None = None
        self._side = 0

    @property
    def rate_hz(self) -> float | None:
        """Samples per second, None until known."""
        return None if self.period_ms is None else 1000.0 / self.period_ms

    def observe(self, dt_ms: float) -> bool:
        """Add a sample's time step; return whether the period is newly known or has changed."""
        if self.fixed:
            return False
        if self.period_ms is None:
            return self._learn(dt_ms)
        off = dt_ms / self.period_ms - 1.0
        if -OFF_PERIOD <= off <= OFF_PERIOD:
            self._side = 0
            return self._confirm(dt_ms, self.period_ms)
        side = 1 if off > 0 else -1
        if side != self._side:
            self._run.clear()
            self._side = side
        self._run.append(dt_ms)
        if len(self._run) < CHANGE_RUN:
            return False
        self.period_ms = max(1.0, _median(self._run))
        self._side = 0
        self._check = []
        return True

    def _confirm(self, dt_ms: float, period_ms: float) -> bool:
        """Measure a new rate again; return whether it was wrong."""
        if self._check is None:
            return False
        self._check.append(dt_ms)
        if len(self._check) < CHANGE_RUN:
            return False
        measured_ms = max(1.0, _typical(self._check))
        self._check = None
        if abs(measured_ms / period_ms - 1.0) <= NEW_RATE_SPREAD:
            return False
        self.period_ms = measured_ms
        return True

    def _learn(self, dt_ms: float) -> bool:
        if not self._seen and dt_ms < SHORTEST_PERIOD_MS:
            return False
        self._seen.append(dt_ms)
        if len(self._seen) < RATE_DIFFERENCES:
            return False
        self.period_ms = max(1.0, _typical(self._seen))
        self._seen.clear()
        return True


def _typical(differences: list[float]) -> float:
    """Return the median of steps that agree; of jittering ones the mean, without losses.

    Arrival times vary by a whole period at 10 Hz, and a median of eight such steps by half of
    one; their mean is the span over the count.
    """
    median = _median(differences)
    spread = _median([abs(step - median) for step in differences])
    if spread <= AGREEING_SPREAD * median:
        return median
    return float(np.mean([step for step in differences if step <= LOSS_RATIO * median]))


def _median(values: Collection[float]) -> float:
    # np.median loads numpy.ma, and the standard library's loads fractions and decimal: 1.5 MB of
    # a service that needs neither.
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class Timeline:
    """Gives every frame an integer `t_ms`, milliseconds since the first, always increasing.

    With a lost count and a device clock, the clock's difference, limited to what the lost count
    allows, which corrects a clock that jumps or wraps. With a device clock alone, its difference;
    a clock that ran back or jumped an hour is a restart. With neither, the smoothed arrival time:
    lateness below half a second (or 1.5 periods) is jitter and never a loss, more is a gap. A
    restart advances by `RESTART_GAP_MS`.

    Parameters
    ----------
    rate_hz: the rate where it is given.
    """

    __slots__ = ("_arrival_offset", "_arrivals", "_device_ms", "_raw", "_t_ms")

    def __init__(self, rate_hz: float | None = None) -> None:
        # Measures the unlimited steps: a board that was set to another rate must be able to
        # leave the limits of the old one.
        self._raw = RateMeter(rate_hz)
        self._t_ms: int | None = None
        self._device_ms: int | None = None
        self._arrivals: deque[float] = deque(maxlen=ARRIVAL_SPAN + 1)
        self._arrival_offset = 0.0

    @property
    def period_ms(self) -> float | None:
        """The period to which steps are limited, None until known."""
        return self._raw.period_ms

    def stamp(self, frame: SensorFrame, arrival_ms: float) -> int:
        """Return the frame's `t_ms`; `arrival_ms` is a steady clock at its arrival."""
        if self._t_ms is None:
            t_ms = 0
        else:
            step = self._step(frame, arrival_ms, self._t_ms)
            t_ms = self._t_ms + min(max(1, step), HOUR_MS - 1)
        if frame.device_ms is not None or frame.restarted or self._t_ms is None:
            self._arrival_offset = arrival_ms - t_ms
        self._device_ms = frame.device_ms
        self._arrivals.append(arrival_ms)
        self._t_ms = t_ms
        return t_ms

    def _step(self, frame: SensorFrame, arrival_ms: float, t_ms: int) -> int:
        if frame.restarted:
            return RESTART_GAP_MS
        if frame.device_ms is None or self._device_ms is None:
            return self._step_of_arrival(arrival_ms, t_ms)
        difference = frame.device_ms - self._device_ms
        if frame.lost_before is None:
            return self._step_of_clock(difference)
        return self._step_of_sequence(difference, frame.lost_before)

    def _step_of_clock(self, difference: int) -> int:
        if 0 < difference < HOUR_MS:
            self._raw.observe(difference)
            return difference
        if difference == 0:
            return round(self.period_ms or 1)
        return RESTART_GAP_MS

    def _step_of_sequence(self, difference: int, lost: int) -> int:
        sane = 0 < difference < HOUR_MS
        if sane:
            self._raw.observe(difference / (lost + 1))
        period = self.period_ms
        if period is None:
            return difference if sane else SHORTEST_PERIOD_MS
        if not sane:
            return round((lost + 1) * period)
        lowest = int((lost + 1 - SLACK) * period) + 1
        highest = int((lost + 1 + SLACK) * period)
        return min(max(difference, lowest), highest)

    def _step_of_arrival(self, arrival_ms: float, t_ms: int) -> int:
        since = arrival_ms - self._arrival_offset - t_ms
        period = self.period_ms
        if period is None:
            self._raw.observe(arrival_ms - self._arrivals[-1])
            return round(since)
        late = since - period
        if late > max(ARRIVAL_SILENCE_MS, 1.5 * period):
            self._raw.observe(arrival_ms - self._arrivals[-1])
            self._arrivals.clear()
            return round(since)
        if len(self._arrivals) > ARRIVAL_SPAN:
            mean = (arrival_ms - self._arrivals[1]) / ARRIVAL_SPAN
            if mean >= SHORTEST_PERIOD_MS:
                self._raw.observe(mean)
        if self._raw.fixed and late < 0:
            # The rate is given: an accelerated board is early at every frame.
            self._arrival_offset = arrival_ms - t_ms - period
            return round(period)
        correction = min(max(ARRIVAL_GAIN * late, -SLACK * period), SLACK * period)
        return round(period + correction)
