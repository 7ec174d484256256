"""Ground floor: which channels of a frame can be believed, beyond what one line can tell.

May import the channel table, frames and numpy. Pure and incremental: no clock but the
times it is given, no I/O. Must never know of models or of what a smell is.

Quiet is not stuck. In 260 good recordings at 1 Hz and 942 at 10 Hz a Grove channel repeats
one count for up to 180 s (C2H5OH in clean air), and an MQ part's rounded ppm for a whole
recording (733 s). So repetition alone convicts nobody; what else the board shows meanwhile
does:

- A Grove channel is stuck when it repeats while *two* of its three siblings move away: for
  15 s and by 0.25 in log-conductance, for 30 s and by 0.12, or for 60 s and by 0.09. Over
  every constant stretch in those recordings the second-largest movement among the siblings
  was at most 0.14 after 15 s (3,275 stretches), 0.07 after 30 s (528) and 0.05 after 60 s (48).
  In return a channel frozen in the middle of a recording's steady odour is found within ten
  minutes in half (NO2, VOC) to three quarters (C2H5OH, CO) of them; at an onset, within 25 s.
- A Grove channel is stuck when it repeats for half an hour, ten times the longest quiet.
- All four Grove channels are stuck when they repeat together for 5 minutes: they share one
  bus and one microcontroller. The longest such stretch in good recordings is 21 s.
- All BME680 channels are stuck when they repeat together for 20 s: a part that has hung
  repeats its row for ever, one that lives repeats it for at most 4 s.
- An MQ part is never called stuck: two counts of ppm resolution leave nothing to judge by.
- A Grove channel or the BME680's gas resistance has a spike when it leaves both the last
  believed level and the previous sample by more than 3.5 in its logarithm (a factor of 33).
  The largest real step is 3.3, in one 10 Hz recording with a loose contact; at 1 Hz it is
  0.3. Nothing is delayed for it: a jump that stays is believed from its second sample on, so
  a real step costs one sample. MQ ppm are left out: the MQ-3 steps from 0 to 30 and back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, N_CHANNELS, Part
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hardware.frames import SensorFrame


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """When a channel stops being believed; the module's docstring gives the figures' reasons.

    Attributes
    ----------
    stuck: pairs of seconds of repetition and movement of two siblings meanwhile (as a difference
        of log-conductances) that convict a Grove channel together, shortest first.
    stuck_alone_s: repetition that convicts by itself.
    grove_hung_s: joint repetition of all Grove channels that convicts them all.
    bme_hung_s: joint repetition of all BME680 channels that convicts them all.
    min_repeats: samples that any repetition must have, for slow boards.
    spike_step: difference of logarithms within one sample that no gas makes.
    spike_after: believed samples before a spike is judged; boards start with garbage.
    max_gap_s: a longer silence between frames ends every repetition and forgets every level.
    """

    stuck: tuple[tuple[float, float], ...] = ((15.0, 0.25), (30.0, 0.12), (60.0, 0.09))
    stuck_alone_s: float = 1800.0
    grove_hung_s: float = 300.0
    bme_hung_s: float = 20.0
    min_repeats: int = 8
    spike_step: float = 3.5
    spike_after: int = 3
    max_gap_s: float = 20.0


def _log_conductance_of_count(count: float) -> float:
    clipped = min(max(count, 1.0), GROVE_FULL_SCALE - 1.0)
    return math.log(clipped / (GROVE_FULL_SCALE - clipped))


def _log_of_resistance(kilo_ohm: float) -> float:
    return math.log(max(kilo_ohm, 0.001))


_LOGARITHM: dict[Part, Callable[[float], float]] = {
    Part.GROVE: _log_conductance_of_count,
    Part.BME_GAS: _log_of_resistance,
}
_GROVE = tuple(i for i, channel in enumerate(CHANNELS) if channel.part is Part.GROVE)
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

    def restart(self, t_ms: int, levels: tuple[float, ...]) -> None:
        self.since_ms = t_ms
        self.samples = 1
        self.levels = levels
        self.stuck = False

    def lasts(self, t_ms: int, seconds: float, samples: int) -> bool:
        return self.samples >= samples and t_ms - self.since_ms >= 1000.0 * seconds


class ChannelHealth:
    """Judge frames one by one, in constant time.

    Parameters
    ----------
    settings: thresholds.

    Examples
    --------
    >>> from hardware.protocol import LineDecoder, encode_scent
    >>> health = ChannelHealth()
    >>> hung = [216, 305, 494, 830, 2, 38, 3, 33.59, 688.6, 100, 5, 3170.54]
    >>> for second in range(25):
    ...     row = [216 + second % 3, *hung[1:]]
    ...     [frame] = LineDecoder().feed(encode_scent(second, second * 1000, row))
    ...     quality = health.assess(frame, second * 1000)
    >>> quality.tolist()
    [0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4]
    """

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self._settings = settings or HealthSettings()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame has nothing to do with the ones before."""
        self._last_ms: int | None = None
        self._values: list[float] = [math.nan] * N_CHANNELS
        self._sent_level: list[float] = [math.nan] * N_CHANNELS
        self._level: list[float] = [math.nan] * N_CHANNELS
        self._believed: list[int] = [0] * N_CHANNELS
        self._run = [_Repetition() for _ in _GROVE]
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
        uint8[12], read-only. Verdicts of the decoder stay; only OK channels are judged further.
        """
        if frame.restarted or self._after_gap(t_ms):
            self.reset()
        self._last_ms = t_ms
        numbers = frame.values.tolist()
        decoded = frame.quality.tobytes()
        verdict = bytearray(decoded)
        moved = self._follow_levels(numbers, verdict)
        self._find_stuck_grove(moved, verdict, t_ms)
        self._find_hung_bme(frame, verdict, t_ms)
        self._values = numbers
        if verdict == decoded:
            return frame.quality
        return np.frombuffer(bytes(verdict), np.uint8)

    def _after_gap(self, t_ms: int) -> bool:
        last_ms = self._last_ms
        return last_ms is not None and t_ms - last_ms > 1000.0 * self._settings.max_gap_s

    def _follow_levels(self, numbers: list[float], verdict: bytearray) -> set[int]:
        """Mark spikes, keep every gas channel's level; return the Grove channels that moved."""
        moved = set()
        last = self._values
        for channel, is_grove, logarithm in _LOGARITHMIC:
            number = numbers[channel]
            if verdict[channel]:
                continue
            if number == last[channel]:
                self._believe(channel, self._sent_level[channel])
                continue
            level = logarithm(number)
            if self._is_spike(channel, level):
                verdict[channel] = _SPIKE
            else:
                self._believe(channel, level)
            self._sent_level[channel] = level
            if is_grove:
                moved.add(channel)
        return moved

    def _believe(self, channel: int, level: float) -> None:
        self._level[channel] = level
        self._believed[channel] += 1

    def _is_spike(self, channel: int, level: float) -> bool:
        step = self._settings.spike_step
        return (
            self._believed[channel] >= self._settings.spike_after
            and abs(level - self._level[channel]) > step
            and abs(level - self._sent_level[channel]) > step
        )

    def _find_stuck_grove(self, moved: set[int], verdict: bytearray, t_ms: int) -> None:
        settings = self._settings
        levels = tuple([self._level[channel] for channel in _GROVE])
        for place, (channel, run) in enumerate(zip(_GROVE, self._run, strict=True)):
            if channel in moved or not run.samples:
                run.restart(t_ms, levels)
                continue
            run.samples += 1
            run.stuck = run.stuck or self._convicts(run, levels, place, t_ms)
            if run.stuck:
                _mark(verdict, (channel,))
        if moved or not self._grove_run.samples:
            self._grove_run.restart(t_ms, ())
        else:
            self._grove_run.samples += 1
            if self._grove_run.lasts(t_ms, settings.grove_hung_s, settings.min_repeats):
                _mark(verdict, _GROVE)

    def _convicts(self, run: _Repetition, levels: tuple[float, ...], place: int, t_ms: int) -> bool:
        """Whether a repetition is long enough for what the siblings did meanwhile."""
        settings = self._settings
        lasted_s = (t_ms - run.since_ms) / 1000.0
        if run.samples < settings.min_repeats or lasted_s < settings.stuck[0][0]:
            return False
        if lasted_s >= settings.stuck_alone_s:
            return True
        movement = _siblings_moved(run.levels, levels, place)
        return any(lasted_s >= least_s and movement >= least for least_s, least in settings.stuck)

    def _find_hung_bme(self, frame: SensorFrame, verdict: bytearray, t_ms: int) -> None:
        # Compared as bytes: NaN is equal to nothing, yet an absent column repeats.
        row = frame.values.tobytes()[_BME_BYTES]
        if row != self._bme_row:
            self._bme_row = row
            self._bme_run.restart(t_ms, ())
            return
        self._bme_run.samples += 1
        if self._bme_run.lasts(t_ms, self._settings.bme_hung_s, self._settings.min_repeats):
            present = np.count_nonzero(~np.isnan(np.frombuffer(row, np.float32)))
            if present >= _MIN_BME_CHANNELS:
                _mark(verdict, _BME)


def _siblings_moved(before: tuple[float, ...], now: tuple[float, ...], place: int) -> float:
    """Return the second-largest movement among the other Grove channels.

    A sibling that had no believable level yet at the beginning counts as one that stayed.
    """
    movements = sorted(
        0.0 if math.isnan(before[i]) else abs(now[i] - before[i])
        for i in range(len(now))
        if i != place
    )
    return movements[-2]


def _mark(verdict: bytearray, channels: tuple[int, ...]) -> None:
    for channel in channels:
        if verdict[channel] == _OK:
            verdict[channel] = _STUCK
