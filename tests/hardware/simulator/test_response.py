"""The physics: power laws, lags, noise and quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.channels import N_GAS
from hardware.simulator.response import (
    LaggedSensors,
    SmoothNoise,
    gas_readings,
    mixed_loadings,
    relaxed_response,
)
from hardware.simulator.tables import RELAXATION_TIMES_S, Fingerprint, load_board

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


def test_a_fingerprint_gives_its_response_in_the_middle_of_an_exposure() -> None:
    fingerprint = Fingerprint(np.linspace(-1, 2, N_GAS), np.full((N_GAS, 5), -0.5), np.ones(N_GAS))
    np.testing.assert_allclose(relaxed_response(fingerprint, 300.0, 300.0), fingerprint.response)
    early = relaxed_response(fingerprint, 0.0, 300.0)
    assert np.all(early < fingerprint.response)
    assert np.all(np.abs(early - fingerprint.response) <= 0.5 * len(RELAXATION_TIMES_S))


def test_sensors_rise_and_recover_monotonically_with_their_own_time_constants() -> None:
    recovery_s = np.linspace(20, 60, N_GAS)
    rise_s = np.linspace(5, 19, N_GAS)
    sensors = LaggedSensors(np.zeros(N_GAS), recovery_s)
    target = np.array([1.0, -1.0] * (N_GAS // 2))
    rising = np.array([sensors.step(target, rise_s, 0.5) for _ in range(400)])
    falling = np.array([sensors.step(np.zeros(N_GAS), rise_s, 0.5) for _ in range(400)])
    assert np.all(np.diff(np.abs(rising), axis=0) >= 0)
    assert np.all(np.abs(rising) <= 1)
    assert np.all(np.diff(np.abs(falling), axis=0) <= 0)
    to_most = 0.5 * (1 + np.argmax(np.abs(rising) >= 1 - np.exp(-1), axis=0))
    np.testing.assert_allclose(to_most, rise_s, atol=0.5)
    to_little = 0.5 * (1 + np.argmax(np.abs(falling) <= np.abs(rising[-1]) * np.exp(-1), axis=0))
    np.testing.assert_allclose(to_little, recovery_s, atol=0.5)


def test_the_step_size_does_not_change_a_sensors_level() -> None:
    start, target, tau = np.zeros(N_GAS), np.ones(N_GAS), np.full(N_GAS, 7.0)
    coarse, fine = LaggedSensors(start, tau), LaggedSensors(start, tau)
    coarse.step(target, tau, 3.0)
    for _ in range(30):
        fine.step(target, tau, 0.1)
    np.testing.assert_allclose(coarse.level, fine.level)


def test_smooth_noise_has_unit_variance_and_the_stated_autocorrelation() -> None:
    tau_s = np.array([4.0, 12.0])
    noise = SmoothNoise(tau_s, 1.0, np.random.default_rng(3))
    walk = np.array([noise.step() for _ in range(60_000)])
    np.testing.assert_allclose(walk.var(axis=(0, 2)), 1, rtol=0.1)
    for lag in (1, 5, 15):
        measured = np.mean(walk[lag:] * walk[:-lag], axis=(0, 2))
        np.testing.assert_allclose(measured, (1 + lag / tau_s) * np.exp(-lag / tau_s), atol=0.06)


def test_smooth_noise_is_stationary_from_its_first_step() -> None:
    first = [
        SmoothNoise(np.array([30.0]), 1.0, np.random.default_rng(seed)).step()
        for seed in range(2000)
    ]
    assert np.var(first) == pytest.approx(1, rel=0.1)


def test_loadings_of_a_mixture_lie_between_those_of_its_parts() -> None:
    board = load_board()
    quiet, loud = board.loadings["pili_nut"], board.loadings["nutmeg"]
    mixed = mixed_loadings(board, ["pili_nut", "nutmeg"], [0.5, 0.5])
    for band in range(len(mixed)):
        expected = (quiet[band] @ quiet[band].T + loud[band] @ loud[band].T) / 2
        np.testing.assert_allclose(mixed[band] @ mixed[band].T, expected, atol=1e-12)


def test_every_part_sends_numbers_of_its_own_resolution() -> None:
    level = load_board().clean_air
    rng = np.random.default_rng(0)
    readings = np.array(
        [gas_readings(level + rng.normal(0, 3, N_GAS), rng.normal(0, 1, N_GAS)) for _ in range(500)]
    )
    grove, mq, kilohm = readings[:, :4], readings[:, 4:7], readings[:, 7]
    assert np.all((grove >= 0) & (grove <= 1023))
    np.testing.assert_array_equal(grove, np.rint(grove))
    np.testing.assert_array_equal(mq, np.rint(mq))
    assert np.all(mq >= 0)
    np.testing.assert_array_equal(kilohm, np.round(kilohm.astype(float), 2).astype(np.float32))
