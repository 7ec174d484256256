"""training/: ScentFormer in torch, as published, with its size and stem configurable.

A stem that makes tokens of a window (`training.network.stem`), a pre-norm Transformer encoder,
masked mean pooling, and a head per task (SmellNet, arXiv 2506.00239). May import torch
and `models`; never `daemon`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from training.network.stem import PatchStem, StatisticsStem, Stem

if TYPE_CHECKING:
    from training.config import NetworkConfig
    from training.network.stem import Blend


class ScentFormerTrunk(nn.Module):
    """Windows to embeddings: x [batch, window, feature], mask [batch, window] -> [batch, D]."""

    def __init__(
        self, config: NetworkConfig, *, window: int, n_features: int, n_lags: int = 1
    ) -> None:
        super().__init__()
        self.stem: Stem
        if config.stem == "statistics":
            self.stem = StatisticsStem(config, n_features=n_features, n_lags=n_lags)
        else:
            self.stem = PatchStem(config, window=window, n_features=n_features)
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

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> Tensor:
        """Embed windows.

        Parameters
        ----------
        x: float32[batch, window, feature]; rows beyond a partial window are anything finite.
        mask: float32[batch, window], 1 for measured rows.
        blend: mixes the batch's windows between the stem's fixed and its learned half; training.

        Returns
        -------
        float32[batch, D], the mean of the tokens weighted by what was measured of them.
        """
        tokens, weight = self.encoded(x, mask, blend)
        pooled: Tensor = (tokens * weight.unsqueeze(-1)).sum(dim=1)
        return pooled / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def encoded(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> tuple[Tensor, Tensor]:
        """Return the encoded tokens [batch, tokens, D] and their weights [batch, tokens]."""
        values, weight = self.stem.encode(x, mask)
        if blend is not None:
            values, weight = blend.mean(values), blend.maximum(weight)
        tokens = self.dropout(self.stem.embed(values))
        return self.encoder(tokens, src_key_padding_mask=weight == 0), weight


def _head(width: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(dropout), nn.Linear(width // 2, outputs)
    )


class SubstanceNet(nn.Module):
    """ScentFormer with the substance head."""

    output_names: tuple[str, ...] = ("logits", "embedding")

    def __init__(
        self,
        config: NetworkConfig,
        *,
        window: int,
        n_features: int,
        n_labels: int,
        n_lags: int = 1,
    ) -> None:
        super().__init__()
        self.trunk = ScentFormerTrunk(config, window=window, n_features=n_features, n_lags=n_lags)
        self.head = _head(config.d_model, n_labels, config.dropout)

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> tuple[Tensor, Tensor]:
        """Return logits [batch, labels] and the embedding [batch, D]."""
        embedding = self.trunk(x, mask, blend)
        return self.head(embedding), embedding


class MixtureNet(nn.Module):
    """ScentFormer with the mixture heads.

    In training it returns the heads' logits; exported it ends in their softmax and sigmoid.
    """

    output_names = ("proportions", "presence", "embedding")

    def __init__(
        self,
        config: NetworkConfig,
        *,
        window: int,
        n_features: int,
        n_labels: int,
        n_lags: int = 1,
    ) -> None:
        super().__init__()
        self.trunk = ScentFormerTrunk(config, window=window, n_features=n_features, n_lags=n_lags)
        self.proportion_head = _head(config.d_model, n_labels, config.dropout)
        self.presence_head = _head(config.d_model, n_labels, config.dropout)

    def logits(
        self, x: Tensor, mask: Tensor, blend: Blend | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return proportion logits, presence logits (both [batch, labels]) and the embedding."""
        embedding = self.trunk(x, mask, blend)
        return self.proportion_head(embedding), self.presence_head(embedding), embedding

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return proportions (summing to 1), presence probabilities, and the embedding."""
        proportions, presence, embedding = self.logits(x, mask)
        return proportions.softmax(dim=1), presence.sigmoid(), embedding


ScentFormer = SubstanceNet | MixtureNet


def build_network(
    task: str,
    config: NetworkConfig,
    *,
    window: int,
    n_features: int,
    n_labels: int,
    n_lags: int = 1,
) -> ScentFormer:
    """Build the network of a task ("substance" or "mixture"), freshly initialised."""
    kind: type[ScentFormer] = MixtureNet if task == "mixture" else SubstanceNet
    return kind(config, window=window, n_features=n_features, n_labels=n_labels, n_lags=n_lags)
