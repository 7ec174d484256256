"""training/: the kinds of input of the baselines, and the windows cut from them.

Must never contain a model, torch or scikit-learn.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import GAS_CHANNELS
from models.preprocess import PreprocessSpec
from training.data.protocol_windows import cut_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data.dataset import Dataset

_UNCLIPPED = 1e9

PUBLISHED = PreprocessSpec(
    channels=GAS_CHANNELS, rate_hz=1.0, linearise="raw", lags=(25,), clip=_UNCLIPPED
)
"""As SmellNet (arXiv 2506.00239): six gas channels as sent, lag 25, w=100, stride 50. That the
first row is subtracted there changes nothing: the difference over a lag cancels it."""

OURS = PreprocessSpec(
    channels=GAS_CHANNELS, rate_hz=1.0, linearise="log", lags=(5, 10, 25, 50), clip=_UNCLIPPED
)
"""Log-conductance differences over four lags, of the six gas channels that SmellNet uses."""

PLATE = dataclasses.replace(OURS, channels=(*GAS_CHANNELS, "Gas_Resistance"))
"""Ours with the BME680's heater plate: the channels of the shipped substances-50. A plate that hung
is missing and reads "no change", which happens in the recordings of some labels only: see the
audit."""

INPUTS = {"ours": OURS, "plate": PLATE, "published": PUBLISHED}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWindows:
    """Windows with their labels.

    Attributes
    ----------
    x: float32[windows, window, feature], not standardised.
    label: int[windows].
    owner: int[windows], the recording each was cut from.
    """

    x: NDArray[np.float32]
    label: NDArray[np.int64]
    owner: NDArray[np.int64]


def labelled_windows(
    data: Dataset, spec: PreprocessSpec, stride: int | None = None
) -> LabelledWindows:
    """Cut every recording; `stride` other than the protocol's is for training only."""
    windows = cut_windows(
        data.samples, dataclasses.replace(spec, stride=stride or spec.stride, clip=_UNCLIPPED)
    )
    truth = data.targets.argmax(axis=1)
    return LabelledWindows(windows.x, truth[windows.owner], windows.owner)


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Centre and scale of each feature, measured on training windows.

    Attributes
    ----------
    center, scale: float32[feature].
    clip: standardised features are limited to +-clip.
    """

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    clip: float = 8.0

    @classmethod
    def measure(cls, x: NDArray[np.float32]) -> Standardiser:
        """Measure windows float32[windows, window, feature]."""
        center = x.mean(axis=(0, 1), dtype=np.float64)
        scale = x.std(axis=(0, 1), dtype=np.float64)
        scale[scale < 1e-6] = 1.0  # noqa: PLR2004 - a channel that never moves
        return cls(center.astype(np.float32), scale.astype(np.float32))

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise windows of the same features."""
        scaled = (x - self.center) / self.scale
        return np.clip(scaled, -self.clip, self.clip, out=scaled)
