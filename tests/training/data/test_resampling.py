"""Recordings brought to a model's rate."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS
from training.data.resampling import LONGEST_LINE_S, resample


def ramp(seconds: np.ndarray) -> np.ndarray:
    """Return readings that equal the time in seconds, in every channel."""
    return np.repeat(seconds[:, None], N_CHANNELS, axis=1).astype(np.float32)


@given(st.lists(st.floats(0.5, 5.0), min_size=2, max_size=30))
def test_a_straight_line_stays_one_and_ends_with_the_last_reading(steps_s: list[float]) -> None:
    seconds = np.cumsum([0.0, *steps_s])
    result = resample(ramp(seconds), seconds * 1000, 0.3, 1.0)
    assert len(result) == int(seconds[-1] + 1e-9) + 1
    np.testing.assert_allclose(result, ramp(np.arange(len(result), dtype=float)), atol=1e-4)


@given(st.integers(2, 20))
def test_later_readings_do_not_change_earlier_values(cut: int) -> None:
    seconds = np.arange(21) * 2.7
    values = ramp(np.sin(seconds))
    whole = resample(values, seconds * 1000, 1 / 2.7, 1.0)
    part = resample(values[:cut], seconds[:cut] * 1000, 1 / 2.7, 1.0)
    np.testing.assert_array_equal(part, whole[: len(part)])


def test_a_long_pause_and_a_missing_reading_are_not_filled() -> None:
    seconds = np.array([0.0, 2.0, 4.0, 6.0 + LONGEST_LINE_S, 8.0 + LONGEST_LINE_S])
    values = ramp(seconds)
    values[1, 3] = np.nan
    result = resample(values, seconds * 1000, 0.5, 1.0)
    assert np.isnan(result[1:4, 3]).all()
    assert np.isfinite(result[:4, 2]).all()
    assert np.isnan(result[5:15]).all()
    assert result[-1, 0] == seconds[-1]


def test_faster_recordings_are_averaged_and_close_rates_left_alone() -> None:
    values = ramp(np.arange(20, dtype=float))
    np.testing.assert_allclose(resample(values, None, 10.0, 1.0)[:, 0], [4.5, 14.5])
    assert resample(values, None, 0.9, 1.0) is values
