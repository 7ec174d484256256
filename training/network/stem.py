"""training/: the two stems of ScentFormer, which turn a window's rows into the encoder's tokens.

`encode` computes fixed numbers per token, `embed` is the learned part. In training, windows are
mixed between the two: the mean of two windows' statistics is the statistic of no window, but the
mean of two encodings is a valid blend with the mean label (manifold mixup: Verma et al.,
ICML 2019). May import torch; knows nothing of data or of training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from models.preprocess import PreprocessSpec
    from training.config import NetworkConfig

QUANTILE_LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Of a feature over a window, from its least to its greatest value."""
SPANS = 4
"""Equal spans of time whose means describe the coarse shape of a response."""
N_STATISTICS = len(QUANTILE_LEVELS) + SPANS + 4
"""Per feature: mean, standard deviation, slope, mean step, means of the spans, quantiles."""
MIN_BIN_WIDTH = 5e-3
"""In standardised units. Quantiles of a channel that sends few different counts coincide; a
narrower ramp would amplify the rounding of a sum into a visible difference."""
_BEYOND = 1e4
"""Sorts after every standardised value: preprocessing clips far below."""


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Which windows of a batch are mixed, and how much of each.

    Attributes
    ----------
    others: int[parts, batch], the windows that each window is mixed from; row 0 is itself.
    weights: float32[batch, parts], summing to 1.
    """

    others: Tensor
    weights: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted means of `values` float32[batch, ...] over each window's parts."""
        shape = (-1,) + (1,) * (values.dim() - 1)
        parts = [
            self.weights[:, number].reshape(shape) * values[other]
            for number, other in enumerate(self.others)
        ]
        return torch.stack(parts).sum(dim=0)

    def maximum(self, weight: Tensor) -> Tensor:
        """Return the largest `weight` [batch, tokens] of each window's parts.

        A token counts if any part has it.
        """
        return torch.stack([weight[other] for other in self.others]).amax(dim=0)


class PatchStem(nn.Module):
    """The published stem: Linear, LayerNorm and a position turn `patch` rows into a token."""

    positions: Tensor

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec) -> None:
        super().__init__()
        if spec.window % config.patch:
            raise ValueError(f"patch ({config.patch}) must divide the window ({spec.window})")
        self.patch = config.patch
        self.tokens = spec.window // config.patch
        self.linear = nn.Linear(spec.n_features * config.patch, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)
        # As long as the window: a table of 10,000 rows would weigh 10 MB in the bundle.
        positions = sinusoidal_positions(self.tokens, config.d_model)
        self.register_buffer("positions", positions, persistent=False)

    def encode(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cut windows into patches: float32[batch, tokens, patch * feature], [batch, tokens]."""
        x = x * mask.unsqueeze(-1)
        # -1 stands for the batch: its size stays free in the exported graph.
        weight = mask.reshape(-1, self.tokens, self.patch).mean(dim=2)
        return x.reshape(-1, self.tokens, self.patch * x.shape[2]), weight

    def embed(self, encoded: Tensor) -> Tensor:
        """Return the tokens float32[batch, tokens, D] of encoded windows."""
        tokens: Tensor = self.norm(self.linear(encoded)) + self.positions
        return tokens


class StatisticsStem(nn.Module):
    """One token per lag: statistics of the window's differences over that lag, in soft bins.

    Log-ratio differences are heavy-tailed: most of a window is quiet, and odorants differ in how
    far, how often and how unevenly each channel moves. Statistics over the window describe that
    independently of the moment; bins at the training data's quantiles put every statistic on
    one scale without a choice of unit (piecewise-linear encoding: Gorishniy et al., NeurIPS 2022,
    "On embeddings for numerical features in tabular deep learning").

    A feature that does not move in the window, such as that of a lost channel, is encoded as zeros.
    """

    lower: Tensor
    steepness: Tensor

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec) -> None:
        super().__init__()
        self.tokens, self.bins = len(spec.lags), config.bins
        self.n_channels = len(spec.channels)
        shape = (config.bins, N_STATISTICS * spec.n_features)
        self.register_buffer("lower", torch.zeros(shape))
        self.register_buffer("steepness", torch.ones(shape))
        inputs = config.bins * N_STATISTICS * self.n_channels
        self.linears = nn.ModuleList(nn.Linear(inputs, config.d_model) for _ in spec.lags)
        self.norm = nn.LayerNorm(config.d_model)
        self.kind = nn.Parameter(0.02 * torch.randn(self.tokens, config.d_model))

    def measure(self, x: Tensor, mask: Tensor) -> None:
        """Put the bins at the quantiles of the statistics of training windows (as `encode`)."""
        flat = feature_statistics(x, mask).flatten(1)
        edges = torch.quantile(flat, torch.linspace(0, 1, self.bins + 1, device=x.device), dim=0)
        self.lower.copy_(edges[:-1])
        self.steepness.copy_(1 / edges.diff(dim=0).clamp(min=MIN_BIN_WIDTH))

    def encode(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[batch, lags, inputs] within +-1/2, and weights 1 [batch, lags].

        Parameters
        ----------
        x: float32[batch, window, feature].
        mask: float32[batch, window], 1 for measured rows.
        """
        flat = feature_statistics(x, mask).flatten(1)[:, None]
        filled = ((flat - self.lower) * self.steepness).clamp(0, 1) - 0.5
        shape = (-1, self.bins * N_STATISTICS, self.tokens, self.n_channels)
        moves = (x * mask.unsqueeze(-1)).abs().amax(dim=1) > 0
        filled = filled.reshape(shape) * moves.float().reshape(-1, 1, *shape[2:])
        encoded = filled.transpose(1, 2).reshape(-1, self.tokens, shape[1] * self.n_channels)
        return encoded, torch.ones_like(encoded[:, :, 0])

    def embed(self, encoded: Tensor) -> Tensor:
        """Return the tokens float32[batch, lags, D] of encoded windows."""
        tokens = [linear(encoded[:, lag]) for lag, linear in enumerate(self.linears)]
        result: Tensor = self.norm(torch.stack(tokens, dim=1)) + self.kind
        return result


Stem = PatchStem | StatisticsStem


def feature_statistics(x: Tensor, mask: Tensor) -> Tensor:
    """Describe each feature of each window by N_STATISTICS numbers over its measured rows.

    Parameters
    ----------
    x: float32[batch, window, feature].
    mask: float32[batch, window], 1 for measured rows.

    Returns
    -------
    float32[batch, N_STATISTICS, feature]: mean, standard deviation, slope (covariance with time
    from -1 to 1), mean absolute step, the means of the SPANS, the QUANTILE_LEVELS.
    """
    counted = mask.unsqueeze(-1)
    rows = counted.sum(dim=1).clamp(min=1)
    x = x * counted
    mean = x.sum(dim=1) / rows
    spread = ((((x - mean.unsqueeze(1)) * counted) ** 2).sum(dim=1) / rows).clamp(min=1e-12).sqrt()
    time = (mask.cumsum(dim=1) - 1) / (rows - 1).clamp(min=1) * 2 - 1
    slope = (x * time.unsqueeze(-1)).sum(dim=1) / rows
    both = (mask[:, 1:] * mask[:, :-1]).unsqueeze(-1)
    step = ((x[:, 1:] - x[:, :-1]).abs() * both).sum(dim=1) / both.sum(dim=1).clamp(min=1)
    span = ((time + 1) / 2 * SPANS).floor().clamp(0, SPANS - 1)
    means = []
    for number in range(SPANS):
        chosen = ((span == number).float() * mask).unsqueeze(-1)
        means.append((x * chosen).sum(dim=1) / chosen.sum(dim=1).clamp(min=1))
    ordered = (x + _BEYOND * (1 - counted)).sort(dim=1).values
    level = torch.tensor(QUANTILE_LEVELS, device=x.device)[None, :, None]
    place = (level * (rows.unsqueeze(1) - 1)).round().long().expand(-1, -1, x.shape[2])
    quantiles = ordered.gather(1, place)
    return torch.cat([torch.stack([mean, spread, slope, step, *means], dim=1), quantiles], dim=1)


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Return the table float32[length, width] of Vaswani et al. 2017, section 3.5."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(1e4) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table
