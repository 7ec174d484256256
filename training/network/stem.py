"""training/: the stems of ScentFormer, from a window's rows to the tokens that the encoder reads.

Two of them, one shape: `encode` turns a window into fixed numbers per token, `embed`
learns to read those. Between the two is where windows are mixed in training, because
a mean of two windows' *statistics* is no statistic of any window, while a mean of two
windows' encodings is a label-preserving blend (manifold mixup: Verma et al., ICML 2019).
May import torch; knows nothing of data or of training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.config import NetworkConfig

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Quantiles of a feature over a window, from its least to its greatest value."""
SPANS = 4
"""Equal spans of time of which a window's mean is taken: the coarse shape of a response."""
N_STATISTICS = len(QUANTILES) + SPANS + 4
"""Per feature: quantiles, means of the parts, mean, standard deviation, slope, mean step."""
MIN_BIN_WIDTH = 5e-3
"""In standardised units. Quantiles of a channel that sends few different counts coincide; a
narrower ramp would amplify the rounding of a sum into a visible difference."""
_BEYOND = 1e4
"""Sorts after every standardised value, which preprocessing clips far below."""


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
        """Return the largest of each window's parts: a token counts that any part has."""
        return torch.stack([weight[other] for other in self.others]).amax(dim=0)


class PatchStem(nn.Module):
    """The published stem: consecutive rows become a token by Linear, LayerNorm and a position.

    Parameters
    ----------
    config: `patch` rows a token (1 is the published network), `d_model` wide.
    window, n_features: shape of a window.
    """

    positions: Tensor

    def __init__(self, config: NetworkConfig, *, window: int, n_features: int) -> None:
        super().__init__()
        if window % config.patch:
            raise ValueError(f"patch ({config.patch}) must divide the window ({window})")
        self.patch = config.patch
        self.tokens = window // config.patch
        self.linear = nn.Linear(n_features * config.patch, config.d_model)
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

    Log-ratio differences are heavy-tailed: most of a window is quiet, and what tells odorants
    apart is how far, how often and how unevenly each channel moves. Statistics over the window
    say that, whatever the moment; bins at the training data's quantiles put every statistic on
    one scale without choosing a unit (piecewise-linear encoding: Gorishniy et al., NeurIPS 2022,
    "On embeddings for numerical features in tabular deep learning").

    A feature that does not move at all in the window, as of a lost channel, is encoded as zeros.

    Parameters
    ----------
    config: `bins` per statistic, `d_model` wide.
    n_features: of a row, lag-major.
    n_lags: how many lags, which is how many tokens.
    """

    lower: Tensor
    steepness: Tensor

    def __init__(self, config: NetworkConfig, *, n_features: int, n_lags: int) -> None:
        super().__init__()
        self.tokens, self.bins = n_lags, config.bins
        self.n_channels = n_features // n_lags
        self.register_buffer("lower", torch.zeros(config.bins, N_STATISTICS * n_features))
        self.register_buffer("steepness", torch.ones(config.bins, N_STATISTICS * n_features))
        inputs = config.bins * N_STATISTICS * self.n_channels
        self.linears = nn.ModuleList(nn.Linear(inputs, config.d_model) for _ in range(n_lags))
        self.norm = nn.LayerNorm(config.d_model)
        self.kind = nn.Parameter(0.02 * torch.randn(n_lags, config.d_model))

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
    from -1 to 1), mean absolute step, the means of four equal spans of time, nine quantiles.
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
    part = ((time + 1) / 2 * SPANS).floor().clamp(0, SPANS - 1)
    spans = []
    for number in range(SPANS):
        chosen = ((part == number).float() * mask).unsqueeze(-1)
        spans.append((x * chosen).sum(dim=1) / chosen.sum(dim=1).clamp(min=1))
    ordered = (x + _BEYOND * (1 - counted)).sort(dim=1).values
    level = torch.tensor(QUANTILES, device=x.device)[None, :, None]
    place = (level * (rows.unsqueeze(1) - 1)).round().long().expand(-1, -1, x.shape[2])
    quantiles = ordered.gather(1, place)
    return torch.cat([torch.stack([mean, spread, slope, step, *spans], dim=1), quantiles], dim=1)


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Return the table float32[length, width] of Vaswani et al. 2017, section 3.5."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(1e4) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table
