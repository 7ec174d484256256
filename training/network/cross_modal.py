"""training/crossmodal: a substance network with what its switches add to what is exported.

An output of odour descriptors, and a second view of the window whose answers are averaged
with the first's. torch only. The second modality itself never enters here: the exported
network takes a window and its mask, as any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from training.network.scentformer import SubstanceNet

if TYPE_CHECKING:
    from training.config import NetworkConfig
    from training.network.stem import Blend

FREQUENCIES = 16
"""Frequencies of the second view, from 0 on: at 1 Hz and 100 rows periods down to 6.7 s, below
which the boards' readings are mostly noise."""


class SpectrumView(nn.Module):
    """The frequency view of a window: log power at the lowest frequencies, to an embedding.

    Parameters
    ----------
    window, n_features: shape of a window.
    width: of the embedding, D.
    dropout: share dropped in training.
    """

    waves: Tensor

    def __init__(self, *, window: int, n_features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.window = window
        self.frequencies = min(FREQUENCIES, window // 2 + 1)
        angle = (
            2
            * math.pi
            / window
            * torch.outer(
                torch.arange(self.frequencies, dtype=torch.float32),
                torch.arange(window, dtype=torch.float32),
            )
        )
        waves = torch.cat([angle.cos(), angle.sin()])[:, None]
        self.register_buffer("waves", waves, persistent=False)
        self.encode = nn.Sequential(
            nn.Linear(n_features * self.frequencies, width), nn.GELU(), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> Tensor:
        """Embed x float32[batch, window, feature] with mask [batch, window]: [batch, D]."""
        rows = (x * mask.unsqueeze(-1)).transpose(1, 2)
        # A convolution, although it is a matrix product: those are quantised at export, and a
        # spectrum of integers would be one of rounding.
        parts = F.conv1d(rows.reshape(-1, 1, self.window), self.waves)
        power = parts.reshape(-1, x.shape[2], 2, self.frequencies).square().sum(dim=2)
        level = torch.log1p(power / mask.sum(dim=1).clamp(min=1)[:, None, None])
        level = blend.mean(level) if blend is not None else level
        embedding: Tensor = self.encode(level.reshape(-1, x.shape[2] * self.frequencies))
        return embedding


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutputs:
    """What a cross-modal network says of windows before its views are fused.

    Attributes
    ----------
    embedding: float32[batch, D].
    logits: float32[batch, labels] of each view, one or two.
    descriptors: float32[batch, descriptors], logits of each view; empty without descriptors.
    """

    embedding: Tensor
    logits: tuple[Tensor, ...]
    descriptors: tuple[Tensor, ...]


class CrossModalNet(SubstanceNet):
    """ScentFormer with a descriptor head, a second view, or both.

    Parameters
    ----------
    n_descriptors: of the descriptor head; 0 for none.
    two_views: whether there is a frequency view beside the Transformer's.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        window: int,
        n_features: int,
        n_labels: int,
        n_lags: int = 1,
        n_descriptors: int = 0,
        two_views: bool = False,
    ) -> None:
        super().__init__(
            config, window=window, n_features=n_features, n_labels=n_labels, n_lags=n_lags
        )
        width, dropout = config.d_model, config.dropout
        self.spectrum = (
            SpectrumView(window=window, n_features=n_features, width=width, dropout=dropout)
            if two_views
            else None
        )
        self.spectrum_head = nn.Linear(width, n_labels) if two_views else None
        self.descriptor_heads = nn.ModuleList(
            nn.Linear(width, n_descriptors) for _ in range((1 + two_views) * bool(n_descriptors))
        )
        if n_descriptors:
            self.output_names = (*SubstanceNet.output_names, "descriptors")

    def heads(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> HeadOutputs:
        """Return what every head says of windows, for training; `blend` as in `SubstanceNet`."""
        embedding = self.trunk(x, mask, blend)
        views, logits = [embedding], [self.head(embedding)]
        if self.spectrum is not None and self.spectrum_head is not None:
            views.append(self.spectrum(x, mask, blend))
            logits.append(self.spectrum_head(views[1]))
        described = [head(view) for head, view in zip(self.descriptor_heads, views, strict=False)]
        return HeadOutputs(embedding, tuple(logits), tuple(described))

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: Tensor, blend: Blend | None = None
    ) -> tuple[Tensor, ...]:
        """Return logits, embedding and, where there is its head, descriptor probabilities.

        Views are fused by the mean of their logits.
        """
        said = self.heads(x, mask, blend)
        fused = (_mean(said.logits), said.embedding)
        return (*fused, _mean(said.descriptors).sigmoid()) if said.descriptors else fused


def _mean(views: tuple[Tensor, ...]) -> Tensor:
    return views[0] if len(views) == 1 else 0.5 * (views[0] + views[1])
