"""training/: recordings cut into the windows of the published protocol (window 100, stride 50).

numpy only. SmellNet, arXiv 2506.00239; training by epochs, scoring and export all cut here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.preprocess import batch_features, protocol_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.preprocess import PreprocessSpec
    from training.data.dataset import Dataset, Sample

MIXTURE_SECONDS = 60.0
"""A mixture recording is scored on its first 600 rows at 10 Hz, as published."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The protocol's windows of some recordings.

    Attributes
    ----------
    x: float32[windows, window, feature].
    mask: float32[windows, window].
    owner: int[windows], the recording each was cut from.
    """

    x: NDArray[np.float32]
    mask: NDArray[np.float32]
    owner: NDArray[np.int64]


def cut_windows(
    samples: Sequence[Sample], spec: PreprocessSpec, max_samples: int | None = None
) -> Windows:
    """Cut every recording by the protocol; one that is too short gives one partial window.

    Recordings of another rate are brought to the model's first.
    """
    xs, masks, owner = [], [], []
    for number, sample in enumerate(samples):
        segment = batch_features(sample.at_rate(spec.rate_hz).values[:max_samples], spec)[0]
        x = protocol_windows(segment, spec)
        mask = np.ones(x.shape[:2], dtype=np.float32)
        if not len(x) and len(rows := segment.x[-spec.window :]) >= spec.min_steps:
            x = np.zeros((1, spec.window, spec.n_features), dtype=np.float32)
            mask = np.zeros((1, spec.window), dtype=np.float32)
            x[0, : len(rows)], mask[0, : len(rows)] = rows, 1.0
        xs.append(x)
        masks.append(mask)
        owner += [number] * len(x)
    return Windows(np.concatenate(xs), np.concatenate(masks), np.array(owner, dtype=np.int64))


def scored_windows(data: Dataset, spec: PreprocessSpec) -> Windows:
    """Cut the windows that a model of the data's task is scored on."""
    mixture = data.task == "mixture"
    limit = round(MIXTURE_SECONDS * spec.rate_hz) if mixture else None
    return cut_windows(data.samples, spec, limit)
