"""Ground floor: which channels of a reading are plausible, beyond what one line can show.

May import the channel table, frames and numpy. Pure and incremental: no clock but the times it is
given, no I/O. Must know nothing of models or smells.

Repeated values alone are not a fault. In 260 good recordings at 1 Hz and 942 at 10 Hz a Grove
channel repeats one count for up to 180 s (C2H5OH in clean air), and an MQ part's rounded ppm for a
whole recording (733 s). Therefore what the other channels do meanwhile decides:

- A Grove channel is stuck when it repeats while *two* of its three siblings move away: for
  15 s and by 0.25 in log-conductance, for 30 s and by 0.12, or for 60 s and by 0.09. Over
  every constant stretch in those recordings the second-largest movement among the siblings
  was at most 0.14 after 15 s (3,275 stretches), 0.07 after 30 s (528) and 0.05 after 60 s (48).
  A channel that freezes during a steady odour is found within ten minutes in half (NO2, VOC) to
  three quarters (C2H5OH, CO) of those recordings; at an onset, within 25 s.
- A Grove channel is stuck when it repeats for half an hour, ten times the longest real stretch.
- All four Grove channels are stuck when they repeat together for 5 minutes: they share one
  bus and one microcontroller. The longest such stretch in good recordings is 21 s.
- All BME680 channels are stuck when they repeat together for 20 s: a part that has hung
  repeats its row for ever, a working one for at most 4 s.
- An MQ part is never called stuck: two counts of ppm resolution are too coarse to tell.
- A Grove channel or the BME680's gas resistance has a spike when it differs from both the last
  plausible level and the previous sample by more than 3.5 in its logarithm (a factor of 33).
  The largest real step is 3.3, in one 10 Hz recording with a loose contact; at 1 Hz it is
  0.3. A jump that stays is accepted from its second sample on, so a real step costs one
  sample. MQ ppm are left out: the MQ-3 steps from 0 to 30 and back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, GROVE_INDICES, N_CHANNELS, Part
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hardware.frames import SensorFrame


STUCK_GROVE = ((15.0, 0.25), (30.0, 0.12), (60.0, 0.09))
"""Pairs of seconds of repetition and movement of two siblings meanwhile (as a difference of
log-conductances) that together show a stuck Grove channel, shortest first."""
STUCK_ALONE_S = 1800.0
"""Repetition of one Grove channel that is enough by itself."""
GROVE_HUNG_S = 300.0
"""Joint repetition of all Grove channels that shows a hung Grove board."""
BME_HUNG_S = 20.0
"""Joint repetition of all BME680 channels that shows a hung BME680."""
MIN_REPEATS = 8
"""Samples that any repetition must have, for slow boards."""
SPIKE_STEP = 3.5
"""Difference of logarithms within one sample that no gas causes."""
SPIKE_AFTER = 3
"""Plausible samples before a spike can be found; boards start with garbage."""
MAX_GAP_S = 20.0
"""A longer silence between frames ends every repetition and forgets every level."""


def _log_conductance_of_count(count: float) -> float:
    clipped = min(max(count, 1.0), GROVE_FULL_SCALE - 1.0)
    return math.log(clipped / (GROVE_FULL_SCALE - clipped))


def _log_of_resistance(kilo_ohm: float) -> float:
    return math.log(max(kilo_ohm, 0.001))


_LOGARITHM: dict[Part, Callable[[float], float]] = {
    Part.GROVE: _log_conductance_of_count,
    Part.BME_GAS: _log_of_resistance,
}
_BME = tuple(i for i, channel in enumerate(CHANNELS) if channel.device == "BME680")
_FLOAT32_BYTES = 4
_BME_BYTES = slice(_FLOAT32_BYTES * _BME[0], _FLOAT32_BYTES * (_BME[-1] + 1))
_LOGARITHMIC = tuple(
    (i, channel.part is Part.GROVE, _LOGARITHM[channel.part])
    for i, channel in enumerate(CHANNELS)
    if channel.part in _LOGARITHM
)
_MIN_BME_CHANNELS = 3
"""Fewer live BME680 columns than this may repeat by chance: temperature alone does for 259 s."""

_OK = int(Quality.OK)
_STUCK = int(Quality.STUCK)
_SPIKE = int(Quality.SPIKE)


class _Repetition:
    """How long one number, or one row of numbers, has been repeating."""

    __slots__ = ("levels", "samples", "since_ms", "stuck")

    def __init__(self) -> None:
        self.restart(0, ())
        self.samples = 0

    def restart(self, t_ms: int, levels: tuple[float, ...] = ()) -> None:
        self.since_ms = t_ms
        self.samples = 1
        self.levels = levels
        self.stuck = False

    def lasts(self, t_ms: int, seconds: float) -> bool:
        return self.samples >= MIN_REPEATS and t_ms - self.since_ms >= 1000.0 * seconds


class ChannelHealth:
    """Assess frames one by one, in constant time.

    Examples
    --------
    >>> from hardware.encoding import encode_scent
    >>> from hardware.protocol import LineDecoder
    >>> health = ChannelHealth()
    >>> hung = [216, 305, 494, 830, 2, 38, 3, 33.59, 688.6, 100, 5, 3170.54]
    >>> for second in range(25):
    ...     row = [216 + second % 3, *hung[1:]]
    ...     [frame] = LineDecoder().feed(encode_scent(second, second * 1000, row))
    ...     quality = health.assess(frame, second * 1000)
    >>> quality.tolist()
    [0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4]
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame has nothing to do with the ones before."""
        self._last_ms: int | None = None
        self._values: list[float] = [math.nan] * N_CHANNELS
        self._sent_level: list[float] = [math.nan] * N_CHANNELS
        self._level: list[float] = [math.nan] * N_CHANNELS
        self._plausible: list[int] = [0] * N_CHANNELS
        self._run = [_Repetition() for _ in GROVE_INDICES]
        self._grove_run = _Repetition()
        self._bme_run = _Repetition()
        self._bme_row = b""

    def assess(self, frame: SensorFrame, t_ms: int) -> NDArray[np.uint8]:
        """Return the frame's quality with STUCK and SPIKE added.

        Parameters
        ----------
        frame: as decoded.
        t_ms: the frame's time in milliseconds, never running backwards.

        Returns
        -------
        uint8[12], read-only. Only channels that the decoder marked OK are assessed further.
        """
        if frame.restarted or self._after_gap(t_ms):
            self.reset()
        self._last_ms = t_ms
        numbers = frame.values.tolist()
        decoded = frame.quality.tobytes()
        quality = bytearray(decoded)
        moved = self._find_spikes(numbers, quality)
        self._find_stuck_grove(moved, quality, t_ms)
        self._find_hung_bme(frame, quality, t_ms)
        self._values = numbers
        if quality == decoded:
            return frame.quality
        return np.frombuffer(bytes(quality), np.uint8)

    def _after_gap(self, t_ms: int) -> bool:
        last_ms = self._last_ms
        return last_ms is not None and t_ms - last_ms > 1000.0 * MAX_GAP_S

    def _find_spikes(self, numbers: list[float], quality: bytearray) -> set[int]:
        """Mark spikes and update the levels; return the Grove channels that moved."""
        moved = set()
        last, level, sent = self._values, self._level, self._sent_level
        for channel, is_grove, logarithm in _LOGARITHMIC:
            if quality[channel]:
                continue
            number = numbers[channel]
            if number == last[channel]:
                new = sent[channel]
            else:
                new = logarithm(number)
                if is_grove:
                    moved.add(channel)
                before, sent[channel] = sent[channel], new
                if (
                    abs(new - level[channel]) > SPIKE_STEP
                    and abs(new - before) > SPIKE_STEP
                    and self._plausible[channel] >= SPIKE_AFTER
                ):
                    quality[channel] = _SPIKE
                    continue
            level[channel] = new
            self._plausible[channel] += 1
        return moved

    def _find_stuck_grove(self, moved: set[int], quality: bytearray, t_ms: int) -> None:
        levels = tuple([self._level[channel] for channel in GROVE_INDICES])
        for place, (channel, run) in enumerate(zip(GROVE_INDICES, self._run, strict=True)):
            if channel in moved or not run.samples:
                run.restart(t_ms, levels)
                continue
            run.samples += 1
            if not run.stuck and run.samples >= MIN_REPEATS:
                run.stuck = self._is_stuck(run, levels, place, t_ms)
            if run.stuck:
                _mark(quality, (channel,))
        if moved or not self._grove_run.samples:
            self._grove_run.restart(t_ms)
        else:
            self._grove_run.samples += 1
            if self._grove_run.lasts(t_ms, GROVE_HUNG_S):
                _mark(quality, GROVE_INDICES)

    def _is_stuck(self, run: _Repetition, levels: tuple[float, ...], place: int, t_ms: int) -> bool:
        """Whether a repetition is long enough for what the siblings did meanwhile."""
        lasted_s = (t_ms - run.since_ms) / 1000.0
        if lasted_s < STUCK_GROVE[0][0]:
            return False
        if lasted_s >= STUCK_ALONE_S:
            return True
        movement = _sibling_movement(run.levels, levels, place)
        return any(lasted_s >= least_s and movement >= least for least_s, least in STUCK_GROVE)

    def _find_hung_bme(self, frame: SensorFrame, quality: bytearray, t_ms: int) -> None:
        # Compared as bytes: NaN is equal to nothing, yet an absent column repeats.
        row = frame.values.tobytes()[_BME_BYTES]
        if row != self._bme_row:
            self._bme_row = row
            self._bme_run.restart(t_ms)
            return
        self._bme_run.samples += 1
        if self._bme_run.lasts(t_ms, BME_HUNG_S):
            present = np.count_nonzero(~np.isnan(np.frombuffer(row, np.float32)))
            if present >= _MIN_BME_CHANNELS:
                _mark(quality, _BME)


def _sibling_movement(before: tuple[float, ...], now: tuple[float, ...], place: int) -> float:
    """Return the second-largest movement among the other Grove channels.

    A sibling without a plausible level at the beginning counts as one that did not move.
    """
    movements = sorted(
        0.0 if math.isnan(before[i]) else abs(now[i] - before[i])
        for i in range(len(now))
        if i != place
    )
    return movements[-2]


def _mark(quality: bytearray, channels: tuple[int, ...]) -> None:
    for channel in channels:
        if quality[channel] == _OK:
            quality[channel] = _STUCK
