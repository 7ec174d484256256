"""A data set and a network small enough to be trained in a test."""

from __future__ import annotations

import numpy as np

from hardware.channels import N_CHANNELS
from models.preprocess import PreprocessSpec
from training.config import AugmentConfig, NetworkConfig, OptimiserConfig, TrainConfig
from training.data.dataset import Dataset, Sample

LABELS = tuple("abcdefg")
CONFIG = TrainConfig(
    name="tiny",
    task="substance",
    preprocessing=PreprocessSpec(
        channels=("NO2", "VOC"), rate_hz=1.0, lags=(3, 6), first_step=3, window=20, stride=10,
        min_steps=4,
    ),
    network=NetworkConfig(d_model=16, layers=1, heads=2, ffn=2, patch=5),
    augment=AugmentConfig(partial=0.2),
    optimiser=OptimiserConfig(steps=40, batch=16, learning_rate=5e-3, warmup=5, ema=0.9),
)  # fmt: skip


def oscillating(rows: int = 90) -> Dataset:
    """Three recordings each of seven substances that differ in the period of an oscillation."""
    rng = np.random.default_rng(7)
    samples = []
    for label, name in enumerate(LABELS):
        for number in range(3):
            readings = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
            phase = 2 * np.pi * (np.arange(rows) / (5 + 3 * label) + rng.random())
            readings[:, 0] = np.rint(300 + 60 * np.sin(phase))
            readings[:, 2] = np.rint(500 + 60 * np.cos(phase))
            target = np.eye(len(LABELS), dtype=np.float32)[label]
            path = f"{name}/{number}.csv"
            digest = f"{100 * label + number:064x}"
            samples.append(Sample(path, digest, readings, target, path, 1.0))
    return Dataset("substance", LABELS, tuple(samples))
