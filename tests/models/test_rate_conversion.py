"""Whole recordings brought to a model's rate."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS
from models.rate_conversion import resample


def ramp(seconds: np.ndarray) -> np.ndarray:
    """Return readings that equal the time in seconds, in every channel."""
    return np.repeat(seconds[:, None], N_CHANNELS, axis=1).astype(np.float32)


@given(st.integers(2, 20))
def test_later_readings_do_not_change_earlier_values(cut: int) -> None:
    seconds = np.arange(21) * 2.7
    values = ramp(np.sin(seconds))
    whole = resample(values, seconds * 1000, 1 / 2.7, 1.0)
    part = resample(values[:cut], seconds[:cut] * 1000, 1 / 2.7, 1.0)
    assert whole is not None
    assert part is not None
    np.testing.assert_array_equal(part, whole[: len(part)])


def test_a_slow_board_is_interpolated_as_the_nose_does() -> None:
    seconds = np.arange(10) * 2.7
    result = resample(ramp(seconds), seconds * 1000, 1 / 2.7, 1.0)
    assert result is not None
    np.testing.assert_allclose(result, ramp(np.arange(25.0)), atol=1e-4)


def test_a_pause_is_rows_without_a_reading() -> None:
    seconds = np.array([0.0, 2.0, 4.0, 6.0, 40.0, 42.0, 44.0])
    result = resample(ramp(seconds), seconds * 1000, 0.5, 1.0)
    assert result is not None
    assert len(result) == 45
    np.testing.assert_allclose(result[:7, 0], np.arange(7.0))
    assert np.isnan(result[8:39]).all()
    np.testing.assert_allclose(result[40:, 0], np.arange(40.0, 45.0))


def test_times_that_run_backwards_are_left_out() -> None:
    seconds = np.array([0.0, 2.0, 1.0, 4.0, 6.0])
    result = resample(ramp(seconds), seconds * 1000, 0.5, 1.0)
    assert result is not None
    np.testing.assert_allclose(result[:, 0], np.arange(7.0))


def test_faster_recordings_are_averaged_and_close_rates_left_alone() -> None:
    values = ramp(np.arange(20, dtype=float))
    averaged = resample(values, None, 10.0, 1.0)
    assert averaged is not None
    np.testing.assert_allclose(averaged[:, 0], [4.5, 14.5])
    assert resample(values, None, 0.9, 1.0) is values


def test_a_board_that_is_too_slow_says_so() -> None:
    assert resample(ramp(np.arange(20.0)), None, 0.2, 1.0) is None
