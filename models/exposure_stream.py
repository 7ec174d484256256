"""Models: the air before a board: exposures, clean air and the response of one stream of samples.

May import hardware and models. Joins the onset detector, the tracker of clean air and the rows of
the response. The nose and the teaching of smells use the same object, so that what was taught is
what is compared with later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.clean_air import (
    ONSET_DELAY_S,
    AirChange,
    CleanAir,
    CleanAirSource,
    CleanAirTracker,
)
from models.exposure import Change, ExposureDetector, Phase
from models.response import LAGS_S, ResponseStream
from models.signals import log_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.exposure_settings import ExposureSettings
    from models.response import ResponseRow

RATE_HZ = 1.0
"""Rate of the samples: an odour takes seconds, and averaging lowers the noise."""

MOVED_S = 600.0
"""An exposure above the clean air of a calibration alone that stayed quiet this long is taken for a
moved baseline. Clean air before 25 exposures of the rig fruits5 on four days lies up to .5 from
that of another day; four of five published recordings of an odour are not quiet for a minute."""

MAX_HOLD = 3
"""Lost samples that are bridged."""


class ExposureStream:
    """Follows the air before one board.

    Parameters
    ----------
    settings: of the onset detector.
    skip_warm_up: the sensors are known to be warm.
    assume_exposed: a recording within one exposure.
    calibrated_air: float64[8], log-conductances of the rig's calibration in clean air, or None.

    Attributes
    ----------
    detector: of onsets and ends.
    rows: rows of the response that the latest samples completed; the reader empties it.
    restarted: whether the rows since begin anew; the reader resets it.
    onset_s: seconds of stream time at which the present exposure began, as far as is known.
    t_s: seconds of stream time.
    """

    def __init__(
        self,
        settings: ExposureSettings,
        *,
        skip_warm_up: bool = False,
        assume_exposed: bool = False,
        calibrated_air: NDArray[np.float64] | None = None,
    ) -> None:
        self.detector = ExposureDetector(
            settings, skip_warm_up=skip_warm_up, assume_exposed=assume_exposed
        )
        self._tracker = CleanAirTracker(settings, calibrated_air)
        self._response = ResponseStream()
        self.t_s = self.onset_s = 0.0
        self.rows: list[ResponseRow] = []
        self.restarted = False

    @property
    def phase(self) -> Phase:
        """The phase of the air."""
        return self.detector.phase

    @property
    def clean_air(self) -> CleanAir | None:
        """What is known of clean air."""
        return self._tracker.clean_air

    @property
    def clean_air_age_s(self) -> float | None:
        """Seconds since clean air was last measured; None where it never was here."""
        known = self._tracker.clean_air
        return None if known is None or known.measured_s == 0.0 else self.t_s - known.measured_s

    def assume_clean_air(self, signals: NDArray[np.float64]) -> None:
        """Take log-conductances float64[8] for the clean air that was measured before now."""
        self._tracker.clean_air = CleanAir(signals, CleanAirSource.AMBIENT, self.t_s)

    def reset(self) -> None:
        """Start anew after a long gap: the air may be another, the sensors may have been off."""
        self.detector.reset()
        self._forget_samples()

    def restart(self, calibrated_air: NDArray[np.float64] | None = None) -> None:
        """Start anew with sensors as warm as before: the numbers have another meaning now."""
        self.detector.restart()
        self._tracker.calibrated = calibrated_air
        self._forget_samples()

    def update(self, values: NDArray[np.float32], dt_s: float, *, named: bool) -> Change | None:
        """Add a sample float32[12], NaN where unusable; return what it changed.

        Parameters
        ----------
        values: of the board.
        dt_s: seconds since the sample before.
        named: a model announces an odour now, so that quiet air does not count as clean.
        """
        self.t_s += dt_s
        signals = log_signals(values[np.newaxis])[0]
        change = self.detector.update(values.tolist(), dt_s, named=named)
        shown = self._tracker.update(signals, dt_s, self.phase, air_known=self.detector.air_known)
        if shown is AirChange.ROSE and self.phase in (Phase.UNKNOWN, Phase.AMBIENT):
            change = self._begin_exposure()
        elif shown is AirChange.FELL:
            self._stop_rows()
            change = self.detector.end_presumed() or change
        if change is Change.ONSET or shown is AirChange.ROSE:
            self._start_rows()
        elif change in (Change.ENDED, Change.CLEAN, Change.SETTLED):
            self._stop_rows()
        self.rows += self._response.add(self.t_s, signals)
        return change

    def forget_read_rows(self) -> None:
        """Forget the rows, which all readers have read, and that the exposure began anew."""
        self.rows.clear()
        self.restarted = False

    def _begin_exposure(self) -> Change | None:
        known = self._tracker.clean_air
        if known is None:
            return None
        calibrated = known.source is CleanAirSource.CALIBRATION
        return self.detector.begin_exposure(known.signals, MOVED_S if calibrated else None)

    def _start_rows(self) -> None:
        known = self._tracker.clean_air
        self.onset_s = self.t_s
        if known is not None:
            if known.source is CleanAirSource.START:
                self.onset_s = known.measured_s
            self._response.start(known.signals, self._first_row_s(known))
            self.restarted = True
            self.rows = []

    def _first_row_s(self, known: CleanAir) -> float:
        """Return the time from which on the air may have been other than clean."""
        if known.source is CleanAirSource.CALIBRATION:
            return self.t_s
        longest_s = LAGS_S[-1] if known.source is CleanAirSource.START else ONSET_DELAY_S
        return max(known.measured_s, self.t_s - longest_s)

    def _stop_rows(self) -> None:
        self._response.stop()
        self.restarted = True
        self.rows = []

    def _forget_samples(self) -> None:
        self._tracker.reset()
        self._response.clear()
        self._stop_rows()
