"""Random training windows: equal to the models' features, and changed as the settings say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.channels import channel_index
from models.preprocess import batch_features
from tests.training.exposures import two_days
from tests.training.tiny import PLAIN, SPEC, periodic
from training.config import AugmentConfig
from training.data.clean_air import notice_onset
from training.data.dataset import Dataset
from training.sampling.measurements import measure_rms_scale

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.sampling.windows import WindowSampler  # noqa: E402


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic(rows=120)


@pytest.mark.parametrize("lags", [(3, 6), (0, 3, 6)])
def test_unaugmented_training_windows_are_those_of_the_models(
    data: Dataset, lags: tuple[int, ...]
) -> None:
    spec = measure_rms_scale(dataclasses.replace(SPEC, lags=lags), data, None)
    sampler = WindowSampler(data, spec, PLAIN, seed=4)
    x, mask, target = sampler.batch(32)
    assert mask.min() == 1
    rows = {
        segment.x[start : start + 20].tobytes(): sample.target.argmax()
        for sample in data.samples
        for segment in [batch_features(sample.values, spec)[0]]
        for start in range(3, len(segment.x) - 19)
    }
    stored = {np.frombuffer(key, np.float32).round(3).tobytes(): v for key, v in rows.items()}
    for window, truth in zip(x.numpy(), target.numpy(), strict=True):
        assert stored[window.reshape(-1).round(3).tobytes()] == truth.argmax()


def test_partial_training_windows_start_right_after_a_reset(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, partial=1.0), seed=4)
    x, mask, _ = sampler.batch(64)
    lengths = mask.sum(dim=1)
    assert lengths.min() >= spec.min_steps
    assert len(lengths.unique()) > 5
    # First row of all: 3 samples after the reset, where the lag of 6 reaches to the oldest too.
    scale = torch.tensor(spec.scale)
    torch.testing.assert_close(x[:, 0, :2] * scale[:2], x[:, 0, 2:] * scale[2:])


def test_windows_from_the_start_begin_with_the_recording(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, from_start=1.0), seed=4)
    x, _, _ = sampler.batch(32)
    firsts = {batch_features(s.values, spec)[0].x[3].round(3).tobytes() for s in data.samples}
    assert all(row.numpy().round(3).tobytes() in firsts for row in x[:, 0])


def test_windows_from_the_onset_are_those_that_the_nose_gives() -> None:
    data = two_days()
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, from_onset=1.0), seed=4)
    x, mask, target = sampler.batch(32)
    lengths = mask.sum(dim=1).int().tolist()
    assert min(lengths) >= spec.min_steps
    assert len(set(lengths)) > 5
    for window, length, truth in zip(x.numpy(), lengths, target.argmax(dim=1), strict=True):
        candidates = []
        for sample in data.samples:
            onset = notice_onset(sample)
            assert onset is not None
            rows = batch_features(sample.values, spec)[0].x[onset - spec.first_step :][:length]
            candidates += [rows] if sample.target[truth] == 1 and len(rows) == length else []
        assert any(np.allclose(window[:length], rows, atol=1e-4) for rows in candidates)


def test_dropped_channels_are_zero_and_one_is_kept(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, channel_dropout=1.0), seed=4)
    x, _, _ = sampler.batch(64)
    alive = x.reshape(64, 20, 2, 2).abs().amax(dim=(1, 2)) > 0
    assert (alive.sum(dim=1) == 1).all()
    assert alive.any(dim=0).all()


def test_another_day_shifts_levels_and_drifts_differences_but_leaves_lost_channels(
    data: Dataset,
) -> None:
    spec = measure_rms_scale(dataclasses.replace(SPEC, lags=(0, 3, 6)), data, None)
    lost = tuple(
        dataclasses.replace(s, values=np.where(np.arange(12) == 2, np.nan, s.values))
        for s in data.samples
    )
    damaged = dataclasses.replace(data, samples=lost)
    other_day = dataclasses.replace(PLAIN, level_common=0.3, level_channel=0.3, drift=0.1)
    plain, shifted = (
        WindowSampler(damaged, spec, augment, seed=4).batch(200)[0] * torch.tensor(spec.scale)
        for augment in (PLAIN, other_day)
    )
    # The draws of the shift come after those of the windows.
    moved = (shifted - plain).mean(dim=1)
    assert float(moved[:, 0].std()) == pytest.approx(0.3 * 2**0.5, rel=0.2)
    assert float(moved[:, 4].std()) == pytest.approx(0.1 * 6 / 50, rel=0.2)
    torch.testing.assert_close(moved[:, 2], moved[:, 4] / 2, atol=1e-5, rtol=1e-3)
    assert shifted[:, :, 1].abs().max() == shifted[:, :, 3].abs().max() == 0


def test_mixing_keeps_targets_convex(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(
        data, spec, dataclasses.replace(PLAIN, mix=1.0, mix_parts=3, mix_alpha=1.0), seed=4
    )
    _, _, target = sampler.batch(64)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64))
    assert ((target > 0).sum(dim=1) > 1).any()


def test_a_channel_that_is_dead_for_one_label_does_not_identify_the_label(data: Dataset) -> None:
    samples = []
    for sample in data.samples:
        values = sample.values.copy()
        if sample.target.argmax() == 0:
            values[:, channel_index("VOC")] = np.nan
        samples.append(dataclasses.replace(sample, values=values))
    partly_dead = dataclasses.replace(data, samples=tuple(samples))
    spec = measure_rms_scale(SPEC, partly_dead, None)

    def share_alive(augment: AugmentConfig) -> list[float]:
        x, _, target = WindowSampler(partly_dead, spec, augment, seed=4).batch(600)
        alive = (x[:, :, 1::2] != 0).flatten(1).any(dim=1)
        return [float(alive[target.argmax(dim=1) == label].float().mean()) for label in range(3)]

    assert share_alive(PLAIN) == [0, 1, 1]
    evened = share_alive(dataclasses.replace(PLAIN, fickle=("VOC",), fickle_dropout=0.4))
    assert all(0.5 < share < 0.7 for share in evened)


def test_recordings_out_of_time_order_are_drawn_as_often_as_configured(data: Dataset) -> None:
    flat = {
        sample.name: np.full_like(sample.values, 300) for sample in data.samples[::2]
    }  # recognisable by being constant
    samples = tuple(
        dataclasses.replace(
            sample, values=flat.get(sample.name, sample.values), in_order=sample.name not in flat
        )
        for sample in data.samples
    )
    permuted = dataclasses.replace(data, samples=samples)
    spec = measure_rms_scale(SPEC, data, None)

    def share_drawn(weight: float) -> float:
        augment = dataclasses.replace(PLAIN, out_of_order=weight)
        x, _, _ = WindowSampler(permuted, spec, augment, seed=4).batch(400)
        return float((x == 0).flatten(1).all(dim=1).float().mean())

    assert share_drawn(0) == 0
    assert 0.1 < share_drawn(0.25) < 0.3
    assert 0.4 < share_drawn(1) < 0.65
