"""Another day of the simulated rig: the same for its number, and as different as real days are."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from hardware.channels import CHANNELS, GAS_INDICES, Part
from hardware.errors import UsageError
from hardware.simulator.days import Day
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import load_day_spread

DAYS = range(1, 2001)


def play(scenario: str, day: int, seed: int = 0) -> np.ndarray:
    return np.array(list(SyntheticSignal(scenario, seed=seed, day=day)))


def test_a_day_is_the_same_whenever_it_is_played() -> None:
    np.testing.assert_array_equal(play("air:5,almond:20", 3), play("air:5,almond:20", 3))
    assert not np.array_equal(play("air:5,almond:20", 3), play("air:5,almond:20", 4))


def test_day_zero_is_the_board_of_the_tables() -> None:
    np.testing.assert_array_equal(Day(0).air_shift(), np.zeros(len(GAS_INDICES)))
    np.testing.assert_array_equal(Day(0).response_factor("almond"), np.ones(len(GAS_INDICES)))
    np.testing.assert_array_equal(
        play("air:5,almond:20", 0), np.array(list(SyntheticSignal("air:5,almond:20")))
    )


def test_a_day_has_one_clean_air_whatever_the_seed() -> None:
    """Seeds choose fingerprints and noise: several exposures of one day."""
    grove = slice(0, 4)
    air = [np.median(play("air:60", 2, seed)[:, grove], axis=0) for seed in range(4)]
    other = np.median(play("air:60", 0)[:, grove], axis=0)
    spread = np.ptp(air, axis=0)
    assert np.all(spread <= 4), "counts"
    assert np.any(np.abs(air[0] - other) > 2 * spread)


def test_clean_air_moves_between_days_as_the_table_says() -> None:
    shifts = np.array([Day(number).air_shift() for number in DAYS])
    loadings = load_day_spread().clean_air
    np.testing.assert_allclose(np.cov(shifts.T), loadings @ loadings.T, atol=0.03)
    grove = [CHANNELS[index].part is Part.GROVE for index in GAS_INDICES]
    assert np.all(shifts.std(axis=0)[grove] > 0.1)


def test_fingerprints_move_between_days_by_a_few_percent_each_by_itself() -> None:
    almond, lemon = (
        np.log([Day(number).response_factor(name) for number in DAYS])
        for name in ("almond", "lemon")
    )
    loadings = load_day_spread().fingerprint
    np.testing.assert_allclose(np.cov(almond.T), loadings @ loadings.T, atol=0.002)
    assert abs(np.corrcoef(almond[:, 0], lemon[:, 0])[0, 1]) < 0.1


def test_a_negative_day_is_refused() -> None:
    with pytest.raises(UsageError, match="-1"):
        SyntheticSignal("air:5", day=-1)


def test_a_day_can_be_played_without_end() -> None:
    signal = SyntheticSignal("air:5", day=7, loop=True)
    assert len(list(islice(iter(signal), 20))) == 20
