"""Mixtures of taught smells in the nose, from clean air on, on a simulated board."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.exposures import find_exposure, prepare_readings
from calibration.recogniser import TaughtExposure
from calibration.unmixing import unmixing_of_smells
from hardware.frames import SensorFrame
from hardware.readings import range_quality
from hardware.recording import RecordingWriter, read_recording
from hardware.simulator.signals import SyntheticSignal
from models.bundle import load_bundle
from models.decision_spec import State
from models.nose import Nose
from models.recogniser import TAUGHT

if TYPE_CHECKING:
    from pathlib import Path

    from models.results import Prediction
    from models.unmixing import Unmixing

SMELLS = ("pineapple", "saffron", "star_anise")
AIR_S, ODOUR_S = 60, 120


@pytest.fixture(scope="module")
def unmixing(tmp_path_factory: pytest.TempPathFactory) -> Unmixing:
    """The unmixing of three smells, each taught once on each of two simulated days."""
    folder = tmp_path_factory.mktemp("taught")
    exposures = [taught(folder, smell, day) for smell in SMELLS for day in (1, 2)]
    fitted = unmixing_of_smells(exposures)
    assert fitted is not None
    assert unmixing_of_smells(exposures[:2]) is None, "one smell has no mixtures"
    return fitted


def taught(folder: Path, smell: str, day: int) -> TaughtExposure:
    path = folder / f"{smell}-{day}.csv"
    with RecordingWriter(path) as writer:
        signal = SyntheticSignal(f"air:{AIR_S},{smell}:{ODOUR_S}", seed=1, day=day)
        for row, values in enumerate(signal):
            writer.write(1000 * row, values)
    found = find_exposure(prepare_readings(read_recording(path)))
    air = np.zeros(8) if found.clean_air is None else found.clean_air.signals
    return TaughtExposure(smell, f"day-{day}", found.rows, air)


def smelled(nose: Nose, odour: str) -> list[Prediction]:
    """Return the predictions of mixtures, of clean air and then an odour."""
    predictions = []
    signal = SyntheticSignal(f"air:{AIR_S},{odour}:{ODOUR_S}", seed=3)
    for row, values in enumerate(signal):
        frame = SensorFrame(row, 1000 * row, values, range_quality(values).copy())
        predictions += nose.process(frame).predictions
    return [one for one in predictions if one.task == "mixture" and one.state != State.DISABLED]


def test_a_mixture_of_taught_smells_is_named_at_the_boards_own_rate(unmixing: Unmixing) -> None:
    """The 1 Hz board can feed no model of mixtures, and needs none."""
    nose = Nose([load_bundle("mixtures-12")], rate_hz=1.0, unmixing=unmixing)
    predictions = smelled(nose, "pineapple=.5+star_anise=.5")
    in_air = [one for one in predictions if one.t_ms < 1000 * AIR_S]
    assert {one.state for one in in_air} <= {State.WARMING_UP, State.AMBIENT}
    last = predictions[-1]
    assert last.state is State.RECOGNISED
    assert {part.label for part in last.components} == {"pineapple", "star_anise"}
    assert (last.model, last.taught) == (TAUGHT, True)


def test_a_single_taught_smell_is_a_mixture_of_one(unmixing: Unmixing) -> None:
    last = smelled(Nose([], rate_hz=1.0, unmixing=unmixing), "saffron")[-1]
    assert [part.label for part in last.components] == ["saffron"]


def test_what_was_never_taught_is_unexplained(unmixing: Unmixing) -> None:
    last = smelled(Nose([], rate_hz=1.0, unmixing=unmixing), "nutmeg")[-1]
    assert last.state is State.UNRECOGNISED
    assert last.unexplained
    assert last.components == ()
