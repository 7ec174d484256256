"""Data sets, a network and a configuration small enough to be trained in a test."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from hardware.channels import N_CHANNELS
from hardware.recording import RecordingWriter
from models.preprocess import PreprocessSpec
from training.config import (
    AugmentConfig,
    NetworkConfig,
    OptimiserConfig,
    TrainConfig,
    config_as_dict,
)
from training.data.dataset import Dataset, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LABELS = tuple("abcdefg")
PERIODS_S = {"almond": 7.0, "banana": 11.0, "mango": 17.0}
SPEC = PreprocessSpec(
    channels=("NO2", "VOC"), rate_hz=1.0, lags=(3, 6), first_step=3, window=20, stride=10,
    min_steps=4,
)  # fmt: skip
CONFIG = TrainConfig(
    name="tiny",
    task="substance",
    preprocessing=SPEC,
    network=NetworkConfig(d_model=16, layers=1, heads=2, ffn=2, patch=5),
    augment=AugmentConfig(partial=0.2),
    optimiser=OptimiserConfig(steps=40, batch=16, learning_rate=5e-3, warmup=5, ema=0.9),
)
PLAIN = AugmentConfig(
    gain_common=0, gain_channel=0, noise=0, channel_dropout=0, warp=0, partial=0, mix=0
)


def with_optimiser(config: TrainConfig = CONFIG, **changes: Any) -> TrainConfig:
    """Return the configuration with other settings of its optimiser."""
    return dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, **changes))


def periodic(
    periods_s: Mapping[str, float] = PERIODS_S,
    *,
    per_label: int = 5,
    rows: int = 80,
    noise: float = 2.0,
    seed: int = 11,
    folder: Path | None = None,
) -> Dataset:
    """Recordings of substances that differ in the period of a slow oscillation."""
    rng = np.random.default_rng(seed)
    samples = []
    for label, (name, period_s) in enumerate(periods_s.items()):
        target = np.eye(len(periods_s), dtype=np.float32)[label]
        for number in range(per_label):
            values = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
            phase = 2 * np.pi * (np.arange(rows) / period_s + rng.random())
            for column, level in ((0, 300 + 60 * np.sin(phase)), (2, 500 + 60 * np.cos(phase))):
                values[:, column] = np.rint(level + (rng.normal(0, noise, rows) if noise else 0))
            path = f"{name}/{number}.csv"
            digest = f"{100 * label + number:064x}"
            samples.append(Sample(path, digest, values, target, path, 1.0))
    return Dataset("substance", tuple(periods_s), tuple(samples), {}, folder)


def in_sessions(sessions: int, *, per_label: int = 8, rows: int = 80) -> Dataset:
    """Recordings as `periodic` makes them, laid out as LABEL/day-K/*.csv in turn."""
    data = periodic(per_label=per_label, rows=rows)
    samples = []
    for sample in data.samples:
        label, file = sample.name.split("/")
        session = f"day-{int(file.removesuffix('.csv')) % sessions}"
        name = f"{label}/{session}/{file}"
        samples.append(dataclasses.replace(sample, name=name, group=name, session=session))
    return dataclasses.replace(data, samples=tuple(sorted(samples, key=lambda s: s.name)))


def oscillating(rows: int = 90) -> Dataset:
    """Three recordings each of seven substances, without noise."""
    periods_s = {name: 5.0 + 3 * label for label, name in enumerate(LABELS)}
    return periodic(periods_s, per_label=3, rows=rows, noise=0.0, seed=7)


def write_recordings(data: Dataset, folder: Path) -> Path:
    """Write a data set's recordings below `folder` by their names; return `folder`."""
    for sample in data.samples:
        path = folder / sample.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with RecordingWriter(path) as recording:
            for row, reading in enumerate(sample.values):
                recording.write(row * 1000, reading)
    return folder


def write_config(config: TrainConfig, folder: Path) -> Path:
    """Write a configuration as `tiny.yaml` into `folder`; return the file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config_as_dict(config)))
    return path


def interrupt(config: TrainConfig, data: Dataset, folder: Path, step: int) -> None:
    """Train, and stop after `step`, before its checkpoint, as a killed process does."""
    from training.fit import train_network  # torch

    def stop(done: int, _loss: float) -> None:
        if done == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_network(config, data, folder=folder, on_step=stop)


def assert_same_weights(one: Any, other: Any) -> None:
    """Compare two torch modules bit for bit."""
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert tensor.equal(states[1][name]), name
