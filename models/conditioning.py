"""Models: from a board's reading to usable, corrected values with their time and rate.

May import hardware and models. Pure: no clock and no port. The first step of the nose and of
enrolment, so that what a rig is taught passes the same channel health and correction as live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hardware.health import ChannelHealth
from models.channel_watch import ChannelWatch
from models.timing import RateMeter, Timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardware.frames import SensorFrame
    from models.correction import Correction


class ConditionedReading(NamedTuple):
    """A reading ready for exposure detection and models.

    Attributes
    ----------
    t_ms: its time, milliseconds since the first reading.
    frame_seq: of the board.
    step_ms: since the reading before, 0 for the first.
    quality: uint8[12] of `Quality`, channel health included.
    measured: float32[12], NaN where unusable.
    values: the same, corrected where the rig has a correction.
    rate_changed: whether the board's rate is newly known or has changed.
    """

    t_ms: int
    frame_seq: int
    step_ms: int
    quality: NDArray[np.uint8]
    measured: NDArray[np.float32]
    values: NDArray[np.float32]
    rate_changed: bool


class Conditioner:
    """Clock, channel health, rate and correction of one board.

    Parameters
    ----------
    rate_hz: the board's rate where it is given; measured otherwise.
    correction: of the rig's readings, or None.
    forget_after_s: a correction forgets the readings before a gap this long.

    Attributes
    ----------
    correction: may be replaced between two readings.
    meter: the board's rate.
    watch: which channels can be used.
    """

    def __init__(
        self, rate_hz: float | None, correction: Correction | None, forget_after_s: float
    ) -> None:
        self.correction = correction
        self.meter = RateMeter(rate_hz)
        self.watch = ChannelWatch()
        self._forget_after_s = forget_after_s
        self._timeline = Timeline(rate_hz)
        self._health = ChannelHealth()
        self._newest_ms: int | None = None

    def take_over(self, other: Conditioner) -> None:
        """Continue the clock and channel health of another one, between two readings."""
        self._timeline = other._timeline
        self._health = other._health

    def process(
        self, frame: SensorFrame, arrival_ms: float, t_ms: int | None = None
    ) -> ConditionedReading:
        """Process the next reading; `t_ms` is its time where that is already known."""
        if t_ms is None:
            t_ms = self._timeline.stamp(frame, arrival_ms)
        step_ms = 0 if self._newest_ms is None else t_ms - self._newest_ms
        self._newest_ms = t_ms
        quality = self._health.assess(frame, t_ms)
        measured = frame.values
        unusable = self.watch.update(quality, t_ms)
        if unusable:
            measured = measured.copy()
            measured[unusable] = np.nan
        values = measured
        if self.correction is not None:
            step_s = step_ms / 1000.0
            if step_s >= self._forget_after_s:
                self.correction.reset()
                step_s = 0.0
            values = self.correction(measured, step_s)
        rate_changed = step_ms > 0 and self.meter.observe(step_ms)
        return ConditionedReading(
            t_ms, frame.frame_seq, step_ms, quality, measured, values, rate_changed
        )
