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
    from training.data.protocol_windows import Windows

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


def cut_input_windows(data: Dataset, spec: PreprocessSpec, stride: int | None = None) -> Windows:
    """Cut every recording, not standardised; `stride` other than the protocol's is for training."""
    spec = dataclasses.replace(spec, stride=stride or spec.stride, clip=_UNCLIPPED)
    return cut_windows(data.samples, spec)


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Centre and scale float32[feature], measured on training windows; a limit of +-`clip`."""

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
