"""Models: one clock for a stream of frames, its rate, its losses, and decimation.

May import hardware and numpy. Must never read a clock, a port or a file: times come in
as arguments, so a replay takes the very decisions of the live run.

Everything downstream reads `t_ms` alone. `Timeline` makes it from whatever the board
offers; fed with its own output as device clock it gives the same numbers again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from hardware.frames import SensorFrame

ARRIVAL_SPAN = 20
"""Frames over which arrivals are averaged to see a board change its rate: single arrivals say
little, since one read may deliver several frames. Even numbers keep pairs together."""

HOUR_MS = 3_600_000
"""A device clock that leaps this far is broken; a silence is written as at most just less."""

RESTART_GAP_MS = 60_000
"""What a restarted board's first frame advances by: more than any model bridges, even at 0.1 Hz."""

RATE_DIFFERENCES = 8
"""Differences whose median is the first rate: 0.8 s of a 10 Hz board."""

CHANGE_RUN = 9
"""Differences in a row, all off the period to the same side, that make a new rate.

A lossy line or a jittering board leaves the period to both sides or now and then; nine in
a row to one side is a board that was set to another rate.
"""

OFF_PERIOD = 0.25
"""How far, relative to the period, a difference counts as off it."""

NEW_RATE_SPREAD = 0.05
"""How far, relative to it, a rate just changed to may be off and still stand. `Timeline` keeps the
first steps at a new rate near the old one, so a changed rate is measured again by the next ones."""

AGREEING_SPREAD = 0.1
"""Median deviation, relative to the median, up to which the first differences agree."""

LOSS_RATIO = 2.5
"""Among jittering first differences, one this many times the median holds lost samples."""

SHORTEST_PERIOD_MS = 25
"""Boards send at 20 Hz at most. Frames closer than this at the very beginning were waiting in a
buffer when the port was opened, so they say nothing about the rate."""

SLACK = 0.4
"""How much of a period one difference may stray before it would count as a lost sample more."""

ARRIVAL_SILENCE_MS = 500.0
"""Without a device clock, a frame later than this and 1.5 periods is a real gap; less is jitter."""

ARRIVAL_GAIN = 0.1
"""Share of the lateness by which an arrival-timed stream is corrected per frame (a slow
phase-locked loop: USB and scheduler jitter averages out, the board's true rate stays)."""


def lost_samples(dt_ms: int, period_ms: float) -> int:
    """Return how many samples are missing between two that lie `dt_ms` apart."""
    return max(0, round(dt_ms / period_ms) - 1)


class RateMeter:
    """Measures the period of a stream from its own time steps, and notices when it changes.

    Parameters
    ----------
    rate_hz: the rate, when it is known beforehand (`source.rate_hz`); never changes then.

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
        """Take one step per sample; return whether the period is newly known or has changed."""
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
        """Measure a rate just changed to again; return whether it was off."""
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
    """Median of steps that agree; of jittering ones the mean, which jitter moves least.

    Arrival times stray by a whole period at 10 Hz, and a median of eight such steps by
    half of one; their mean is the span over the count. Losses are left out of it.
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

    With a lost count and a device clock, the clock's difference, kept within what the lost
    count allows, so that a clock that jumps or wraps is mended. With a device clock alone,
    its difference; a clock that ran back or leapt an hour is a restart. With neither, the
    arrival time, smoothed: lateness below half a second (or 1.5 periods) is jitter and
    never a loss, more is a gap. A restarted board comes `RESTART_GAP_MS` later.

    Parameters
    ----------
    rate_hz: the rate, when it is known beforehand.
    """

    __slots__ = ("_arrival_offset", "_arrivals", "_device_ms", "_raw", "_t_ms")

    def __init__(self, rate_hz: float | None = None) -> None:
        # Measures what the board says before it is clamped: a board that was set to
        # another rate must be able to leave the clamp of the old one.
        self._raw = RateMeter(rate_hz)
        self._t_ms: int | None = None
        self._device_ms: int | None = None
        self._arrivals: deque[float] = deque(maxlen=ARRIVAL_SPAN + 1)
        self._arrival_offset = 0.0

    @property
    def period_ms(self) -> float | None:
        """The period that frames are held to, None until known."""
        return self._raw.period_ms

    def stamp(self, frame: SensorFrame, arrival_ms: float) -> int:
        """Return the frame's `t_ms`; `arrival_ms` is any steady clock's reading at its arrival."""
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
            # The rate is the owner's word: an accelerated board comes early at every frame.
            self._arrival_offset = arrival_ms - t_ms - period
            return round(period)
        correction = min(max(ARRIVAL_GAIN * late, -SLACK * period), SLACK * period)
        return round(period + correction)
