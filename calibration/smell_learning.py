"""Calibration: what is learnt from the stored readings of an exposure, with a cache of it on disk.

May import hardware, models and numpy. Two things are learnt: the response above clean air, from
which the rig's recogniser is fitted, and the embeddings of each model, which serve where clean air
is not known.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.correction import to_readings
from calibration.enrolment import LearnedExposure, fit_smell, learn, require_space
from calibration.exposures import EnrolmentError, find_exposure, prepare_readings
from calibration.recogniser import TaughtExposure
from calibration.smell_set import TaughtAir
from calibration.stored_readings import content_id, read_exposure
from hardware.channels import GAS_INDICES
from hardware.files import read_regular, write_atomically
from hardware.safe_arrays import read_arrays
from models.clean_air import CleanAirSource
from models.correction import correction_for
from models.recogniser import LEAST_SIZE
from models.response import ROW_S, ResponseRows
from models.signals import GAS_NAMES, GROVE_SIGNALS, log_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.exposures import Readings
    from calibration.smell_set import Exposure
    from models.bundle import Bundle
    from models.correction import Correction
    from models.taught_head import TaughtSmell

LEAST_EXPOSURE_S = 45.0
"""Seconds that an exposure lasts at least: a shorter one ends while the sensors still respond, and
is too short for the embeddings of `substances-50`."""

LEAST_RESPONSE_S = 20.0
"""Seconds of a response that teach the recogniser: four rows, of which two confirm each other."""

OTHER_BOARD = 0.8
"""Root mean squared difference of clean air, over the Grove channels, beyond which it is another
board's: from day to day one board's moves by .2 to .35 (published recordings), the four real boards
that are known differ by .9 and more."""

_RESPONSE_KEY = "response 1"


@dataclass(frozen=True, slots=True)
class LearntExposure:
    """What a rig learnt from one exposure.

    Attributes
    ----------
    seconds: of the smell, from the onset where one was found.
    windows: of it that a model learnt; 0 where none could.
    response_s: seconds of its response above clean air; 0 where clean air is not known.
    clean_air: where that is known from, None where it is not.
    channels_missing: channels that could not be used.
    air: clean air itself, None where it is not known.
    """

    seconds: float
    windows: int
    response_s: float
    clean_air: str | None
    channels_missing: tuple[str, ...]
    air: TaughtAir | None = None

    def require_response(self) -> None:
        """Raise EnrolmentError where nothing was learnt that lies above clean air."""
        if self.response_s < LEAST_RESPONSE_S:
            raise EnrolmentError(
                "Nothing was learnt: only what lies above known clean air can be told from the "
                "taught smells. Begin with a minute of clean air."
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Response:
    """The response of an exposure, as the cache keeps it."""

    rows: ResponseRows
    clean_air: NDArray[np.float64]
    source: str
    seconds: float

    @property
    def evidence_s(self) -> float:
        """Seconds in which the channels were certainly above clean air."""
        return float((self.rows.size >= LEAST_SIZE).sum() * ROW_S)

    def to_bytes(self) -> bytes:
        stream = io.BytesIO()
        np.savez(
            stream,
            response=self.rows.response,
            changes=self.rows.changes,
            clean_air=self.clean_air,
            source=np.array(self.source),
            seconds=np.float64(self.seconds),
        )
        return stream.getvalue()

    @classmethod
    def load(cls, path: Path) -> _Response:
        arrays = read_arrays(read_regular(path))
        rows = ResponseRows(arrays["response"], arrays["changes"])
        seconds = float(arrays["seconds"])
        return cls(rows, arrays["clean_air"], str(arrays["source"]), seconds)


class ExposureLearner:
    """Learns from the exposures of one rig.

    Parameters
    ----------
    readings_path: where the readings of an exposure lie, by its id.
    bundles: the models of single substances that can compare embeddings.

    Attributes
    ----------
    bundles: the same, by name.
    correction: of the rig's readings, None for none; used by nothing else.
    """

    def __init__(
        self, readings_path: Callable[[str], Path], bundles: Sequence[Bundle] = ()
    ) -> None:
        self._readings_path = readings_path
        for bundle in bundles:
            require_space(bundle)
        self.bundles = {bundle.manifest.name: bundle for bundle in bundles}
        self.correction: Correction | None = None

    def learn(
        self, exposure: Exposure, taught: Sequence[TaughtExposure], least_s: float = 0.0
    ) -> LearntExposure:
        """Learn from an exposure what can be learnt.

        Parameters
        ----------
        exposure: whose readings are stored.
        taught: the exposures that are known, all of one board.
        least_s: seconds that it must last.

        Raises
        ------
        EnrolmentError: it is too short, nothing can be learnt from it, or it is of another board.
        RecordingError: its readings are missing or damaged.
        """
        response = self._response(exposure, self.correction_of(exposure))
        if response.seconds < least_s:
            raise EnrolmentError(
                f"Nothing was learnt: {response.seconds:.0f} s of the smell are too short. "
                f"{least_s:.0f} s are needed, and two minutes are better. Let the sample stand "
                "longer before the sensors, or name a longer recording."
            )
        if response.source and response.evidence_s >= LEAST_RESPONSE_S:
            _refuse_other_board(response, taught)
        problem: EnrolmentError | None = None
        models: list[LearnedExposure] = []
        for bundle in self.bundles.values():
            try:
                models.append(self.learned(exposure, bundle))
            except EnrolmentError as error:
                problem = problem or error
        if response.evidence_s < LEAST_RESPONSE_S:
            if not models:
                raise problem or _too_little(response)
            if not any(self._knows_board(bundle, exposure) for bundle in self.bundles.values()):
                # Embeddings of another board's levels mean nothing.
                raise _too_little(response)
        missing = [name for learned in models for name in learned.channels_missing]
        missing += _missing_grove(response)
        seconds = models[0].seconds if models else response.seconds
        return LearntExposure(
            seconds,
            len(models[0]) if models else 0,
            # The last row stands for five seconds, of which fewer may have been read.
            min(response.evidence_s, seconds),
            response.source or None,
            tuple(dict.fromkeys(missing)),
            self.air_before(exposure),
        )

    def air_before(self, exposure: Exposure) -> TaughtAir | None:
        """Return clean air before an exposure: as it was taught, or as its readings show it.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing or damaged.
        """
        correction = self.correction_of(exposure)
        known = self._earlier_air(exposure, correction)
        if known is not None:
            return known
        response = self._response(exposure, correction)
        if not response.source:
            return None
        calibration = "" if correction is None else correction.id
        return TaughtAir.of(response.clean_air, response.source, 0.0, calibration)

    def measured_air(self, exposure: Exposure) -> NDArray[np.float64] | None:
        """Return clean air before an exposure as the board measured it, without a correction.

        Returns
        -------
        float64[8], NaN where unknown; None where it is not known.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing or damaged.
        """
        known = exposure.clean_air
        if known is not None and not known.calibration:
            return known.array()
        response = self._response(exposure, None)
        return response.clean_air if response.source else None

    def learned(self, exposure: Exposure, bundle: Bundle) -> LearnedExposure:
        """Return what a model learns from an exposure, from the cache or from its readings.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing, damaged or of no use.
        """
        correction = correction_for(bundle.manifest.name, self.correction_of(exposure))
        key = f"{bundle.manifest.sha256[:16]} {bundle.precision}"
        path = self._cache_path(exposure, key, correction)
        try:
            return LearnedExposure.load(path)
        except _DAMAGES:
            pass  # never computed for this model and calibration, or damaged
        readings, start = self._readings(exposure, correction)
        learned = learn(bundle, readings, start)
        write_atomically(path, learned.to_bytes())
        return learned

    def taught(self, label: str, exposure: Exposure) -> TaughtExposure | None:
        """Return the response of an exposure; None where it has none above known clean air.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing or damaged.
        """
        response = self._response(exposure, self.correction_of(exposure))
        if not response.source or response.evidence_s < LEAST_RESPONSE_S:
            return None
        return TaughtExposure(label, exposure.sitting, response.rows, response.clean_air)

    def fit(
        self, label: str, embeddings: Sequence[NDArray[np.float32]], bundle: Bundle
    ) -> TaughtSmell:
        """Return the class that a model's embeddings of some exposures make."""
        variance = bundle.manifest.decision.exposure_variance
        return fit_smell(label, embeddings, require_space(bundle), variance)

    def _knows_board(self, bundle: Bundle, exposure: Exposure) -> bool:
        """Whether the readings are like those of the board that a model was trained on."""
        correction = correction_for(bundle.manifest.name, self.correction_of(exposure))
        board = bundle.board
        if correction is not None or board is None:
            return True
        distance = board.distance_of(self._readings(exposure, None)[0].values)
        return not distance > 1.0

    def _response(self, exposure: Exposure, correction: Correction | None) -> _Response:
        earlier = self._earlier_air(exposure, correction)
        key = _RESPONSE_KEY if earlier is None else f"{_RESPONSE_KEY} above {earlier.signals}"
        path = self._cache_path(exposure, key, correction)
        try:
            return _Response.load(path)
        except _DAMAGES:
            pass
        readings, start = self._readings(exposure, correction)
        if earlier is None:
            found = find_exposure(readings, start)
        elif earlier.source == CleanAirSource.CALIBRATION:
            found = find_exposure(readings, start, calibrated_air=earlier.array())
        else:
            found = find_exposure(readings, start, earlier_air=earlier.array())
        known = found.clean_air
        # From the first reading to the end of the last one's period.
        seconds = float(readings.t_ms[found.end - 1] - readings.t_ms[found.first]) / 1000.0
        seconds += 1.0 / readings.rate_hz
        response = _Response(
            found.rows,
            np.full(found.rows.response.shape[1], np.nan) if known is None else known.signals,
            "" if known is None else str(known.source),
            seconds,
        )
        write_atomically(path, response.to_bytes())
        return response

    def _earlier_air(self, exposure: Exposure, correction: Correction | None) -> TaughtAir | None:
        """Return clean air that was measured before the stored readings, seen as they are now.

        What was seen through an earlier calibration cannot be seen without it.
        """
        known = exposure.clean_air
        if known is None or not known.is_earlier:
            return None
        if known.calibration == ("" if correction is None else correction.id):
            return known
        if known.calibration or correction is None:
            return None
        values = read_exposure(self._readings_path(exposure.id), exposure.id).values[0].copy()
        values[list(GAS_INDICES)] = to_readings(known.array(), whole=False)
        correction.reset()
        signals = log_signals(correction(values, 0.0)[np.newaxis])[0]
        correction.reset()
        return TaughtAir.of(signals, known.source, known.age_s, correction.id)

    def _readings(self, exposure: Exposure, correction: Correction | None) -> tuple[Readings, int]:
        recording = read_exposure(self._readings_path(exposure.id), exposure.id)
        readings = prepare_readings(recording, correction)
        return readings, int(np.searchsorted(readings.t_ms, exposure.start_ms))

    def correction_of(self, exposure: Exposure) -> Correction | None:
        """Return what corrects an exposure's readings; None for those corrected already."""
        return None if exposure.as_trained else self.correction

    def _cache_path(self, exposure: Exposure, key: str, correction: Correction | None) -> Path:
        key = f"{key} {correction.id if correction else ''}"
        name = content_id(key.encode())[:12]
        return self._readings_path(exposure.id).with_name(f"{exposure.id}-{name}.npz")


_DAMAGES = (OSError, ValueError, KeyError)
"""What a missing or damaged cache raises."""


def _refuse_other_board(response: _Response, taught: Sequence[TaughtExposure]) -> None:
    grove = list(GROVE_SIGNALS)
    known = [other.clean_air[grove] for other in taught if other.clean_air is not None]
    if not known:
        return
    difference = response.clean_air[grove] - np.nanmedian(known, axis=0)
    if np.sqrt(np.nanmean(difference**2)) > OTHER_BOARD:
        largest = int(np.nanargmax(np.abs(difference)))
        raise EnrolmentError(
            "Expected an exposure of the board that the other smells were taught on, but its clean "
            f"air is another's: {GAS_NAMES[grove[largest]]} differs by "
            f"{abs(difference[largest]):.1f} in log-conductance. Teach it on this rig, or give the "
            "other board a state folder of its own."
        )


def _too_little(response: _Response) -> EnrolmentError:
    if not response.source:
        return EnrolmentError(
            "Nothing was learnt: no clean air is known before this smell, and only what lies above "
            "clean air is recognised on another day. Begin with a minute of clean air, then bring "
            "the sample to the sensors."
        )
    return EnrolmentError(
        f"Nothing was learnt: in only {response.evidence_s:.0f} s of {response.seconds:.0f} s were "
        f"the channels above clean air, and {LEAST_RESPONSE_S:.0f} s are needed. Hold the sample "
        "closer, and let it stand for two minutes."
    )


def _missing_grove(response: _Response) -> list[str]:
    """Return the Grove channels that could not be used in most of the response."""
    if not len(response.rows):
        return []
    unusable = np.isnan(response.rows.response[:, list(GROVE_SIGNALS)]).mean(axis=0) > 0.5  # noqa: PLR2004
    return [name for name, bad in zip(GAS_NAMES, unusable, strict=False) if bad]
