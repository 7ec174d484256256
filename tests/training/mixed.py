"""Mixture recordings as published ones are named, of a law that the test knows."""

from __future__ import annotations

import hashlib

import numpy as np

from calibration.correction import to_readings
from hardware.channels import GAS_INDICES, N_CHANNELS, N_GAS
from hardware.mixing_law import mixed_response
from models.preprocess import PreprocessSpec
from training.config import (
    AugmentConfig,
    MixingConfig,
    NetworkConfig,
    OptimiserConfig,
    TrainConfig,
)
from training.data.dataset import Dataset, Sample

LABELS = ("banana", "clove", "lemon", "mint")
RESPONSES = np.array(
    [[0.5, 0.8, 0.6, 0.4], [1.0, 1.3, 1.9, 0.6], [1.9, 2.6, 2.3, 3.2], [0.4, 2.0, 0.8, 2.2]]
)
EXPONENTS = np.array([0.19, 0.22, 0.23, 0.64])
AIR = np.array([-1.5, -1.0, -1.8, -1.6])
ROWS = 120

CONFIG = TrainConfig(
    name="mixed",
    task="mixture",
    preprocessing=PreprocessSpec(
        channels=("NO2", "C2H5OH", "VOC", "CO"), rate_hz=10.0, lags=(0, 3, 6), first_step=3,
        window=20, stride=10, min_steps=4,
    ),
    network=NetworkConfig(d_model=16, layers=1, heads=2, ffn=2, patch=5),
    augment=AugmentConfig(mix=0.0),
    optimiser=OptimiserConfig(steps=5, batch=8, warmup=2, ema=0.5),
    mixing=MixingConfig(inflation=1.0),
    announce_groups=(("lemon", "mint"),),
)  # fmt: skip

_DAY = 2410 * 86_400_000
_DIGITS = "0123456789abcdefghijklmnopqrstuv"


def _base_32(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits


def recording(shares: dict[str, float], day: int, number: int = 0) -> Sample:
    """Return a recording of a mixture; each day has an offset of its own."""
    seed = [day, number, *(LABELS.index(label) for label in shares)]
    rng = np.random.default_rng(seed)
    target = np.array([shares.get(label, 0.0) for label in LABELS], dtype=np.float32)
    offset = np.random.default_rng(day).normal(0.0, 0.05, 4)
    level = AIR + offset + mixed_response(RESPONSES, target, EXPONENTS)
    slow = 0.02 * np.sin(np.arange(ROWS) / 30.0 + rng.uniform(0, 6))[:, np.newaxis]
    signals = np.full((ROWS, N_GAS), np.nan)
    signals[:, :4] = level + slow
    values = np.full((ROWS, N_CHANNELS), np.nan, dtype=np.float32)
    values[:, list(GAS_INDICES[:4])] = to_readings(signals)[:, :4]
    identity = _base_32(_DAY + 86_400_000 * day + 1000 * seed[1] + 60_000 * sum(seed[2:]))
    name = "_".join(f"{label}_{round(100 * share)}" for label, share in shares.items())
    name = f"{name}.{identity}.csv"
    return Sample(name, hashlib.sha256(name.encode()).hexdigest(), values, target, name, 10.0)


def mixtures(days: int = 3, per_composition: int = 2) -> Dataset:
    """Return singles and pairs on several days; every day has pairs that no other day has."""
    pairs = [("banana", "clove"), ("clove", "lemon"), ("lemon", "mint"), ("banana", "mint")]
    samples = []
    for day in range(days):
        first, second = pairs[day % len(pairs)]
        compositions: list[dict[str, float]] = [{label: 1.0} for label in LABELS]
        compositions += [{first: share, second: 1.0 - share} for share in (0.25, 0.5, 0.75)]
        samples += [
            recording(shares, day, number)
            for shares in compositions
            for number in range(per_composition)
        ]
    return Dataset("mixture", LABELS, tuple(sorted(samples, key=lambda one: one.name)))
