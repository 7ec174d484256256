"""training/: ScentFormer in torch, as published, with its size and stem configurable.

A stem turns a window into tokens (`training.network.stem`); a pre-norm Transformer encoder, masked
mean pooling and a head per task follow (SmellNet, arXiv 2506.00239). May import torch and
`models`; never `daemon`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from training.network.stem import PatchStem, StatisticsStem, Stem

if TYPE_CHECKING:
    from models.preprocess import PreprocessSpec
    from training.config import NetworkConfig
    from training.network.stem import Blend


class ScentFormerTrunk(nn.Module):
    """Windows to embeddings: x [batch, window, feature], mask [batch, window] -> [batch, D]."""

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec) -> None:
        super().__init__()
        kind = StatisticsStem if config.stem == "statistics" else PatchStem
        self.stem: Stem = kind(config, spec)
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
        blend: in training, mixes windows of the batch between the stem's `encode` and `embed`.

        Returns
        -------
        float32[batch, D], the mean of the tokens, weighted by the measured share of each.
        """
        tokens, weight = self.encode(x, mask, blend)
        pooled: Tensor = (tokens * weight.unsqueeze(-1)).sum(dim=1)
        return pooled / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def encode(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> tuple[Tensor, Tensor]:
        """Return the encoder's tokens [batch, tokens, D] and their weights [batch, tokens]."""
        values, weight = self.stem.encode(x, mask)
        if blend is not None:
            values, weight = blend.mean(values), blend.maximum(weight)
        tokens = self.dropout(self.stem.embed(values))
        return self.encoder(tokens, src_key_padding_mask=weight == 0), weight


class ScentFormer(nn.Module):
    """A trunk; the network of each task adds its heads.

    Parameters
    ----------
    config: the network's size.
    spec: preprocessing, which decides the shape of a window.
    """

    output_names: tuple[str, ...]

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec) -> None:
        super().__init__()
        self.trunk = ScentFormerTrunk(config, spec)


class SubstanceNet(ScentFormer):
    """ScentFormer with the substance head."""

    output_names: tuple[str, ...] = ("logits", "embedding")

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec, n_labels: int) -> None:
        super().__init__(config, spec)
        self.head = _head(config, n_labels)

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> tuple[Tensor, ...]:
        """Return logits [batch, labels] and the embedding [batch, D]."""
        embedding = self.trunk(x, mask, blend)
        return self.head(embedding), embedding


class MixtureNet(ScentFormer):
    """ScentFormer with the mixture heads.

    Training uses the `logits` of the heads; the exported network ends in softmax and sigmoid.
    """

    output_names = ("proportions", "presence", "embedding")

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec, n_labels: int) -> None:
        super().__init__(config, spec)
        self.proportion_head = _head(config, n_labels)
        self.presence_head = _head(config, n_labels)

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


def build_network(
    task: str, config: NetworkConfig, spec: PreprocessSpec, n_labels: int
) -> ScentFormer:
    """Build the network of a task ("substance" or "mixture"), freshly initialised."""
    return (MixtureNet if task == "mixture" else SubstanceNet)(config, spec, n_labels)


def _head(config: NetworkConfig, outputs: int) -> nn.Sequential:
    half = config.d_model // 2
    return nn.Sequential(
        nn.Linear(config.d_model, half),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(half, outputs),
    )
