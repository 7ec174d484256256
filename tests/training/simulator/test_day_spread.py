"""How exposures differ within a day and between days, on made-up and on real exposures."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.channels import N_GAS
from hardware.simulator.tables import load_day_spread
from training.simulator.day_spread import days_table, measure_days, spread, write_days

if TYPE_CHECKING:
    from pathlib import Path


def test_the_spread_within_and_between_days_is_recovered() -> None:
    rng = np.random.default_rng(1)
    values, labels, days = [], [], []
    for mean, label in enumerate(("almond", "lemon")):
        for day in range(60):
            shift = 0.3 * rng.standard_normal(N_GAS)
            for _ in range(3):
                values.append(mean + shift + 0.1 * rng.standard_normal(N_GAS))
                labels.append(label)
                days.append(str(day))
    measured = spread(np.array(values), labels, days)
    assert np.sqrt(measured.within.diagonal()) == pytest.approx(0.1, rel=0.15)
    assert np.sqrt(measured.between.diagonal()) == pytest.approx(0.3, rel=0.15)
    assert measured.pairs == (2 * 60 * 3, 2 * 9 * 60 * 59 // 2)


def test_a_channel_without_a_measurement_stays_unknown() -> None:
    values = np.random.default_rng(2).standard_normal((6, N_GAS))
    values[:, 4] = np.nan
    measured = spread(values, ["mint"] * 6, ["a", "a", "b", "b", "c", "c"])
    assert np.isnan(measured.between[4]).all()
    assert np.isfinite(np.delete(np.delete(measured.between, 4, 0), 4, 1)).all()


@pytest.mark.data
def test_the_shipped_table_is_what_the_real_rigs_give(smellnet: Path, tmp_path: Path) -> None:
    figures = measure_days(smellnet, smellnet.parent / "rigs")
    write_days(figures, tmp_path)
    measured, shipped = load_day_spread(tmp_path), load_day_spread()
    np.testing.assert_array_equal(measured.clean_air, shipped.clean_air)
    np.testing.assert_array_equal(measured.fingerprint, shipped.fingerprint)
    grove = slice(0, 4)
    within_days = np.sqrt(figures.response.within.diagonal()[grove])
    np.testing.assert_allclose(figures.takes["substances"][grove], within_days, rtol=0.5)
    rows = list(csv.reader(days_table(figures).splitlines(), delimiter="|"))
    assert {len(row) for row in rows[:1] + rows[2:]} == {N_GAS + 3}
