"""Models: what a board reads in clean air, followed while it runs.

May import numpy and models. Pure: time comes with every sample.

The response of a board is what lies above its clean air, so that what counts as clean air decides
what is recognised. It is taken from ambient stretches, which are followed slowly; from the start of
a recording, once the channels have risen above it; or from the rig's calibration. An odour is never
followed: conductance that falls below what was presumed clean shows that it was not.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from models.exposure import Phase
from models.signals import GROVE_SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.exposure_settings import ExposureSettings

RISE = 0.25
"""Rise of the Grove channels (root mean square), in log-conductance, that proves cleaner air before
it. Within the recordings of one odour the median channel moves by .06 to .16; the faintest of fifty
real odours moves one by a quarter, exposures of the rig fruits5 move by 1.8 to 2.8."""

CALIBRATED_RISE = 0.4
"""The same above the air of an earlier calibration: from day to day the steady signals of one board
move by .2, .2, .35 and .1 (NO2, C2H5OH, VOC, CO; published recordings)."""

ONSET_DELAY_S = 15.0
"""An onset is found up to this much later than it began: clean air is what was known before."""


DRIFT_S = 600.0
"""Time constant with which rising ambient air is followed; falling air is followed as the onset
detector follows it. A slow smell (banana on fruits5 needs a minute for its first .6) must not
become clean air, a drift of 10 % an hour stays .02 behind."""

HEATING_S = 600.0
"""Heaters just switched on move the channels for minutes; rises are followed like falls then."""


STEADY_S, STEADY = 60.0, 0.05
"""Heaters just switched on decay within minutes: of .4 above their end some .1 in a minute. Air
that moves less than this (root mean square of the Grove channels) in so long, and lies above that
of the calibration by `CALIBRATED_RISE`, is an odour also while the heaters may still move."""

FALLEN_S = 600.0
"""Seconds that all Grove channels must stay below presumed clean air to prove that it was an odour:
a smell of oxidising gas falls as well, but is taken away before."""


class CleanAirSource(StrEnum):
    """Where a board's clean air is known from."""

    CALIBRATION = "calibration"
    START = "start"
    AMBIENT = "ambient"


class AirChange(StrEnum):
    """What the channels show that the noise of single channels does not."""

    ROSE = "rose"
    FELL = "fell"


@dataclass(frozen=True, slots=True, eq=False)
class CleanAir:
    """A board's clean air.

    Attributes
    ----------
    signals: float64[8], log-conductances in the order of `models.signals`; NaN where unknown.
    source: where it is known from.
    measured_s: time at which it was last measured, in the tracker's seconds; 0 for a calibration.
    """

    signals: NDArray[np.float64]
    source: CleanAirSource
    measured_s: float


class CleanAirTracker:
    """Follows the clean air of one board.

    Parameters
    ----------
    settings: time constants, shared with the onset detector.
    calibrated: float64[8], clean air of the rig's calibration, used until the board shows its own.

    Attributes
    ----------
    clean_air: what is known, None at first.
    calibrated: clean air of the calibration, None once it has proved to have moved.
    """

    def __init__(
        self, settings: ExposureSettings, calibrated: NDArray[np.float64] | None = None
    ) -> None:
        self._settings = settings
        self.calibrated = calibrated
        self.reset()

    def reset(self) -> None:
        """Forget everything but the calibration: after a gap the air may be another."""
        self.clean_air: CleanAir | None = None
        if self.calibrated is not None:
            self.clean_air = CleanAir(self.calibrated, CleanAirSource.CALIBRATION, 0.0)
        self._smooth: NDArray[np.float64] | None = None
        self._lowest: NDArray[np.float64] | None = None
        self._phase: Phase | None = None
        self._heating_until_s = self._fallen_s = 0.0
        self._age_s = 0.0
        self._t_s = self._steady_from_s = 0.0
        self._steady: NDArray[np.float64] | None = None
        self._recent: deque[CleanAir] = deque()

    def update(
        self, signals: NDArray[np.float64], dt_s: float, phase: Phase, *, air_known: bool
    ) -> AirChange | None:
        """Add a sample; return what it shows.

        Parameters
        ----------
        signals: float64[8], NaN where unusable.
        dt_s: seconds since the sample before.
        phase: of the onset detector, with this sample.
        air_known: an exposure began and ended here, so that ambient air is certainly clean.
        """
        self._t_s += dt_s
        smooth = self._smoothed(signals, dt_s)
        before, self._phase = self._phase, phase
        if phase is Phase.WARMING_UP:
            self._heating_until_s = self._t_s + HEATING_S
            return None
        if not air_known and self._heating and self._stays_above_calibration(smooth, phase):
            return AirChange.ROSE
        if phase is Phase.AMBIENT:
            return self._follow(smooth, dt_s, before, air_known=air_known)
        if before is Phase.AMBIENT and phase is Phase.EXPOSED and self._recent:
            self.clean_air = self._recent[0]
        self._recent.clear()
        if not air_known:
            return self._examine(smooth, dt_s, phase)
        return None

    def _smoothed(self, signals: NDArray[np.float64], dt_s: float) -> NDArray[np.float64]:
        if self._smooth is None:
            self._smooth = signals.copy()
            return self._smooth
        gain = -np.expm1(-dt_s / self._settings.smoothing_s)
        moved = self._smooth + gain * (signals - self._smooth)
        # A channel that was unusable begins anew with its next reading.
        self._smooth = np.where(
            np.isnan(signals), self._smooth, np.where(np.isnan(moved), signals, moved)
        )
        return self._smooth

    def _stays_above_calibration(self, smooth: NDArray[np.float64], phase: Phase) -> bool:
        """Whether an odour was there when the board was switched on, or the service started."""
        if self.calibrated is None or phase not in (Phase.UNKNOWN, Phase.AMBIENT):
            return False
        known = CleanAir(self.calibrated, CleanAirSource.CALIBRATION, 0.0)
        steady = self._steady
        moved = steady is None or abs(_grove_change(smooth - steady)) > STEADY
        if moved or not _has_risen(smooth, known):
            self._steady, self._steady_from_s = smooth.copy(), self._t_s
        if self._t_s - self._steady_from_s < STEADY_S:
            return False
        self.clean_air = known
        self._recent.clear()
        return True

    def _follow(
        self, smooth: NDArray[np.float64], dt_s: float, before: Phase | None, *, air_known: bool
    ) -> AirChange | None:
        """Follow ambient air; one that rises above it is an odour."""
        if before is not Phase.AMBIENT:
            self._age_s = 0.0
            known = self.clean_air
            if before is Phase.EXPOSED and known and known.source is CleanAirSource.CALIBRATION:
                self.calibrated = None  # the air has moved since
            if air_known or before not in (None, Phase.UNKNOWN) or self._heating:
                self.clean_air = None
            elif self.clean_air is None and self._lowest is not None:
                self.clean_air = CleanAir(self._lowest, CleanAirSource.START, self._t_s)
        known = self.clean_air
        if known is None:
            moved = smooth.copy()
        elif _has_risen(smooth, known) and not self._heating:
            return AirChange.ROSE
        elif known.source is CleanAirSource.CALIBRATION:
            moved = smooth.copy()
        else:
            moved = known.signals + self._gain(smooth, known, dt_s) * (smooth - known.signals)
            moved = np.where(np.isnan(moved), smooth, moved)
        self.clean_air = CleanAir(moved, CleanAirSource.AMBIENT, self._t_s)
        self._recent.append(self.clean_air)
        while self._recent[0].measured_s < self._t_s - ONSET_DELAY_S:
            self._recent.popleft()
        return None

    @property
    def _heating(self) -> bool:
        return self._t_s < self._heating_until_s

    def _gain(self, smooth: NDArray[np.float64], known: CleanAir, dt_s: float) -> float:
        """Return how far ambient air is followed in one step."""
        self._age_s += dt_s
        slow_s = min(max(self._age_s, self._settings.young_s), self._settings.baseline_s)
        if _rise(smooth, known) > 0.0 and not self._heating:
            slow_s = DRIFT_S
        return dt_s / (slow_s + dt_s)

    def _examine(self, smooth: NDArray[np.float64], dt_s: float, phase: Phase) -> AirChange | None:
        """Compare with the cleanest air so far."""
        known = self.clean_air
        if known is not None:
            fell = phase is Phase.EXPOSED and _rise(smooth, known) <= -RISE
            fell = fell and _all_fell(smooth, known)
            self._fallen_s = self._fallen_s + dt_s if fell else 0.0
            if self._fallen_s >= FALLEN_S:
                self._fallen_s = 0.0
                self.clean_air, self._lowest = None, smooth.copy()
                return AirChange.FELL
            moving = self._heating and known.source is CleanAirSource.CALIBRATION
            if phase is Phase.UNKNOWN and not moving and _has_risen(smooth, known):
                return AirChange.ROSE
        if self._heating:
            return None
        lowest = self._lowest
        if lowest is None or _grove_change(smooth - lowest) < 0.0:
            self._lowest, self._lowest_s = smooth.copy(), self._t_s
        elif known is None and _grove_change(smooth - lowest) >= RISE:
            self.clean_air = CleanAir(lowest, CleanAirSource.START, self._lowest_s)
            return AirChange.ROSE
        return None


def _rise(smooth: NDArray[np.float64], known: CleanAir) -> float:
    return _grove_change(smooth - known.signals)


def _has_risen(smooth: NDArray[np.float64], known: CleanAir) -> bool:
    least = CALIBRATED_RISE if known.source is CleanAirSource.CALIBRATION else RISE
    return _rise(smooth, known) >= least


def _all_fell(smooth: NDArray[np.float64], known: CleanAir) -> bool:
    change = (smooth - known.signals)[list(GROVE_SIGNALS)]
    return bool((change[~np.isnan(change)] < 0.0).all())


def _grove_change(change: NDArray[np.float64]) -> float:
    """Return the root mean square over the usable Grove channels, negative where most fell."""
    # Plain numbers: for four of them, numpy's calls take ten times as long.
    squares = total = 0.0
    usable = 0
    for place in GROVE_SIGNALS:
        number = float(change[place])
        if not math.isnan(number):
            squares += number * number
            total += number
            usable += 1
    return math.copysign(math.sqrt(squares / usable), total) if usable else 0.0
