"""Recordings as another board would record them on another day."""

from __future__ import annotations

import dataclasses

import numpy as np

from hardware.channels import N_CHANNELS
from models.preprocess import PreprocessSpec, batch_features
from training.data.dataset import Dataset, Sample
from training.evaluation.sessions import SessionSpread, other_sessions

SPREAD_FREE = SessionSpread(gain=0, gamma=0, offset=0, lost=0)
SPEC = PreprocessSpec(
    channels=("NO2", "VOC", "Alcohol"), rate_hz=1.0, lags=(5,), first_step=5, window=20, clip=1e6
)


def one_recording() -> Dataset:
    """One recording in the middle of its channels' ranges, where rounding matters little."""
    readings = np.full((80, N_CHANNELS), np.nan, dtype=np.float32)
    time = np.arange(80)
    for column, middle in ((0, 500), (2, 520), (4, 4000)):
        readings[:, column] = np.rint(middle * (1 + 0.3 * np.sin(time / (5 + column))))
    sample = Sample("a/a.csv", "ab" * 32, readings, np.ones(1, np.float32), "a", 1.0)
    return Dataset("substance", ("a",), (sample,))


def changes(data: Dataset) -> np.ndarray:
    """Lag differences of the only recording."""
    return batch_features(data.samples[0].values, SPEC)[0].x


def test_no_spread_changes_nothing() -> None:
    data = one_recording()
    same = other_sessions(data, SPEC.channels, SPREAD_FREE, draws=1)
    np.testing.assert_array_equal(same.samples[0].values, data.samples[0].values)


def test_a_gain_cancels_in_log_differences() -> None:
    data = one_recording()
    louder = other_sessions(
        data, SPEC.channels, dataclasses.replace(SPREAD_FREE, gain=0.3), draws=1
    )
    assert np.abs(louder.samples[0].values - data.samples[0].values)[:, [0, 2, 4]].max() > 20
    np.testing.assert_allclose(changes(louder), changes(data), atol=0.02)


def test_another_sensitivity_scales_every_change() -> None:
    data = one_recording()
    other = other_sessions(
        data, SPEC.channels, dataclasses.replace(SPREAD_FREE, gamma=0.3), draws=1
    )
    before, after = changes(data), changes(other)
    factor = (before * after).sum(axis=0) / (before**2).sum(axis=0)
    assert np.abs(np.log(factor)).max() > 0.05
    np.testing.assert_allclose(after, factor * before, atol=0.02)


def test_a_session_loses_one_channel_and_leaves_the_original_unchanged() -> None:
    data = one_recording()
    before = data.samples[0].values.copy()
    sessions = other_sessions(data, SPEC.channels, draws=8)
    np.testing.assert_array_equal(data.samples[0].values, before)
    lost = [
        tuple(np.flatnonzero(np.isnan(sample.values[:, [0, 2, 4]]).all(axis=0)))
        for sample in sessions.samples
    ]
    assert {len(columns) for columns in lost} == {1}
    assert len(set(lost)) > 1
    assert {sample.group for sample in sessions.samples} == {"a"}


def test_sessions_of_a_recording_do_not_depend_on_other_recordings() -> None:
    data = one_recording()
    stranger = dataclasses.replace(data.samples[0], sha256="cd" * 32, name="b/b.csv")
    company = dataclasses.replace(data, samples=(stranger, *data.samples))
    alone = other_sessions(data, SPEC.channels, draws=2).samples
    among = other_sessions(company, SPEC.channels, draws=2).samples
    for first, second in zip(alone, among[2:], strict=True):
        np.testing.assert_array_equal(first.values, second.values)
    assert not np.array_equal(among[0].values, among[2].values, equal_nan=True)
