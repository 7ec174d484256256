"""The response is what the channels do above clean air; its direction ignores the strength."""

from __future__ import annotations

import numpy as np
import pytest

from models.response import LAGS_S, feature_count, response_features

CLEAN = np.array([-1.2, -0.8, -2.0, -1.1])
SMELL = np.array([0.6, 1.0, 1.2, 0.3])


def exposure(strength: float, rows: int = 120) -> np.ndarray:
    rise = 1.0 - np.exp(-np.arange(1, rows + 1) / 20.0)
    signals: np.ndarray = CLEAN + strength * rise[:, np.newaxis] * SMELL
    return signals


def test_the_features_are_finite_and_as_many_as_stated() -> None:
    features = response_features(exposure(1.0), CLEAN, 1.0)
    assert features.shape == (120, feature_count(4))
    assert np.isfinite(features).all()


def test_the_direction_does_not_depend_on_the_strength() -> None:
    weak, strong = (response_features(exposure(s), CLEAN, 1.0)[-1] for s in (0.5, 2.0))
    assert weak[:4] == pytest.approx(strong[:4])
    assert strong[4] - weak[4] == pytest.approx(np.log(4.0))


def test_clean_air_has_no_direction() -> None:
    features = response_features(np.tile(CLEAN + 0.01, (50, 1)), CLEAN, 1.0)
    assert np.abs(features[:, :4]).max() < 0.1


def test_changes_count_from_clean_air_before_the_first_row() -> None:
    features = response_features(exposure(1.0), CLEAN, 1.0)
    response, first_lag = features[:, 5:9], features[:, 9:13]
    lag = round(LAGS_S[0])
    assert first_lag[:lag] == pytest.approx(response[:lag])
    assert first_lag[lag:] == pytest.approx(response[lag:] - response[:-lag])


def test_the_shift_of_a_whole_board_changes_nothing() -> None:
    shift = np.array([0.4, -0.3, 0.1, 0.2])
    moved = response_features(exposure(1.0) + shift, CLEAN + shift, 1.0)
    assert moved == pytest.approx(response_features(exposure(1.0), CLEAN, 1.0))


def test_a_channel_that_is_missing_leaves_the_others() -> None:
    signals = exposure(1.0)
    signals[:, 2] = np.nan
    features = response_features(signals, CLEAN, 1.0)
    assert np.isnan(features[:, 2]).all()
    assert np.isfinite(features[:, [0, 1, 3, 4]]).all()
