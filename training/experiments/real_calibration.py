"""training/experiments: what calibration does on a real second board.

The recordings of the rig fruits5 share two labels with a model of another board. The recordings of
one of its days are references, from which a correction is fitted as `scentd calibrate fit` does;
those of the other days are played to the model without it and with it, and to the rig's own
recogniser that was taught the references instead. Needs no torch. May import `models` and
`calibration`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.correction import RigCorrection
from calibration.exposures import find_exposure, prepare_readings
from calibration.recogniser import TaughtExposure, fit_recogniser
from calibration.rig_reference import ResponseExcerpt, RigReference
from calibration.transfer import fit_transfer
from hardware.errors import UsageError
from hardware.recording import read_recording
from models.decision_spec import State
from models.recogniser import RigDecision
from training.experiments.foreign_boards import play

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from training.data.dataset import Dataset

REFERENCE_S = 300.0
"""Of a reference, from the onset on: as long as `docs/calibrate-a-rig.md` asks for."""

LISTED = 3
LEAST_SMELLS = 2


@dataclass(frozen=True, slots=True)
class Names:
    """What is said of some recordings.

    Attributes
    ----------
    right, wrong: how many were ever given the right name, and how many another one.
    likeliest, listed: of how many the right label has the largest mean probability, or one of the
        `LISTED` largest.
    """

    right: int
    wrong: int
    likeliest: int
    listed: int


@dataclass(frozen=True, slots=True)
class CalibratedDay:
    """Recordings of one day as references, judged on the other days.

    Attributes
    ----------
    references: how many of each label, in words.
    method: of the correction, by exposures left out.
    recordings: of other days.
    before, after: by the model without and with the correction.
    taught: by the rig's recogniser, taught the references instead; None with one smell only.
    """

    day: str
    references: str
    method: str
    recordings: int
    before: Names
    after: Names
    taught: Names | None


@dataclass(frozen=True, slots=True)
class _Smelled:
    label: str
    day: str
    recording: Recording


def calibrate_days(bundle: Bundle, data: Dataset, folder: Path) -> list[CalibratedDay]:
    """Take each day's recordings of the labels that the model shares as references.

    Raises
    ------
    UsageError: the bundle does not hold the responses of its training rig.
    """
    reference = RigReference.from_arrays(bundle.manifest.labels, bundle.arrays)
    if reference is None:
        raise UsageError(f"{bundle.manifest.name} does not hold the responses of its training rig.")
    known = [
        _Smelled(label, sample.session, read_recording(folder / sample.name))
        for sample in data.samples
        for label in [data.labels[int(sample.target.argmax())]]
        if label in bundle.manifest.labels
    ]
    days = []
    for day in sorted({one.day for one in known}):
        references = [one for one in known if one.day == day]
        others = [one for one in known if one.day != day]
        transfer = fit_transfer([_excerpt(one) for one in references], reference)
        correction = None
        if transfer.method != "none":
            correction = RigCorrection(day, transfer.spec, bundle.manifest.name)
        counts = Counter(one.label for one in references)
        days.append(
            CalibratedDay(
                day,
                ", ".join(f"{count} {label}" for label, count in sorted(counts.items())),
                transfer.method,
                len(others),
                _names_by_model(bundle, others, None),
                _names_by_model(bundle, others, correction),
                _names_by_rig(references, others) if len(counts) >= LEAST_SMELLS else None,
            )
        )
    return days


def _excerpt(one: _Smelled) -> ResponseExcerpt:
    readings = prepare_readings(one.recording)
    first = find_exposure(readings).first
    end = first + round(REFERENCE_S * readings.rate_hz)
    return ResponseExcerpt.from_readings(
        one.label, readings.values[first:end], readings.rate_hz, t_ms=readings.t_ms[first:end]
    )


def _names_by_model(
    bundle: Bundle, asked: Sequence[_Smelled], correction: Correction | None
) -> Names:
    said = []
    for one in asked:
        if correction is not None:
            correction.reset()
        total: dict[str, float] = {}
        names = set()
        for prediction in play(bundle, one.recording, correction):
            if prediction.state in (State.AMBIENT, State.WARMING_UP):
                continue
            names |= {prediction.label} - {None}
            for label, probability in prediction.top:
                total[label] = total.get(label, 0.0) + probability
        order = sorted(total, key=lambda label: -total[label])
        said.append((one.label, {str(name) for name in names}, order))
    return _count(said)


def _names_by_rig(references: Sequence[_Smelled], asked: Sequence[_Smelled]) -> Names:
    recogniser = fit_recogniser([_exposure(one) for one in references])
    said = []
    for one in asked:
        decision, names, rows = RigDecision(recogniser), set(), _exposure(one).rows
        for row in range(len(rows)):
            decision.add(rows[row : row + 1])
            names |= {decision.announced} - {None}
        order = [label for label, _ in decision.top]
        said.append((one.label, {str(name) for name in names}, order))
    return _count(said)


def _exposure(one: _Smelled) -> TaughtExposure:
    found = find_exposure(prepare_readings(one.recording))
    return TaughtExposure(one.label, one.day, found.rows)


def _count(said: Sequence[tuple[str, set[str], list[str]]]) -> Names:
    return Names(
        right=sum(label in names for label, names, _ in said),
        wrong=sum(bool(names - {label}) for label, names, _ in said),
        likeliest=sum(order[:1] == [label] for label, _, order in said),
        listed=sum(label in order[:LISTED] for label, _, order in said),
    )
