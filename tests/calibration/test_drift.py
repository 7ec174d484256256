"""Warm-up, slow drift, and the chart that detects it."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.baseline import measure_baseline
from calibration.drift import (
    SHORTEST_WARM_UP_S,
    BaselineTracker,
    ControlChart,
    Settling,
)
from hardware.channels import N_GAS
from models.signals import GAS_NAMES
from tests.calibration.air import LEVELS, clean_air


def _warming(seconds: int, time_constant_s: float = 40.0) -> np.ndarray:
    rise = 1.5 * np.exp(-np.arange(seconds) / time_constant_s)
    return LEVELS - np.outer(rise, np.eye(N_GAS)[3])


def test_a_warm_up_ends_with_its_slopes_and_names_the_slow_channel() -> None:
    settling = Settling()
    settled = [settling.update(row, 1.0) for row in _warming(60)]
    assert not any(settled)
    assert settling.unsettled == ("CO",)
    assert settling.slopes_per_min[3] > 0.02
    settled = [settling.update(row, 1.0) for row in _warming(600)[60:]]
    assert settled[-1]
    assert settling.unsettled == ()


def test_slopes_are_per_minute_at_any_rate() -> None:
    for dt_s in (0.1, 1.0):
        settling = Settling()
        for step in range(round(300 / dt_s)):
            settling.update(LEVELS + 0.05 * step * dt_s / 60.0, dt_s)
        assert settling.slopes_per_min[GAS_NAMES.index("VOC")] == pytest.approx(0.05, rel=0.05)


def test_a_warm_up_takes_its_shortest_time_however_quiet_it_is() -> None:
    settling = Settling()
    settled = [settling.update(LEVELS, 1.0) for _ in range(100)]
    assert settled.index(True) == SHORTEST_WARM_UP_S - 1


def test_a_missing_channel_does_not_delay_settling() -> None:
    settling = Settling()
    row = LEVELS.copy()
    row[2] = np.nan
    assert [settling.update(row, 1.0) for _ in range(100)][-1]


def test_the_tracker_follows_clean_air_over_hours() -> None:
    tracker = BaselineTracker(measure_baseline(clean_air(120), 1.0))
    for _ in range(24 * 60):
        tracker.update(LEVELS + 0.2, 60.0)
    assert tracker.drift["NO2"] == pytest.approx(0.2, abs=0.01)


def test_a_week_of_weather_raises_almost_no_alarm() -> None:
    chart = ControlChart(measure_baseline(clean_air(120), 1.0))
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(7 * 24 * 6):
        assert chart.update(LEVELS + 0.04 * rng.standard_normal(N_GAS), 600.0)
        alarms += chart.reason is not None
    assert alarms <= 2


def test_the_chart_gives_the_reason_when_a_channel_ages() -> None:
    chart = ControlChart(measure_baseline(clean_air(120), 1.0))
    aged = LEVELS + 0.3 * np.eye(N_GAS)[1]
    points = 0
    while chart.reason is None:
        points += chart.update(aged, 60.0)
        assert points < 20
    assert chart.reason.startswith("C2H5OH in clean air reads +")


def test_a_point_is_a_mean_over_its_time() -> None:
    chart = ControlChart(measure_baseline(clean_air(120), 1.0))
    made = [chart.update(LEVELS, 60.0) for _ in range(30)]
    assert [place for place, new in enumerate(made) if new] == [9, 19, 29]
