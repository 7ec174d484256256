"""training/: ScentFormer in torch, as published, with its size and stem configurable.

Pre-norm Transformer encoder over the rows of a window, sinusoidal positions,
masked mean pooling, and a head per task (SmellNet, arXiv 2506.00239). The one
freedom beside the size is `patch`: so many consecutive rows become one token
(1 is the published network). May import torch and `models`; never `daemon`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.config import NetworkConfig


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Return the table float32[length, width] of Vaswani et al. 2017, section 3.5."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(1e4) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


class ScentFormerTrunk(nn.Module):
    """Windows to embeddings: x [batch, window, feature], mask [batch, window] -> [batch, D]."""

    def __init__(self, config: NetworkConfig, *, window: int, n_features: int) -> None:
        super().__init__()
        if window % config.patch:
            raise ValueError(f"patch ({config.patch}) must divide the window ({window})")
        self.patch = config.patch
        self.tokens = window // config.patch
        self.stem = nn.Linear(n_features * config.patch, config.d_model)
        self.stem_norm = nn.LayerNorm(config.d_model)
        # As long as the window: a table of 10,000 rows would weigh 10 MB in the bundle.
        positions = sinusoidal_positions(self.tokens, config.d_model)
        self.register_buffer("positions", positions, persistent=False)
        layer = nn.TransformerEncoderLayer(
            config.d_model,
            config.heads,
            config.ffn * config.d_model,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(config.d_model), enable_nested_tensor=False
        )
        for parameter in self.encoder.parameters():
            # nn.TransformerEncoder starts all its layers as copies of one.
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embed windows.

        Parameters
        ----------
        x: float32[batch, window, feature]; rows beyond a partial window are anything finite.
        mask: float32[batch, window], 1 for measured rows.

        Returns
        -------
        float32[batch, D], the mean of the tokens weighted by their measured rows.
        """
        tokens, weight = self.encoded(x, mask)
        pooled: Tensor = (tokens * weight.unsqueeze(-1)).sum(dim=1)
        return pooled / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def encoded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoded tokens [batch, tokens, D] and their weights [batch, tokens]."""
        x = x * mask.unsqueeze(-1)
        # -1 stands for the batch: its size stays free in the exported graph.
        weight = mask.reshape(-1, self.tokens, self.patch).mean(dim=2)
        tokens = self.stem_norm(self.stem(x.reshape(-1, self.tokens, self.patch * x.shape[2])))
        tokens = self.dropout(tokens + self.positions)
        tokens = self.encoder(tokens, src_key_padding_mask=weight == 0)
        return tokens, weight


def _head(width: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(dropout), nn.Linear(width // 2, outputs)
    )


class SubstanceNet(nn.Module):
    """ScentFormer with the substance head."""

    output_names: tuple[str, ...] = ("logits", "embedding")

    def __init__(
        self, config: NetworkConfig, *, window: int, n_features: int, n_labels: int
    ) -> None:
        super().__init__()
        self.trunk = ScentFormerTrunk(config, window=window, n_features=n_features)
        self.head = _head(config.d_model, n_labels, config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [batch, labels] and the embedding [batch, D]."""
        embedding = self.trunk(x, mask)
        return self.head(embedding), embedding


class MixtureNet(nn.Module):
    """ScentFormer with the mixture heads.

    In training it returns the heads' logits; exported it ends in their softmax and sigmoid.
    """

    output_names = ("proportions", "presence", "embedding")

    def __init__(
        self, config: NetworkConfig, *, window: int, n_features: int, n_labels: int
    ) -> None:
        super().__init__()
        self.trunk = ScentFormerTrunk(config, window=window, n_features=n_features)
        self.proportion_head = _head(config.d_model, n_labels, config.dropout)
        self.presence_head = _head(config.d_model, n_labels, config.dropout)

    def logits(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return proportion logits, presence logits (both [batch, labels]) and the embedding."""
        embedding = self.trunk(x, mask)
        return self.proportion_head(embedding), self.presence_head(embedding), embedding

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return proportions (summing to 1), presence probabilities, and the embedding."""
        proportions, presence, embedding = self.logits(x, mask)
        return proportions.softmax(dim=1), presence.sigmoid(), embedding


Network = SubstanceNet | MixtureNet


def build_network(
    task: str, config: NetworkConfig, *, window: int, n_features: int, n_labels: int
) -> Network:
    """Build the network of a task ("substance" or "mixture"), freshly initialised."""
    kind: type[Network] = MixtureNet if task == "mixture" else SubstanceNet
    return kind(config, window=window, n_features=n_features, n_labels=n_labels)
