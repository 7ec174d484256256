"""training/: what a training takes from its recordings beforehand: its steps, its feature scales.

numpy only, so that commands can size their progress bars without torch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from models.preprocess import Lineariser, batch_features
from training.data.protocol_windows import cut_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.preprocess import PreprocessSpec
    from training.config import TrainConfig
    from training.data.dataset import Dataset

_UNCLIPPED = 1e9
_CONSTANT = 1e-6
"""A feature with a smaller scale never moves; it keeps the scale 1."""


def total_steps(config: TrainConfig, data: Dataset) -> int:
    """Return the number of steps of a training, those of its teachers or experts included."""
    if config.experts:
        return sum(expert.steps for expert in config.experts)
    return steps_without_teachers(config, data) + sum(teacher.steps for teacher in config.teachers)


def steps_without_teachers(config: TrainConfig, data: Dataset) -> int:
    """Return the number of steps of the network that is exported."""
    if not config.optimiser.epochs:
        return config.optimiser.steps
    windows = cut_windows(data.samples, config.preprocessing, config.max_samples)
    return config.optimiser.epochs * math.ceil(len(windows.x) / config.optimiser.batch)


def measure_rms_scale(
    spec: PreprocessSpec, data: Dataset, max_samples: int | None
) -> PreprocessSpec:
    """Return `spec` with the root mean square of each feature over the training rows as scale.

    The center of a difference stays 0, so that a constant signal stays 0: a gain of the sensor is a
    gain of the feature, and a missing channel equals a channel without change. A level has the mean
    and the standard deviation of the readings there are.
    """
    total = np.zeros(spec.n_features)
    count = 0
    for sample in data.samples:
        x = batch_features(sample.values[:max_samples], _unscaled(spec))[0].x
        total += np.square(x, dtype=np.float64).sum(axis=0)
        count += len(x)
    scale = np.sqrt(total / max(count, 1))
    center: tuple[float, ...] = ()
    if spec.n_levels:
        linearise = Lineariser(spec)
        levels = np.concatenate([linearise(sample.values[:max_samples]) for sample in data.samples])
        measured = np.isfinite(levels)
        rows = np.maximum(measured.sum(axis=0), 1)
        levels = np.where(measured, levels, 0.0)
        mean = levels.sum(axis=0) / rows
        deviation = np.where(measured, levels - mean, 0.0)
        scale[: spec.n_levels] = np.sqrt((deviation**2).sum(axis=0) / rows)
        rest = (0.0,) * (spec.n_features - spec.n_levels)
        center = (*map(float, mean.astype(np.float32)), *rest)
    return dataclasses.replace(spec, center=center, scale=_scale(scale))


def measure_window_scale(
    spec: PreprocessSpec, data: Dataset, max_samples: int | None
) -> PreprocessSpec:
    """Return `spec` with each feature's mean and standard deviation over the training windows.

    Over all rows of all windows, as published: where windows overlap, a row counts once for each.
    """
    windows = cut_windows(data.samples, _unscaled(spec), max_samples)
    rows = windows.x[windows.mask > 0].astype(np.float64)
    center = rows.mean(axis=0).astype(np.float32)
    return dataclasses.replace(
        spec, center=tuple(map(float, center)), scale=_scale(rows.std(axis=0))
    )


def _unscaled(spec: PreprocessSpec) -> PreprocessSpec:
    return dataclasses.replace(spec, center=(), scale=(), clip=_UNCLIPPED)


def _scale(measured: NDArray[np.float64]) -> tuple[float, ...]:
    scale = np.where(measured < _CONSTANT, 1.0, measured)
    return tuple(map(float, scale.astype(np.float32)))
