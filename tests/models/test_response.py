"""The response is what lies above clean air; its direction ignores the strength."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import N_GAS
from models.response import (
    LAGS_S,
    LONGEST_GAP_S,
    N_FEATURES,
    RECOGNISER_SIGNALS,
    ROW_S,
    ResponseRows,
    ResponseStream,
)

CLEAN = np.array([-1.2, -0.8, -2.0, -1.1, 1.0, 3.0, 0.5, -4.0])
SMELL = np.array([0.6, 1.0, 1.2, 0.3, 0.5, 0.4, 0.1, 0.8])
CHANNELS = len(RECOGNISER_SIGNALS)


def signals_at(times_s: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Return the signals of a smell that begins at 0 s."""
    rise = 1.0 - np.exp(-np.maximum(times_s, 0.0) / 20.0)
    signals: np.ndarray = CLEAN + strength * rise[:, np.newaxis] * SMELL
    return signals


def rows_of(times_s: np.ndarray, signals: np.ndarray, clean: np.ndarray = CLEAN) -> ResponseRows:
    """Return the rows of samples of an exposure that begins at 0 s."""
    stream = ResponseStream()
    started, rows = False, []
    for t_s, sample in zip(times_s, signals, strict=True):
        if t_s >= 0.0 and not started:
            stream.start(clean, 0.0)
            started = True
        rows += stream.add(t_s, sample)
    return ResponseRows.of(rows)


def exposure(strength: float = 1.0, seconds: int = 120) -> ResponseRows:
    times_s = np.arange(-10.0, seconds + 1.0)
    return rows_of(times_s, signals_at(times_s, strength))


def test_there_is_a_row_every_five_seconds_with_as_many_features_as_stated() -> None:
    rows = exposure()
    assert len(rows) == 1 + 120 / ROW_S
    assert rows.features().shape == (len(rows), N_FEATURES)
    assert np.isfinite(rows.features()).all()


def test_the_direction_does_not_depend_on_the_strength() -> None:
    weak, strong = (exposure(strength).features()[-1] for strength in (0.5, 2.0))
    assert weak[:CHANNELS] == pytest.approx(strong[:CHANNELS])
    assert strong[CHANNELS] - weak[CHANNELS] == pytest.approx(np.log(4.0))


def test_clean_air_has_no_direction() -> None:
    assert np.abs(exposure(0.01).features()[:, :CHANNELS]).max() < 0.1


def test_changes_are_over_the_lags_and_from_clean_air_before_the_first_sample() -> None:
    times_s = np.arange(0.0, 121.0)
    rows = rows_of(times_s, signals_at(times_s))
    at_s = np.arange(len(rows)) * ROW_S
    for number, lag_s in enumerate(LAGS_S):
        expected = signals_at(at_s) - signals_at(at_s - lag_s)
        assert rows.changes[:, number] == pytest.approx(expected)


def test_the_shift_of_a_whole_board_changes_nothing() -> None:
    shift = np.linspace(-0.4, 0.4, N_GAS)
    times_s = np.arange(0.0, 121.0)
    moved = rows_of(times_s, signals_at(times_s) + shift, CLEAN + shift)
    assert moved.features() == pytest.approx(rows_of(times_s, signals_at(times_s)).features())


def test_a_channel_that_is_missing_leaves_the_others() -> None:
    times_s = np.arange(0.0, 121.0)
    signals = signals_at(times_s)
    signals[:, RECOGNISER_SIGNALS[2]] = np.nan
    features = rows_of(times_s, signals).features()
    assert np.isnan(features[:, 2]).all()
    assert np.isfinite(features[:, [0, 1, 3, CHANNELS]]).all()


def test_a_single_unusable_reading_is_held() -> None:
    times_s = np.arange(0.0, 121.0)
    signals = signals_at(times_s)
    signals[60] = np.nan
    assert np.isfinite(rows_of(times_s, signals).features()).all()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 9.0), st.integers(0, 1000))
def test_slow_and_jittering_boards_give_the_rows_of_a_fast_one(period_s: float, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(0.8, 1.2, 2000)
    times_s = np.cumsum(period_s * jitter)
    times_s = np.concatenate([[0.0], times_s[times_s < 150.0]])
    slow = rows_of(times_s, signals_at(times_s))
    fine_s = np.arange(0.0, 150.0, 0.1)
    fast = rows_of(fine_s, signals_at(fine_s))[: len(slow)]
    # Linear interpolation of an exponential with a time constant of 20 s.
    assert np.abs(slow.response - fast.response).max() < (1.2 * period_s / 20.0) ** 2 / 8 * 1.3


def test_a_long_gap_has_no_rows() -> None:
    times_s = np.concatenate([np.arange(0.0, 60.0), np.arange(60.0 + 2 * LONGEST_GAP_S, 150.0)])
    rows = rows_of(times_s, signals_at(times_s))
    assert len(rows) < len(exposure(seconds=149)) - LONGEST_GAP_S / ROW_S
