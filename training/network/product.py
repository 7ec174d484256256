"""training/: several networks and a model of the levels as one network: a product of experts.

The log-probabilities of all parts are added up (Hinton 2002, Neural Computation 14), so a label is
likely only where all of them agree. What wins inside a session and what wins on another day are
different networks; their sum keeps most of both. torch only; nothing here is trained by gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.preprocess import Lineariser
from training.config import LevelConfig, TrainConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.preprocess import PreprocessSpec
    from training.data.dataset import Dataset
    from training.network.scentformer import ScentFormer

REFERENCE_SAMPLES = 100
"""Readings that one reference level is the mean of: about a window."""
LEAST_SPREAD = 0.05
"""In log-conductance: a smaller spread of a channel within its sessions is taken for this one."""
_NEVER = 1e3
"""A level that no reading has, of a label without recordings."""


class ProductPart(NamedTuple):
    """One network of the product.

    Attributes
    ----------
    network: with logits and embedding as its first outputs.
    columns: the features of a row that it gets.
    weight: of its log-probabilities in the sum.
    """

    network: ScentFormer
    columns: list[int]
    weight: float


class ProductNet(nn.Module):
    """The sum of the parts' log-probabilities, made flatter where the levels are unfamiliar.

    Parameters
    ----------
    parts: the networks. Descriptors come from the first that has them.
    levels: adds what the levels say; None: nothing.
    """

    def __init__(self, parts: Sequence[ProductPart], levels: LevelExpert | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part.network for part in parts)
        self.weights = [part.weight for part in parts]
        self.levels = levels
        for number, part in enumerate(parts):
            self.register_buffer(f"columns_{number}", torch.tensor(part.columns))
        names = [part.network.output_names for part in parts]
        self._describing = next((k for k, own in enumerate(names) if "descriptors" in own), None)
        described = () if self._describing is None else ("descriptors",)
        self.output_names: tuple[str, ...] = ("logits", "embedding", *described)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return logits [batch, labels], all embeddings side by side, and descriptors if any.

        Parameters
        ----------
        x: float32[batch, window, feature].
        mask: float32[batch, window], 1 for measured rows.
        """
        outputs = [
            network(x[:, :, self.get_buffer(f"columns_{number}")], mask)
            for number, network in enumerate(self.parts)
        ]
        terms = [
            weight * output[0].log_softmax(dim=1)
            for weight, output in zip(self.weights, outputs, strict=True)
        ]
        total = torch.stack(terms).sum(dim=0)
        if self.levels is not None:
            total = self.levels(total, x, mask)
        embedding = torch.cat([output[1] for output in outputs], dim=1)
        if self._describing is None:
            return total, embedding
        return total, embedding, outputs[self._describing][2]


class LevelExpert(nn.Module):
    """What the levels of a window say of the label, and whether they are familiar.

    The mean level of a label in a window is Student-t distributed about its mean in training, with
    the spread within sessions and that between days: on another day a level is worth that much, and
    far from all labels it says nothing. Levels of a label at which it was recorded are familiar.
    Elsewhere it is another day or another board, where networks are as certain and less often
    right: there the sum is multiplied by `unfamiliar`.

    Parameters
    ----------
    config: weights and spreads.
    spec: the preprocessing, with levels, center and scale.
    data: the recordings in training.
    max_samples: samples used of a recording, from its start; None uses all.
    """

    mean: Tensor
    root: Tensor
    references: Tensor
    present: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(
        self,
        config: LevelConfig,
        spec: PreprocessSpec,
        data: Dataset,
        max_samples: int | None = None,
    ) -> None:
        super().__init__()
        if not spec.n_levels:
            raise TrainConfigError(
                "`levels` need the levels of a window: preprocessing.lags must begin with 0."
            )
        self.config = config
        channels = list(spec.channels)
        unknown = [name for name in (*config.channels, *config.shared) if name not in channels]
        if unknown:
            raise TrainConfigError(
                f"levels: {', '.join(unknown)} must be among preprocessing.channels {channels}."
            )
        self._named = [channels.index(name) for name in config.channels]
        self._shared = [channels.index(name) for name in config.shared]
        measured = _measure(spec, data, max_samples)
        scale = np.array(spec.scale[: spec.n_levels])
        mean, root = _named_levels(measured, self._named, config)
        for name, values in (
            ("mean", mean),
            ("root", root),
            ("references", np.nan_to_num(measured.references)),
            ("present", np.isfinite(measured.references)),
            ("scale", scale),
            ("center", np.array(spec.center[: spec.n_levels])),
            ("spread", measured.spread),
        ):
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float32)))

    def forward(self, total: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Return the sum float32[batch, labels] with the levels of the window added.

        Parameters
        ----------
        total: float32[batch, labels], the sum of the other parts.
        x: float32[batch, window, feature], levels first.
        mask: float32[batch, window].
        """
        settings = self.config
        level, there = self._levels(x, mask)
        total = total + settings.weight * self._log_probability(level, there)
        sure = (total / settings.sharpness).softmax(dim=1)
        familiar = torch.sigmoid((settings.familiar - self._distance(level, there)) / settings.ramp)
        share = (sure * familiar).sum(dim=1, keepdim=True)
        return total * (settings.unfamiliar + (1 - settings.unfamiliar) * share)

    def _levels(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean levels [batch, channel] in log-conductance, and 1 where there is one."""
        rows = x[:, :, : len(self.scale)]
        # A standardised level of exactly 0 stands for a reading that there is none of.
        counted = (rows != 0).float() * mask.unsqueeze(-1)
        count = counted.sum(dim=1)
        mean = (rows * counted).sum(dim=1) / count.clamp(min=1)
        return mean * self.scale + self.get_buffer("center"), (count > 0).float()

    def _log_probability(self, level: Tensor, there: Tensor) -> Tensor:
        """Return the log-probability of each label by the named levels alone [batch, labels]."""
        away = (level[:, None, self._named] - self.mean) * there[:, None, self._named]
        # Written out: a matrix product would be quantised, and levels are exact to a hundredth.
        squared = ((away.unsqueeze(-1) * self.root).sum(dim=2) ** 2).sum(dim=2)
        freedom = self.config.freedom
        density = -0.5 * (freedom + len(self._named)) * torch.log1p(squared / freedom)
        return density.log_softmax(dim=1)

    def _distance(self, level: Tensor, there: Tensor) -> Tensor:
        """Return how far the levels are from the nearest of each label [batch, labels].

        Root mean square over channels, in spreads within a session, of differences without the
        change that the shared channels have in common.
        """
        both = there[:, None, None] * self.present
        away = (level[:, None, None] - self.references) * both
        shared = away[..., self._shared].sum(dim=3, keepdim=True)
        common = shared / both[..., self._shared].sum(dim=3, keepdim=True).clamp(min=1)
        moved = torch.zeros_like(self.scale)
        moved[self._shared] = 1.0
        away = (away - common * moved) * both / self.spread
        squared = (away**2).sum(dim=3) / both.sum(dim=3).clamp(min=1)
        return (squared + _NEVER * (both.sum(dim=3) == 0)).amin(dim=2).sqrt()


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Levels of the training recordings, in log-conductance.

    Attributes
    ----------
    recordings: float64[recordings, channel], the mean of each; NaN without readings.
    label: int[recordings].
    labels: how many there are.
    references: float64[labels, references, channel], means of windows, repeated to the same number.
    spread: float64[channel], of a recording's mean about its label's.
    """

    recordings: NDArray[np.float64]
    label: NDArray[np.int64]
    labels: int
    references: NDArray[np.float64]
    spread: NDArray[np.float64]


def _measure(spec: PreprocessSpec, data: Dataset, max_samples: int | None) -> _Measured:
    linearise = Lineariser(spec)
    signals = [linearise(sample.values[:max_samples]).astype(float) for sample in data.samples]
    label = data.targets.argmax(axis=1)
    recordings = np.stack([_mean(signal) for signal in signals])
    windows: list[list[NDArray[np.float64]]] = [[] for _ in data.labels]
    for signal, own in zip(signals, label, strict=True):
        parts = max(1, len(signal) // REFERENCE_SAMPLES)
        windows[own] += [_mean(part) for part in np.array_split(signal, parts)]
    most = max(map(len, windows))
    channels = len(spec.channels)
    references = np.full((len(data.labels), most, channels), np.nan)
    away = np.full_like(recordings, np.nan)
    for number, own in enumerate(windows):
        if own:
            references[number] = np.resize(np.stack(own), (most, channels))
            chosen = label == number
            away[chosen] = recordings[chosen] - _mean(recordings[chosen])
    spread = np.sqrt(np.nan_to_num(_mean(away**2)))
    return _Measured(
        recordings, label, len(data.labels), references, np.maximum(spread, LEAST_SPREAD)
    )


def _named_levels(
    measured: _Measured, named: list[int], config: LevelConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the labels' means [labels, named] and the root of the common precision [named, named].

    A row of differences times the root has unit variance in each column.
    """
    levels = measured.recordings[:, named]
    mean = np.full((measured.labels, len(named)), _NEVER)
    away = np.zeros_like(levels)
    for number in np.unique(measured.label):
        chosen = measured.label == number
        mean[number] = np.nan_to_num(_mean(levels[chosen]))
        away[chosen] = np.nan_to_num(levels[chosen] - mean[number])
    size = len(named)
    covariance = away.T @ away / max(1, len(away))
    covariance += config.day_common**2 * np.ones((size, size)) + config.day_channel**2 * np.eye(
        size
    )
    return mean, np.linalg.cholesky(np.linalg.inv(covariance))


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each column's finite values, NaN without one."""
    there = np.isfinite(rows)
    count = there.sum(axis=0)
    total = np.where(there, rows, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
