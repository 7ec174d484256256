"""Interpolation of a slower board up to a model's rate."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS
from models.rate_conversion import (
    RATE_RATIO,
    Conversion,
    RateConverter,
    conversion,
    convert_recording,
)
from models.resampler import Resampler
from models.timing import lost_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


def columns(readings: list[float]) -> NDArray[np.float32]:
    """Return the readings in every channel."""
    return np.repeat(np.array(readings, dtype=np.float32)[:, None], N_CHANNELS, axis=1)


def resample(
    readings: list[float], t_ms: list[int], board_hz: float, *, longest_gap: int = 3
) -> tuple[list[float], list[int]]:
    """Return the first channel's samples at 1 Hz, and the samples lost before each."""
    period_ms = 1000.0 / board_hz
    lost = [0, *(lost_samples(b - a, period_ms) for a, b in itertools.pairwise(t_ms))]
    samples, gaps = Resampler(board_hz, 1.0, longest_gap).feed(
        columns(readings), np.array(lost), np.array(t_ms)
    )
    return samples[:, 0].tolist(), gaps.tolist()


def test_samples_lie_on_the_models_grid_between_the_readings() -> None:
    samples, gaps = resample([0, 27, 54], [0, 2700, 5400], 1 / 2.7)
    assert samples == pytest.approx([0, 10, 20, 30, 40, 50])
    assert gaps == [0] * 6


def test_irregular_readings_give_evenly_spaced_samples() -> None:
    """A line stays a line, whatever the times of its readings."""
    times = np.cumsum([0, *np.random.default_rng(4).integers(1800, 3600, 60)]).tolist()
    samples, gaps = resample([t / 100 for t in times], times, 1 / 2.7)
    assert samples == pytest.approx((np.arange(len(samples)) * 10.0).tolist(), rel=1e-5)
    assert len(samples) == times[-1] // 1000 + 1
    assert not any(gaps)


def test_no_sample_comes_before_the_reading_after_it() -> None:
    resampler = Resampler(1 / 2.7, 1.0, 3)
    none = np.zeros(1, dtype=np.int64)
    counts = [
        len(resampler.feed(columns([0.0]), none, np.array([t_ms]))[0])
        for t_ms in (0, 2700, 5400, 8100)
    ]
    assert counts == [1, 2, 3, 3]


def test_an_unusable_reading_makes_the_samples_on_both_sides_unusable() -> None:
    samples, _ = resample([0, 20, np.nan, 60, 80], [0, 2000, 4000, 6000, 8000], 0.5)
    np.testing.assert_array_equal(
        samples, np.float32([0, 10, 20, np.nan, np.nan, np.nan, 60, 70, 80])
    )


def test_a_lost_reading_counts_as_lost_samples_up_to_a_period_before_the_next() -> None:
    """Between 2 s and 8 s two readings are missing: 3 to 6 s are lost, 7 s is interpolated."""
    samples, gaps = resample([0, 20, 80], [0, 2000, 8000], 0.5, longest_gap=4)
    assert samples == pytest.approx([0, 10, 20, 70, 80])
    assert gaps == [0, 0, 0, 4, 0]


def test_a_longer_gap_begins_anew_and_is_never_interpolated() -> None:
    samples, gaps = resample([0, 20, 80, 100], [0, 2000, 8500, 10500], 0.5, longest_gap=3)
    assert samples == pytest.approx([0, 10, 20, 80, 90, 100])
    assert gaps == [0, 0, 0, 6, 0, 0]


READINGS = st.lists(st.sampled_from([1.0, 2.0, 7.5, 640.0, float("nan")]), min_size=1, max_size=60)


@given(
    readings=READINGS,
    board_hz=st.sampled_from([0.25, 1 / 2.7, 0.5, 0.66, 2.5, 3.3]),
    wanted_hz=st.sampled_from([1.0, 3.0, 10.0]),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    seed=st.integers(0, 1000),
)
def test_resampling_does_not_depend_on_the_chunking(
    readings: list[float], board_hz: float, wanted_hz: float, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    period_ms = 1000.0 / board_hz
    missed = np.where(rng.random(len(readings)) < 0.15, rng.integers(1, 8, len(readings)), 0)
    jitter = rng.uniform(0.7, 1.4, len(readings))
    t_ms = 17 + np.cumsum(np.maximum(1, np.rint((missed + jitter) * period_ms))).astype(np.int64)
    lost = np.array([0, *(lost_samples(int(step), period_ms) for step in np.diff(t_ms))])
    values = columns(readings)
    whole = Resampler(board_hz, wanted_hz, 3).feed(values, lost, t_ms)
    chunked = Resampler(board_hz, wanted_hz, 3)
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [chunked.feed(values[a:b], lost[a:b], t_ms[a:b]) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole[0])
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), whole[1])


@given(seed=st.integers(0, 1000), board_hz=st.floats(0.25, 0.69))
def test_samples_and_losses_cover_the_time_of_the_recording(seed: int, board_hz: float) -> None:
    rng = np.random.default_rng(seed)
    period_ms = 1000.0 / board_hz
    steps = rng.uniform(0.75, 1.3, 40) * period_ms * rng.choice([1, 1, 1, 1, 2, 5], 40)
    t_ms = np.cumsum(np.rint(steps)).astype(np.int64)
    values = rng.normal(300, 20, (40, N_CHANNELS)).astype(np.float32)
    samples, gaps = convert_recording(values, t_ms, board_hz, 1.0, max_hold=3)
    covered_s = len(samples) + int(gaps.sum()) - 1
    restarts = int((gaps > 3).sum())
    assert covered_s == pytest.approx((t_ms[-1] - t_ms[0]) / 1000.0, abs=1 + restarts / 2)


@pytest.mark.parametrize(
    ("board_hz", "expected"),
    [
        (0.2, Conversion.IMPOSSIBLE),
        (0.2499, Conversion.INTERPOLATED),  # a measured quarter
        (0.37, Conversion.INTERPOLATED),
        (0.69, Conversion.INTERPOLATED),
        (0.7, Conversion.AVERAGED),
        (1.0, Conversion.AVERAGED),
        (1.6, Conversion.AVERAGED),
        (10.0, Conversion.AVERAGED),
    ],
)
def test_a_board_down_to_a_quarter_of_the_rate_feeds_a_model(
    board_hz: float, expected: Conversion
) -> None:
    assert conversion(board_hz, 1.0) is expected


def test_a_narrow_ratio_interpolates_what_it_does_not_take_for_its_rate() -> None:
    assert conversion(1.2, 1.0, (0.95, 1.05)) is Conversion.INTERPOLATED
    assert conversion(2.3, 1.0, (0.95, 1.05)) is Conversion.IMPOSSIBLE
    assert conversion(2.3, 1.0, RATE_RATIO) is Conversion.AVERAGED


@pytest.mark.parametrize(("board_hz", "rate_hz"), [(0.37, 1.0), (0.8, 0.8), (10.0, 1.0)])
def test_the_converters_rate_is_that_of_its_samples(board_hz: float, rate_hz: float) -> None:
    converter = RateConverter(board_hz, 1.0, max_hold=3)
    assert converter.rate_hz == pytest.approx(rate_hz)
    t_ms = np.rint(np.arange(200) * 1000 / board_hz).astype(np.int64)
    values = np.ones((200, N_CHANNELS), dtype=np.float32)
    samples, gaps = converter.feed(values, np.zeros(200, dtype=np.int64), t_ms)
    assert len(samples) == pytest.approx(199 / board_hz * rate_hz, abs=2)
    assert not gaps.any()
