"""The evaluation of unmixing: who is taught before whom, and what real pairs give."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_GAS
from hardware.mixing_law import mixed_response
from hardware.simulator.tables import load_board
from training.commands.unmix import table
from training.data.dataset import DataError, Dataset, load_mixtures
from training.data.mixture_days import mixture_days, mixture_exposures
from training.experiments.unmixing import (
    SIMULATED_SMELLS,
    TAUGHT,
    TEACHINGS,
    MixtureExposure,
    UnmixingTrial,
    load_exposures,
    real_pairs,
    simulated_response,
)

EXPONENTS = np.array([0.19, 0.22, 0.23, 0.64])
SMELLS = {
    "apple": [0.8, 1.1, 0.7, 0.4],
    "clove": [1.6, 2.0, 2.1, 0.6],
    "lemon": [2.0, 2.9, 2.3, 3.4],
    "mint": [0.9, 2.4, 1.0, 2.2],
}


def exposure(day: int, **shares: float) -> MixtureExposure:
    response = mixed_response(
        np.array([SMELLS[label] for label in shares]), list(shares.values()), EXPONENTS
    )
    return MixtureExposure(
        f"day {day}, {shares}", f"day {day}", shares, response[np.newaxis], np.zeros(4)
    )


SINGLES = [exposure(1, **{label: 1.0}) for label in SMELLS]


def test_pairs_of_clearly_different_smells_are_found_from_singles() -> None:
    asked = [exposure(1, apple=0.5, clove=0.5), exposure(1, clove=0.5, lemon=0.5)]
    trials = real_pairs([*SINGLES, *asked], TEACHINGS[0])
    assert [trial.exposures for trial in trials] == [2, 2]
    assert trials[0].chance == pytest.approx(1 / 3)
    assert trials[1].exact >= 0.5


def test_what_is_taught_obeys_the_session_and_the_set() -> None:
    asked = exposure(1, apple=0.5, clove=0.5)
    others = {
        "single, same day": exposure(1, apple=1.0),
        "same set, same day": exposure(1, apple=0.2, clove=0.8),
        "other set, same day": exposure(1, apple=0.2, mint=0.8),
        "itself": asked,
        "single, day before": exposure(0, apple=1.0),
        "single, later": exposure(2, apple=1.0),
    }
    allowed = [
        [name for name, one in others.items() if may_teach(one, asked)]
        for _, may_teach in TEACHINGS
    ]
    assert allowed == [
        ["single, same day"],
        ["single, same day", "same set, same day", "other set, same day"],
        ["single, same day", "other set, same day"],
        ["single, day before"],
    ]


def test_the_days_of_published_names_are_read() -> None:
    def sample(name: str) -> object:
        return dataclasses.make_dataclass("S", ["name", "target"])(name, np.array([0.5, 0.5]))

    names = [
        "apple_50_pear_50.629fjk9g.ingestion-1-2.csv",
        "apple_50_pear_50.629fp051.ingestion-1-2_3.csv",
        "almond20_banana80.62858i4g.ingestion-1-2.csv",
        "banana80_mango20.61nortus (12).csv",
        "almond20_clove80.synth900_1.azccblsk.csv",
    ]
    data = Dataset("mixture", ("apple", "pear"), tuple(map(sample, names)))  # type: ignore[arg-type]
    days = mixture_days(data)
    assert days[0] == days[1] == days[2]
    assert days[3] not in {"", days[0]}
    assert days[4] == ""
    assert mixture_exposures(data)[0] == f"{days[0]}, apple+pear [0.5, 0.5]"


def test_recordings_without_a_day_are_refused() -> None:
    with pytest.raises(DataError, match="629fjk9g"):
        load_exposures(Dataset("mixture", ("apple",), ()))


def test_the_simulated_response_is_above_clean_air_and_of_the_same_smell_another_day() -> None:
    board = load_board()
    assert set(SIMULATED_SMELLS) <= set(board.fingerprints)
    found = [simulated_response(("cloves",), day, 1, range(N_GAS), board) for day in (1, 2)]
    one, other = (exposure.response for exposure in found)
    assert one[0] > 0.3
    assert np.corrcoef(one, other)[0, 1] > 0.9
    assert [exposure.strengths for exposure in found] == [{"cloves": 1.0}] * 2
    assert all(exposure.clean_air is not None for exposure in found)


def test_the_table_states_chance_and_interval() -> None:
    lines = table([UnmixingTrial("real", "a pair", 0.5, (0.4, 0.6), 0.17, 12)])
    assert lines[-1] == "| real | a pair | 0.50 | 0.40 to 0.60 | 0.170 | 12 |"


@pytest.mark.data
class TestOnRealRecordings:
    """Needs SCENTD_DATA."""

    def test_the_published_recordings_are_ten_days_of_some_hundred_exposures(
        self, smellnet: Path
    ) -> None:
        exposures = load_exposures(load_mixtures(smellnet / "mixture"))
        assert len({one.day for one in exposures}) == 10
        assert 105 <= len(exposures) <= 112
        assert sum(len(one.responses) for one in exposures) == pytest.approx(402, abs=3)
        trials = real_pairs(exposures, TEACHINGS[3])
        assert [trial.exposures for trial in trials] == [8] * len(TAUGHT)
        assert trials[1].exact > 0.35
