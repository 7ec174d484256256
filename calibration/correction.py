"""Calibration: one rig's readings turned into those of the rig that a model was trained on.

May import `hardware`, `models` and numpy. Must never load scipy: this runs live, once per reading,
and a Raspberry Pi has 80 MB for the whole service. Knows neither profiles nor references:
`calibration.transfer` fits what is applied here.

The correction acts on the log-conductance s, in which the response of a metal oxide is a straight
line over the logarithm of the concentration (Clifford & Tuma, Sensors and Actuators 3, 1982):
another load resistor or R0 shifts s, another exponent scales it. The correction of one reading:

1. s, less the effect of humidity and temperature;
2. smoothed and sped up: a fixed-lag least-squares estimate of the signal before a slower film or
   housing and a coarser converter changed it (`estimator_taps`);
3. target + matrix (s - middle), the matrix being diagonal (affine) or full (direct
   standardisation);
4. back to a reading, rounded as by the training rig's boards. A network sees the step of a
   converter in every difference: with this rig's steps, stretched, .36 of windows were right,
   with readings rounded again .58 (fold 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import (
    CHANNELS,
    GAS_INDICES,
    GROVE_FULL_SCALE,
    MQ_FLOOR_PPM,
    N_GAS,
    Part,
    channel_index,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

USUAL_HUMIDITY = 28.5
USUAL_TEMPERATURE = 25.5
"""%RH and degC of the published recordings, at which the compensation is zero."""

DELAY_S = 2.0
"""Delay of a corrected reading behind the measured one. The samples after a reading separate its
rounding from its signal; more than two seconds gain nothing (.72 of windows at two and at five, .69
without, fold 0)."""
STEP_VARIANCE_FACTOR = 4.0
"""Factor on the variance of the signal's own steps in the estimator. The least-squares estimate
is smoother than the signal, which a network trained on unsmoothed signals misjudges; 3 to 10 did
best on folds 0 and 1, 1 and 30 worse."""

_MIN_SPAN_S = 12.0
_MAX_TAPS = 400
_GAP_PERIODS = 4.5
"""Readings further apart than this are not continuous; models reset after three lost samples."""
_PACE_CHANGE = 5
"""Successive readings at another pace after which the estimator changes: a single one is late."""
_PACE = math.log(1.25)
"""Periods whose ratio is smaller than this count as the same pace."""

_PARTS = tuple(CHANNELS[index].part for index in GAS_INDICES)
_COLUMNS = np.array(GAS_INDICES, dtype=np.intp)
_GROVE = np.array([part is Part.GROVE for part in _PARTS])
_MQ = np.array([part is Part.MQ for part in _PARTS])
_SIGN = np.where(_GROVE | _MQ, 1.0, -1.0)
_SPAN = np.where(_GROVE, GROVE_FULL_SCALE, 1.0)
_SLOPE = np.where(_GROVE, 1.0, 0.0)
_LOW = np.where(_GROVE, 1.0, np.where(_MQ, MQ_FLOOR_PPM, 1e-2))
_HIGH = np.where(_GROVE, GROVE_FULL_SCALE - 1.0, 1e6)
_STEPS = np.where(_GROVE | _MQ, 1.0, 100.0)
"""Steps of the converter per unit: whole counts, whole ppm, two decimals of a kOhm."""
_TO_STEPS = _SPAN * _STEPS
_SENT_LOW = np.where(_MQ, 0.0, _LOW)
_HUMIDITY = channel_index("Humidity")
_TEMPERATURE = channel_index("Temperature")
_RESISTANCE = channel_index("Gas_Resistance")


def to_readings(signals: NDArray[np.float64], *, whole: bool = True) -> NDArray[np.float64]:
    """Return the readings of log-conductances float64[n, 8]: the inverse of `log_signals`.

    NaN stays NaN. `whole` rounds as boards do: whole counts and ppm, kOhm with two decimals.
    """
    ratio = np.exp(_SIGN * signals)
    value = _SPAN * ratio / (1.0 + _SLOPE * ratio)
    if whole:
        value = np.rint(value * _STEPS) / _STEPS
    return np.clip(value, _SENT_LOW, _HIGH)


def converter_step(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one step of the converter in log-conductance, at log-conductances [..., 8]."""
    value = to_readings(signals, whole=False)
    inner = np.maximum(value, _LOW) * (1.0 - _SLOPE * value / GROVE_FULL_SCALE)
    return np.asarray(1.0 / (_STEPS * inner))


@dataclass(frozen=True, slots=True, eq=False)
class Compensation:
    """The effect of humidity and temperature on a rig's channels, independent of any odour.

    Attributes
    ----------
    humidity: float64[8], change of ln conductance per 10 %RH above `USUAL_HUMIDITY`.
    temperature: float64[8], per 10 degC above `USUAL_TEMPERATURE`.
    """

    humidity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(N_GAS))
    temperature: NDArray[np.float64] = field(default_factory=lambda: np.zeros(N_GAS))

    @property
    def is_zero(self) -> bool:
        """Whether there is no effect."""
        return not (self.humidity.any() or self.temperature.any())

    def offsets(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the effect float64[n, 8] on the log-conductances of readings float32[n, 12].

        Without a reading of the BME680 its last one holds; before its first the effect is zero.
        """
        tens = ambient_deviation(values)
        known = np.isfinite(tens).all(axis=1)
        last = np.maximum.accumulate(np.where(known, np.arange(len(tens)), -1))
        held = np.where(last[:, np.newaxis] >= 0, tens[np.maximum(last, 0)], 0.0)
        offsets: NDArray[np.float64] = held @ np.stack([self.humidity, self.temperature])
        return offsets


def ambient_deviation(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how float32[n, 12] differ from the usual air, float64[n, 2] in 10 %RH and 10 degC.

    NaN where the BME680 is missing or hung: a hung one repeats 100 %RH, without a gas resistance.
    """
    air = values[:, [_HUMIDITY, _TEMPERATURE]].astype(np.float64)
    alive = np.isfinite(values[:, [_HUMIDITY, _TEMPERATURE, _RESISTANCE]]).all(axis=1)
    tens: NDArray[np.float64] = (air - [USUAL_HUMIDITY, USUAL_TEMPERATURE]) / 10.0
    tens[~alive] = np.nan
    return tens


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionSpec:
    """A rig's correction, with every constant; part of its profile.

    Attributes
    ----------
    middle: float64[8], log-conductances of this rig around which it is corrected.
    target: float64[8], those of the training rig in the same air.
    matrix: float64[8, 8], change on the training rig per change on this rig.
    response_s: float64[8], seconds by which this rig's channels are slower (first order).
    wander: float64[8], variance of ln conductance per second on this rig, from which the estimator
        separates rounding. With 0 a channel is not smoothed.
    compensation: of humidity and temperature, before everything else.
    """

    middle: NDArray[np.float64]
    target: NDArray[np.float64]
    matrix: NDArray[np.float64]
    response_s: NDArray[np.float64]
    wander: NDArray[np.float64]
    compensation: Compensation = field(default_factory=Compensation)

    @classmethod
    def identity(cls) -> CorrectionSpec:
        """Return the correction that changes nothing but the rounding."""
        zero = np.zeros(N_GAS)
        return cls(zero, zero, np.eye(N_GAS), zero, zero)

    @property
    def is_affine(self) -> bool:
        """Whether every channel is corrected by itself."""
        return bool((self.matrix == np.diag(np.diagonal(self.matrix))).all())

    def corrected_level(
        self, signal: NDArray[np.float64], humidity: float, temperature: float
    ) -> NDArray[np.float64]:
        """Return steady log-conductances float64[8], measured in such air, corrected.

        NaN stays NaN.
        """
        tens = (humidity - USUAL_HUMIDITY) / 10.0, (temperature - USUAL_TEMPERATURE) / 10.0
        air = self.compensation
        change = signal - air.humidity * tens[0] - air.temperature * tens[1] - self.middle
        corrected: NDArray[np.float64] = self.matrix @ np.nan_to_num(change) + self.target
        return np.where(np.isnan(signal), np.nan, corrected)


def estimator_taps(spec: CorrectionSpec, dt_s: float) -> NDArray[np.float64]:
    """Return the taps float64[taps, 8] that estimate the signal `DELAY_S` ago, oldest first.

    The linear least-squares estimate (Wiener 1949; as a fixed-lag smoother, Anderson & Moore,
    "Optimal Filtering", 1979, chapter 7) of a random walk of variance `wander` a second, measured
    through a first-order lag of `response_s` and a converter whose rounding adds a twelfth of its
    squared step. The taps of a channel sum to 1, so that a steady signal is not changed. Where no
    channel is smoothed, nothing is delayed.
    """
    delay = round(DELAY_S / dt_s) if spec.wander.any() else 0
    span_s = max(_MIN_SPAN_S, 4.0 * float(spec.response_s.max()) + DELAY_S)
    count = min(max(round(span_s / dt_s), delay + 2), _MAX_TAPS)
    rounding = converter_step(spec.middle) ** 2 / 12.0
    columns = [
        _taps(
            count,
            delay,
            lag=float(spec.response_s[k]) / dt_s,
            step=STEP_VARIANCE_FACTOR * float(spec.wander[k]) * dt_s,
            rounding=float(rounding[k]),
        )
        for k in range(N_GAS)
    ]
    return np.stack(columns, axis=1)


def _taps(
    count: int, delay: int, *, lag: float, step: float, rounding: float
) -> NDArray[np.float64]:
    """Return one channel's taps float64[count]; `lag` in samples, variances per sample."""
    taps = np.zeros(count)
    if step <= 0:
        taps[count - 1 - delay] = 1.0
        return taps
    before = math.ceil(5 * lag) + 1
    time = np.arange(before + count)
    # The covariance of a walk from an unknown level, and the response of a first-order lag.
    walk = step * (np.minimum.outer(time, time) + 1e4)
    keep = math.exp(-1.0 / lag) if lag > 0 else 0.0
    age = time[:, np.newaxis] - time[np.newaxis, :]
    response = np.where(age >= 0, (1.0 - keep) * keep ** np.maximum(age, 0), 0.0)
    response[:, 0] += keep ** (time + 1.0)
    seen = response[before:] @ walk
    covariance = seen @ response[before:].T
    covariance[np.diag_indices(count)] += rounding
    solved = np.linalg.solve(covariance, seen[:, before + count - 1 - delay])
    return np.asarray(solved / solved.sum())


class RigCorrection:
    """Corrects readings one by one; a `models.correction.Correction`.

    The state is the last seconds of log-conductances. `__call__` on every row and `apply` on the
    whole recording give the same bits.

    Parameters
    ----------
    id: of the profile, published with every prediction.
    spec: the constants.
    model: the model whose training rig it leads to; None for all models.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the contract's name
        spec: CorrectionSpec,
        model: str | None = None,
    ) -> None:
        self.id = id
        self.model = model
        self.spec = spec
        self._humid = not spec.compensation.is_zero
        self._paces: dict[int, NDArray[np.float64]] = {}
        self._signal = np.empty(N_GAS)
        self._scratch = np.empty(N_GAS)
        self.reset()

    def reset(self) -> None:
        """Forget earlier readings: the next one is not continuous with them."""
        self._taps: NDArray[np.float64] | None = None
        self._pace: int | None = None
        self._other_pace = 0
        self._history = np.empty((0, N_GAS))
        self._place = 0
        self._known = np.zeros(N_GAS, dtype=bool)
        self._last = np.zeros(N_GAS)
        self._offset = np.zeros(N_GAS)

    def apply(self, values: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        """Return a recording float32[n, 12], with a reading every `dt_s` seconds, corrected."""
        self.reset()
        corrected = np.empty_like(values)
        for row, frame in enumerate(values):
            corrected[row] = self(frame, dt_s)
        return corrected

    def __call__(self, values: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        """Return the reading float32[12] as the training rig would have sent it.

        Parameters
        ----------
        values: float32[12], NaN where unusable, which stays NaN.
        dt_s: seconds since the reading before; ignored unless positive.
        """
        signal = self._log(values)
        missing = np.isnan(signal)
        gone = bool(missing.any())
        if gone:
            np.copyto(signal, self._last, where=missing)
        self._follow_pace(dt_s, signal)
        if gone or not self._known.all():
            self._start_channels(signal, missing)
        self._last[:] = signal
        estimate = self._estimated(signal)
        estimate -= self.spec.middle
        if gone:
            estimate[missing] = 0.0
        estimate = self.spec.matrix @ estimate
        estimate += self.spec.target
        corrected = values.copy()
        corrected[_COLUMNS] = self._sent(estimate)
        if gone:
            corrected[_COLUMNS[missing]] = np.nan
        return corrected

    def _log(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-conductances float64[8] of a reading, compensated."""
        signal, scratch = self._signal, self._scratch
        signal[:] = values[_COLUMNS]
        np.maximum(signal, _LOW, out=signal)
        np.minimum(signal, _HIGH, out=signal)
        np.multiply(signal, _SLOPE, out=scratch)
        np.subtract(_SPAN, scratch, out=scratch)
        signal /= scratch
        np.log(signal, out=signal)
        signal *= _SIGN
        if self._humid:
            tens = ambient_deviation(values[np.newaxis])[0]
            if np.isfinite(tens).all():
                air = self.spec.compensation
                self._offset = air.humidity * tens[0] + air.temperature * tens[1]
            signal -= self._offset
        return signal

    def _follow_pace(self, dt_s: float, signal: NDArray[np.float64]) -> None:
        """Choose the estimator for the readings' pace; start again after a gap."""
        if dt_s <= 0:
            return
        pace = round(math.log(dt_s) / _PACE)
        if self._pace is None:
            self._set_pace(pace, dt_s, signal)
        elif pace == self._pace:
            self._other_pace = 0
        else:
            self._other_pace += 1
            if dt_s > _GAP_PERIODS * math.exp(self._pace * _PACE):
                self._known[:] = False
            if self._other_pace >= _PACE_CHANGE:
                self._set_pace(pace, dt_s, signal)

    def _set_pace(self, pace: int, dt_s: float, signal: NDArray[np.float64]) -> None:
        if pace not in self._paces:
            self._paces[pace] = estimator_taps(self.spec, dt_s)
        self._taps = self._paces[pace]
        self._pace, self._other_pace = pace, 0
        last = self._last if self._known.any() else signal
        self._history = np.tile(last, (2 * len(self._taps), 1))
        self._place = 0

    def _start_channels(self, signal: NDArray[np.float64], missing: NDArray[np.bool_]) -> None:
        """Fill the history of channels that send their first reading, or one again, with it."""
        fresh = ~self._known & ~missing
        if fresh.any() and len(self._history):
            self._history[:, fresh] = signal[fresh]
        self._known = ~missing

    def _estimated(self, signal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Store `signal` and return the estimate float64[8] of the signal `DELAY_S` ago."""
        if self._taps is None:
            return signal.copy()
        count, place = len(self._taps), self._place
        # Stored twice, so that the newest rows are always one view.
        self._history[place] = signal
        self._history[place + count] = signal
        self._place = (place + 1) % count
        window = self._history[place + 1 : place + 1 + count]
        estimate: NDArray[np.float64] = np.einsum("nk,nk->k", window, self._taps)
        return estimate

    def _sent(self, signal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the readings float64[8] of log-conductances, rounded as by boards."""
        signal *= _SIGN
        np.exp(signal, out=signal)
        np.multiply(signal, _SLOPE, out=self._scratch)
        self._scratch += 1.0
        signal /= self._scratch
        signal *= _TO_STEPS
        np.rint(signal, out=signal)
        signal /= _STEPS
        np.maximum(signal, _SENT_LOW, out=signal)
        return np.minimum(signal, _HIGH, out=signal)


def round_signals(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-conductances float64[n, 8] as they are after a board has rounded the readings."""
    sent = np.maximum(to_readings(signals), _LOW)
    return np.asarray(_SIGN * np.log(sent / (_SPAN - _SLOPE * sent)))
