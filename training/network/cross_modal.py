"""training/: a substance network with a descriptor head, a second view of the window, or both.

torch only. The second modality itself is no input: the exported network takes a window and its
mask, as any other.
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
    from models.preprocess import PreprocessSpec
    from training.config import NetworkConfig
    from training.network.stem import Blend

FREQUENCIES = 16
"""Frequencies of the second view, from 0 on: at 1 Hz and 100 rows periods down to 6.7 s, below
which the boards' readings are mostly noise."""


class SpectrumView(nn.Module):
    """The frequency view of a window: log power at the lowest frequencies, to an embedding."""

    waves: Tensor

    def __init__(self, config: NetworkConfig, spec: PreprocessSpec) -> None:
        super().__init__()
        self.window = spec.window
        self.frequencies = min(FREQUENCIES, spec.window // 2 + 1)
        frequency, row = torch.arange(self.frequencies), torch.arange(spec.window)
        angle = 2 * math.pi / spec.window * torch.outer(frequency.float(), row.float())
        waves = torch.cat([angle.cos(), angle.sin()])[:, None]
        self.register_buffer("waves", waves, persistent=False)
        self.encode = nn.Sequential(
            nn.Linear(spec.n_features * self.frequencies, config.d_model),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> Tensor:
        """Embed x float32[batch, window, feature] with mask [batch, window]: [batch, D]."""
        rows = (x * mask.unsqueeze(-1)).transpose(1, 2)
        # A convolution, not the equal matrix product: export quantises matrix products, and a
        # spectrum computed in integers would be dominated by rounding.
        parts = F.conv1d(rows.reshape(-1, 1, self.window), self.waves)
        power = parts.reshape(-1, x.shape[2], 2, self.frequencies).square().sum(dim=2)
        level = torch.log1p(power / mask.sum(dim=1).clamp(min=1)[:, None, None])
        level = blend.mean(level) if blend is not None else level
        embedding: Tensor = self.encode(level.reshape(-1, x.shape[2] * self.frequencies))
        return embedding


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutputs:
    """What every head of a cross-modal network gives, before the views are averaged.

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
        spec: PreprocessSpec,
        n_labels: int,
        *,
        n_descriptors: int = 0,
        two_views: bool = False,
    ) -> None:
        super().__init__(config, spec, n_labels)
        width = config.d_model
        self.spectrum = SpectrumView(config, spec) if two_views else None
        self.spectrum_head = nn.Linear(width, n_labels) if two_views else None
        self.descriptor_heads = nn.ModuleList(
            nn.Linear(width, n_descriptors) for _ in range((1 + two_views) * bool(n_descriptors))
        )
        if n_descriptors:
            self.output_names = (*SubstanceNet.output_names, "descriptors")

    def head_outputs(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> HeadOutputs:
        """Return what every head gives, for training; the arguments are those of `forward`."""
        embedding = self.trunk(x, mask, blend)
        views, logits = [embedding], [self.head(embedding)]
        if self.spectrum is not None and self.spectrum_head is not None:
            views.append(self.spectrum(x, mask, blend))
            logits.append(self.spectrum_head(views[1]))
        descriptors = [head(view) for head, view in zip(self.descriptor_heads, views, strict=False)]
        return HeadOutputs(embedding, tuple(logits), tuple(descriptors))

    def forward(self, x: Tensor, mask: Tensor, blend: Blend | None = None) -> tuple[Tensor, ...]:
        """Return logits, embedding and, with descriptors, their probabilities.

        Views are fused by the mean of their logits.
        """
        heads = self.head_outputs(x, mask, blend)
        fused = (_mean(heads.logits), heads.embedding)
        return (*fused, _mean(heads.descriptors).sigmoid()) if heads.descriptors else fused


def _mean(views: tuple[Tensor, ...]) -> Tensor:
    return views[0] if len(views) == 1 else 0.5 * (views[0] + views[1])
