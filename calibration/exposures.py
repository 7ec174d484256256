"""Calibration: where in a recording a smell is, and its response above clean air.

May import hardware, models and numpy. Must never know where taught smells are kept, nor a port, a
broker or a clock. Readings are processed as live ones are: channel health, the rig's correction,
the rate and the exposure stream of the nose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from models.conditioning import Conditioner
from models.exposure import Change, Phase
from models.exposure_settings import ExposureSettings
from models.exposure_stream import MAX_HOLD, RATE_HZ, ExposureStream
from models.rate_conversion import RateConverter
from models.response import ResponseRows
from models.timing import lost_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardware.recording import Recording
    from models.clean_air import CleanAir
    from models.correction import Correction
    from models.response import ResponseRow


class EnrolmentError(ScentdError):
    """Nothing can be learnt from these readings; the message says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """A recording as the models receive it.

    Attributes
    ----------
    values: float32[n, 12], corrected, NaN where a channel could not be used.
    quality: uint8[n, 12] of `Quality`, after channel health.
    t_ms: int64[n], increasing.
    rate_hz: of the board.
    """

    values: NDArray[np.float32]
    quality: NDArray[np.uint8]
    t_ms: NDArray[np.int64]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.t_ms)

    @property
    def lost(self) -> NDArray[np.int64]:
        """int64[n], samples lost just before each."""
        period_ms = 1000.0 / self.rate_hz
        steps = np.diff(self.t_ms, prepend=self.t_ms[:1]).tolist()
        return np.array([lost_samples(step, period_ms) for step in steps], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class FoundExposure:
    """A smell within readings.

    Attributes
    ----------
    first, end: the first reading of the smell and the one after its last.
    rows: of its response; none where no clean air is known before it.
    clean_air: above which the response lies, or None.
    """

    first: int
    end: int
    rows: ResponseRows
    clean_air: CleanAir | None


def prepare_readings(recording: Recording, correction: Correction | None = None) -> Readings:
    """Return a recording as the models receive it.

    `correction` is that of the rig that made it; it is reset before and after.
    """
    conditioner = Conditioner(
        recording.assumed_rate_hz, correction, ExposureSettings().forget_after_s
    )
    if correction is not None:
        correction.reset()
    readings = [conditioner.process(frame, at_ms) for frame, at_ms in recording.arrivals()]
    if correction is not None:
        correction.reset()
    return Readings(
        np.array([reading.values for reading in readings], np.float32),
        np.array([reading.quality for reading in readings], np.uint8),
        np.array([reading.t_ms for reading in readings], np.int64),
        conditioner.meter.rate_hz or recording.nominal_rate_hz,
    )


def find_exposure(
    readings: Readings,
    start: int = 0,
    calibrated_air: NDArray[np.float64] | None = None,
    earlier_air: NDArray[np.float64] | None = None,
) -> FoundExposure:
    """Return the smell in readings, from the reading `start` on.

    Where onsets were detected with certainty, the smell is the longest stretch from an onset to
    its end. Where none was, the smell was there from the beginning: a steady smell is as quiet as
    clean air, so that only air that is *known* to be clean is refused. The readings before `start`
    only show what clean air is.

    Parameters
    ----------
    readings: of the exposure, with those before it where they are known.
    start: the first reading that may be part of it.
    calibrated_air: float64[8], clean air of the rig's calibration, or None.
    earlier_air: float64[8], clean air that the board showed before the first of these readings,
        or None.

    Raises
    ------
    EnrolmentError: the air was clean.
    """
    search = _Search(readings, start, calibrated_air, earlier_air)
    if search.stretches:
        return max(search.stretches, key=lambda found: found.end - found.first)
    if search.clean <= (search.rows - start) / 2:
        return FoundExposure(start, len(readings), ResponseRows.of([]), None)
    raise EnrolmentError(
        f"Expected a smell to learn, but in {search.clean} of {search.rows - start} readings the "
        "air was as clean as before the last odour. Bring the sample to the sensors, and teach it "
        "while the state is sensing or unrecognised."
    )


class _Search:
    """The stretches of readings in which a smell is certain, and how often air was clean."""

    def __init__(
        self,
        readings: Readings,
        start: int,
        calibrated_air: NDArray[np.float64] | None,
        earlier_air: NDArray[np.float64] | None,
    ) -> None:
        self.stretches: list[FoundExposure] = []
        self.clean = 0
        self.rows = len(readings)
        self._start = start
        self._onset, self._certain = 0, False
        self._rows: list[ResponseRow] = []
        self._rate_hz = readings.rate_hz
        self._stream = ExposureStream(
            ExposureSettings(), skip_warm_up=True, calibrated_air=calibrated_air
        )
        if earlier_air is not None:
            self._stream.assume_clean_air(earlier_air)
        converter = RateConverter(readings.rate_hz, RATE_HZ, MAX_HOLD)
        t_ms = readings.t_ms - readings.t_ms[0]
        samples, lost = converter.feed(readings.values, readings.lost, t_ms)
        sample_s = 0.0
        row = before = 0
        for number, (values, gap) in enumerate(zip(samples, lost.tolist(), strict=True)):
            step_s = (1 + gap) / converter.rate_hz
            sample_s += step_s if number else 0.0
            row = min(int(np.searchsorted(t_ms, 1000.0 * sample_s)), self.rows - 1)
            self._add(values, min(step_s, ExposureSettings().longest_step_s), row, row - before)
            before = row
        if self._certain:
            self._close(self.rows)

    def _add(self, values: NDArray[np.float32], step_s: float, row: int, readings: int) -> None:
        stream = self._stream
        clean_air = stream.clean_air
        change = stream.update(values, step_s, named=False)
        if change is Change.ENDED and self._certain:
            self._close(row, clean_air)
        if stream.restarted:
            stream.restarted = False
            self._rows.clear()
        if change is Change.ONSET:
            began_s = stream.t_s - stream.onset_s
            self._onset = max(0, row - round(began_s * self._rate_hz))
            self._certain = False
        if row >= self._start:
            self._rows += stream.rows
        stream.rows.clear()
        exposed = stream.phase is Phase.EXPOSED
        self._certain = stream.detector.odour_certain or (self._certain and exposed)
        is_clean = stream.phase is Phase.AMBIENT and stream.detector.air_known
        self.clean += readings if row >= self._start and is_clean else 0

    def _close(self, end: int, clean_air: CleanAir | None = None) -> None:
        first = max(self._onset, self._start)
        if end > first:
            rows = ResponseRows.of(self._rows)
            known = clean_air or self._stream.clean_air
            self.stretches.append(FoundExposure(first, end, rows, known))
        self._certain = False
