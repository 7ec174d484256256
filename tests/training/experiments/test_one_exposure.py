"""A general encoder of exposures: simulated rigs, training by episodes, and the comparison."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.recogniser import TaughtExposure
from models.response import RECOGNISER_SIGNALS, ROW_S, ResponseRows
from training.experiments.one_exposure import compare_encoder, simulate_rigs
from training.network.general_encoder import SPEC, exposure_features, train_encoder
from training.simulator.exposure_rows import simulate_rows

SIGNALS = list(RECOGNISER_SIGNALS)


def test_a_simulated_exposure_rises_from_clean_air_and_repeats_for_the_same_seed() -> None:
    first, again = (simulate_rows(1, 0, "cinnamon", np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.response, again.response)
    assert first.size[0] < first.size[-1]
    lag = round(10.0 / ROW_S)
    np.testing.assert_allclose(first.changes[lag:, 0], first.response[lag:] - first.response[:-lag])
    np.testing.assert_allclose(first.changes[0, 1], first.response[0])


def test_another_day_and_another_rig_change_the_direction_of_a_response() -> None:
    def direction(rig: int, day: int) -> np.ndarray:
        end = simulate_rows(rig, day, "garlic", np.random.default_rng(0)).response[-1, SIGNALS]
        unit: np.ndarray = end / np.linalg.norm(end)
        return unit

    assert direction(1, 0) @ direction(1, 1) < 0.999
    assert direction(1, 0) @ direction(2, 0) < 0.999


def test_a_weak_smell_has_the_features_of_a_strong_one() -> None:
    strong = np.tile([2.0, 1.0, 1.5, 0.5, 0, 0, 0, 0.3], (20, 1))
    rows = [ResponseRows(k * strong, np.zeros((20, 2, 8))) for k in (1.0, 0.5)]
    np.testing.assert_allclose(exposure_features(rows[0]), exposure_features(rows[1]), atol=1e-6)


def test_a_missing_channel_counts_as_zero() -> None:
    response = np.full((5, 8), 1.0)
    response[:, SIGNALS[-1]] = np.nan
    features = exposure_features(ResponseRows(response, np.zeros((5, 2, 8))))
    assert features.shape == (5, SPEC.n_features)
    assert (features[:, len(SIGNALS) - 1] == 0).all()


def test_training_is_repeatable_and_lowers_the_loss() -> None:
    rigs = simulate_rigs(0, 3)
    losses: list[float] = []
    encoder = train_encoder(
        rigs, [1.0] * 3, steps=40, seed=0, on_step=lambda _step, loss: losses.append(loss)
    )
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    window = next(iter(rigs[0].values()))["0"][0]
    again = train_encoder(rigs, [1.0] * 3, steps=40, seed=0)
    np.testing.assert_array_equal(encoder.embed([window]), again.embed([window]))


@pytest.mark.slow
def test_both_are_compared_on_a_rig_that_the_encoder_never_saw() -> None:
    def exposures(rig: int) -> list[TaughtExposure]:
        return [
            TaughtExposure(label, f"day-{day}", simulate_rows(rig, day, label, rng))
            for label in ("garlic", "lemon", "mint")
            for day in range(2)
        ]

    rng = np.random.default_rng(0)
    real = {"one": exposures(1), "two": exposures(2)}
    compared = compare_encoder(real, steps=2, seeds=1, draws=1)
    assert [one.rig for one in compared] == ["one", "two"]
    assert all(one.exposures == 6 and len(one.encoder) == 4 for one in compared)
