"""Features: any chunking equals the batch, gaps hold or reset, constants are applied."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from models.preprocess import (
    FeatureStream,
    Lineariser,
    PreprocessError,
    PreprocessSpec,
    batch_features,
    protocol_windows,
)

GROVE = CHANNEL_NAMES[:4]
SPECS = [
    PreprocessSpec(channels=GROVE, rate_hz=10.0, lags=(25,), window=30, min_steps=5),
    PreprocessSpec(
        channels=(*CHANNEL_NAMES[:6], "Gas_Resistance"),
        rate_hz=1.0,
        lags=(2, 7, 13),
        first_step=7,
        window=20,
        min_steps=4,
        center=tuple(np.linspace(-0.1, 0.1, 21)),
        scale=tuple(np.linspace(0.5, 2.0, 21)),
    ),
    PreprocessSpec(
        channels=CHANNEL_NAMES[:6],
        rate_hz=1.0,
        linearise="raw",
        lags=(3,),
        first_step=3,
        window=11,
        min_steps=4,
        round_readings=True,
    ),
    PreprocessSpec(
        channels=GROVE,
        rate_hz=10.0,
        lags=(0, 4, 9),
        first_step=4,
        window=12,
        min_steps=4,
        center=tuple(np.linspace(-1.0, 1.0, 12)),
        scale=tuple(np.linspace(0.5, 2.0, 12)),
    ),
]


def readings(seed: int, count: int) -> np.ndarray:
    """Return plausible readings float32[count, 12] with a few unusable ones."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 1000, size=(count, N_CHANNELS)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    return values


@given(
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 2**16),
    count=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    gaps=st.dictionaries(st.integers(0, 399), st.integers(1, 6), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_any_chunking_gives_the_same_bits_as_the_batch(
    spec: PreprocessSpec, seed: int, count: int, cuts: list[int], gaps: dict[int, int]
) -> None:
    values = readings(seed, count)
    lost = np.zeros(count, dtype=np.int64)
    for place, missing in gaps.items():
        if place < count:
            lost[place] = missing
    segments = batch_features(values, spec, lost)

    stream = FeatureStream(spec, keep=3000)
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    for start, end in itertools.pairwise(edges):
        stream.extend(values[start:end], lost[start:end])
    x, mask = stream.window()

    expected = segments[-1] if segments else None
    assert x.shape[0] == (0 if expected is None else expected.x.shape[0])
    if expected is not None:
        assert x.tobytes() == expected.x.tobytes()
        assert mask.tobytes() == expected.mask.tobytes()


@given(seed=st.integers(0, 2**16), count=st.integers(1, 120))
@settings(max_examples=50, deadline=None)
def test_one_sample_at_a_time_gives_the_same_bits_as_the_batch(seed: int, count: int) -> None:
    spec = SPECS[1]
    values = readings(seed, count)
    stream = FeatureStream(spec, keep=500)
    for row in values:
        stream.extend(row[None])
    assert stream.window()[0].tobytes() == batch_features(values, spec)[0].x.tobytes()


def test_first_row_comes_after_first_step_and_longer_lags_reach_to_the_oldest_sample() -> None:
    spec = PreprocessSpec(
        channels=("NO2",), rate_hz=1, linearise="raw", lags=(2, 10), first_step=3, min_steps=1
    )
    values = np.full((12, N_CHANNELS), np.nan, dtype=np.float32)
    values[:, 0] = np.arange(12) ** 2
    stream = FeatureStream(spec)
    stream.extend(values[:3])
    assert stream.steps == 0
    stream.extend(values[3:])
    x, _ = stream.window()
    squares = np.arange(12.0) ** 2
    np.testing.assert_array_equal(x[:, 0], np.clip(squares[3:] - squares[1:10], -8, 8))
    wide = PreprocessSpec(
        channels=("NO2",),
        rate_hz=1,
        linearise="raw",
        lags=(2, 10),
        first_step=3,
        min_steps=1,
        clip=1e6,
    )
    x = batch_features(values, wide)[0].x
    np.testing.assert_array_equal(x[:7, 1], squares[3:10])
    np.testing.assert_array_equal(x[7:, 1], squares[10:] - squares[:2])


def test_a_lag_of_zero_is_the_level_and_a_channel_without_readings_is_at_its_center() -> None:
    spec = PreprocessSpec(
        channels=("NO2", "VOC"), rate_hz=1, lags=(0, 3), first_step=3, min_steps=1,
        center=(0.5, 1.0, 0.0, 0.0), scale=(2.0, 1.0, 1.0, 1.0),
    )  # fmt: skip
    assert spec.n_levels == 2
    values = np.full((10, N_CHANNELS), np.nan, dtype=np.float32)
    values[:, 0] = np.linspace(200, 400, 10)
    x = batch_features(values, spec)[0].x
    levels = Lineariser(spec)(values)[3:, 0]
    np.testing.assert_allclose(x[:, 0], (levels - 0.5) / 2.0, rtol=1e-6)
    np.testing.assert_array_equal(x[:, 1], 0.0)
    np.testing.assert_allclose(x[:, 2], levels - Lineariser(spec)(values)[:-3, 0], rtol=1e-6)


def test_log_differences_cancel_baseline_and_gain() -> None:
    spec = PreprocessSpec(
        channels=("Alcohol", "Gas_Resistance"), rate_hz=1, lags=(5,), first_step=5
    )
    rng = np.random.default_rng(5)
    values = rng.uniform(5, 500, size=(60, N_CHANNELS)).astype(np.float32)
    scaled = values * np.float32(4.0)
    np.testing.assert_allclose(
        batch_features(values, spec)[0].x, batch_features(scaled, spec)[0].x, atol=2e-6
    )


def test_a_lag_of_0_is_the_level_less_its_mean() -> None:
    spec = PreprocessSpec(
        channels=("NO2", "VOC"), rate_hz=1.0, lags=(0, 3), first_step=3, window=20, min_steps=4,
        center=(-1.0, 0.5, 0.0, 0.0), scale=(0.5, 2.0, 1.0, 1.0),
    )  # fmt: skip
    values = np.full((40, N_CHANNELS), np.nan, dtype=np.float32)
    values[:, 0], values[:, 2] = np.arange(200, 240), 300
    [segment] = batch_features(values, spec)
    signal = Lineariser(spec)(values)[3:]
    assert spec.n_levels == 2
    expected = (signal - [-1.0, 0.5]) / [0.5, 2.0]
    np.testing.assert_allclose(segment.x[:, :2], expected, rtol=1e-5)
    values[:, 2] = np.nan
    assert (batch_features(values, spec)[0].x[:, 1] == 0).all()


def test_linearisation_follows_each_part() -> None:
    spec = PreprocessSpec(channels=("NO2", "Alcohol", "Gas_Resistance"), rate_hz=1)
    values = np.full((1, N_CHANNELS), np.nan, dtype=np.float32)
    values[0, 0], values[0, 4], values[0, 10] = 341.0, 0.0, np.e
    expected = [[np.log(341 / 682), np.log(0.5), -1.0]]
    np.testing.assert_allclose(Lineariser(spec)(values), expected, rtol=1e-6)


def test_rounding_removes_the_decimals_of_an_export() -> None:
    spec = PreprocessSpec(channels=("NO2",), rate_hz=10, round_readings=True)
    values = np.full((2, N_CHANNELS), 200.0, dtype=np.float32)
    values[1] = 200.4
    signals = Lineariser(spec)(values)
    assert signals[0] == signals[1]


def test_short_gap_is_held_and_masked_and_long_gap_resets() -> None:
    spec = PreprocessSpec(
        channels=("NO2",), rate_hz=1, lags=(2,), first_step=2, min_steps=1, max_hold=3
    )
    values = readings(1, 10)
    lost = np.zeros(10, dtype=np.int64)
    lost[5] = 3
    stream = FeatureStream(spec)
    stream.extend(values, lost)
    _, mask = stream.window()
    assert mask.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert stream.resets == 0
    lost[5] = 4
    stream = FeatureStream(spec)
    stream.extend(values, lost)
    assert (stream.resets, stream.samples) == (1, 5)


def test_unusable_channel_contributes_its_mean_change() -> None:
    spec = SPECS[1]
    values = readings(3, 60)
    values[:, 4] = np.nan
    x = batch_features(values, spec)[0].x
    assert np.all(x[:, 4::7] == 0.0)


def test_protocol_window_k_starts_at_sample_50k() -> None:
    spec = PreprocessSpec(channels=GROVE, rate_hz=1, lags=(25, 50))
    values = readings(9, 320)
    windows = protocol_windows(batch_features(values, spec)[0], spec)
    assert windows.shape == (4, 100, 8)
    for k in range(4):
        alone = batch_features(values[50 * k : 50 * k + 150], spec)[0]
        np.testing.assert_array_equal(windows[k], alone.x[25:])


def test_all_invalid_constants_are_named_at_once() -> None:
    with pytest.raises(PreprocessError) as caught:
        PreprocessSpec(
            channels=("NO2",), rate_hz=0, lags=(5, 2), min_steps=500, scale=(1.0, 2.0, 3.0)
        )
    for word in ("lags", "min_steps", "rate_hz", "scale"):
        assert word in str(caught.value)


def test_environment_channel_has_no_log_conductance() -> None:
    with pytest.raises(PreprocessError, match="Humidity"):
        PreprocessSpec(channels=("NO2", "Humidity"), rate_hz=1)
