"""False alarms in clean air and the delay until odours are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import poisson

from hardware.channels import N_CHANNELS
from models.bundle import RIG_BUNDLES, load_bundle
from models.exposure_settings import ExposureSettings
from training.data.dataset import load_substances
from training.trust import clean_air

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = ExposureSettings()
JUMPY = ExposureSettings(threshold=0.5, allowance=0.1, least_noise=0.001)
"""A detector that takes the fluctuations of clean air for odours."""


@pytest.mark.parametrize("events", [0, 1, 7, 40])
def test_upper_rate_gives_so_few_events_in_one_case_of_twenty(events: int) -> None:
    rate = clean_air.upper_rate(events, hours=50.0)
    assert poisson.cdf(events, rate * 50.0) == pytest.approx(0.05)


def test_no_time_gives_an_infinite_rate() -> None:
    assert clean_air.upper_rate(0, hours=0.0) == float("inf")


def test_shipped_detector_gives_no_false_alarm_and_a_sensitive_one_does() -> None:
    calm = clean_air.count_simulated_alarms(SHIPPED, hours=0.5)
    assert {"simulated", "fixed rig"} < set(calm)
    assert calm["simulated"]["hours"] == 0.5
    assert {name: figures["alarms"] for name, figures in calm.items()} == dict.fromkeys(calm, 0)
    jumpy = clean_air.count_alarms(clean_air.play_scenario("air:900", seed=3), JUMPY)
    assert jumpy.alarms > 3
    assert jumpy.alarm_s > 0


def test_onset_and_end_of_an_odour_are_found_and_other_onsets_are_false() -> None:
    odour = clean_air.play_scenario(
        f"air:{clean_air.BEFORE_S},banana:{clean_air.ODOUR_S},air:{clean_air.AFTER_S}",
        clean_air.FIRST_SEED,
    )
    found = clean_air.follow_episode(odour, SHIPPED)
    assert found.onset_s is not None
    assert 0 <= found.onset_s < 60
    assert found.end_s is not None
    assert found.clean_s is not None
    assert 0 <= found.end_s <= found.clean_s
    assert found.false_onsets == 0
    # The same odour two minutes too soon is an onset where the episode has none.
    early = clean_air.follow_episode(odour[120:], SHIPPED)
    assert early.false_onsets == 1
    assert early.onset_s is None


def test_an_odour_without_onset_has_no_end() -> None:
    insensitive = ExposureSettings(threshold=1e9)
    found = clean_air.follow_episode(
        clean_air.play_scenario("air:400,banana:100,air:100", seed=1), insensitive
    )
    assert (found.onset_s, found.end_s, found.clean_s) == (None, None, None)


def test_quiet_stretches_exclude_changes_and_short_pieces() -> None:
    still = np.full((600, N_CHANNELS), 300.0, dtype=np.float32)
    assert list(clean_air.find_quiet_stretches(still)) == [(0, 600)]
    moving = still.copy()
    moving[300:, 1] = 330.0
    assert list(clean_air.find_quiet_stretches(moving)) == [(0, 300), (300, 600)]
    moving[:, 2] = np.linspace(100, 900, 600)
    assert list(clean_air.find_quiet_stretches(moving)) == []
    assert list(clean_air.find_quiet_stretches(still[:100])) == []


@pytest.mark.parametrize(
    ("board", "rate_hz", "hours"),
    [("substances", 1.0, 0.1), ("mixtures", 10.0, 0.1 * clean_air.FAST_BOARD_SHARE)],
)
def test_all_models_run_together_on_a_board(board: str, rate_hz: float, hours: float) -> None:
    bundles = [load_bundle(name) for name in RIG_BUNDLES]
    found = clean_air.run_nose(bundles, board, rate_hz, hours=0.1)
    assert found["hours"] == pytest.approx(hours, abs=0.01)
    assert sum(found["states"].values()) == pytest.approx(1.0, abs=1e-3)
    assert found["states"]["ambient"] > 0.4
    assert found["said"]["onset"]["times"] == 0


@pytest.mark.data
def test_quiet_stretches_of_real_recordings_last_hours(smellnet: Path) -> None:
    data = load_substances(smellnet / "base")
    found = clean_air.count_quiet_alarms(data, SHIPPED)
    assert found["hours"] > 10
    assert found["per_hour"] < 1
