"""training/: the losses of a configuration's cross-modal switches, with the modules they need.

The modules here (projections, decoders, embeddings of the other modality) are trained with the
network and not exported. May import torch; the training loop is in `training.fit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from training.data.substance_tables import (
    SubstanceTable,
    SubstanceTables,
    TextEncoder,
    cosine_similarities,
    number_distinct_rows,
)
from training.network.cross_modal import CrossModalNet
from training.network.cross_modal_losses import (
    all_known,
    balanced_bce,
    choose_hidden,
    masked_prediction_loss,
    purest_windows,
    signed_pair_loss,
    similarity_loss,
    split_cross_entropy,
    symmetric_info_nce,
)
from training.network.losses import substance_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.preprocess import PreprocessSpec
    from training.config import CrossModalConfig, TrainConfig
    from training.network.stem import Blend

HIDDEN_WIDTH, SHARED_WIDTH = 512, 256
"""Of the published GC-MS encoder, an MLP 512-256-256 (SmellNet, arXiv 2506.00239)."""
VIEW_WIDTH = 64
"""Of the space in which windows are compared with one view of the descriptions."""
START_SCALE, START_BIAS = 10.0, 0.0
"""Of a view's scaled cosine; both are learned. Rebalanced pairs need no bias against "yes"."""
MAX_RARITY = 20.0
"""Largest weight of a rare descriptor's presence."""
DECODER_HEADS, QUERY_ROWS = 4, 5
"""Of the masked prediction's decoder; rows predicted by one query, fewer if 5 do not divide."""
WITH_ELEMENTS = 0.5
"""Share of masked windows whose prediction is given the GC-MS vector. The others are predicted
without it, so that the trunk has to learn as well."""


def build_cross_modal_network(
    config: TrainConfig, spec: PreprocessSpec, tables: SubstanceTables, n_labels: int
) -> CrossModalNet:
    """Build the network that a configuration's switches need, freshly initialised."""
    settings = config.cross_modal
    named = tables.descriptors.names if tables.descriptors else ()
    return CrossModalNet(
        config.network,
        spec,
        n_labels,
        n_descriptors=len(named) if settings and settings.descriptors else 0,
        two_views=bool(settings and settings.balancer),
    )


class CrossModalObjective(nn.Module):
    """The loss of a cross-modal training.

    Substances without a recording in the training data count as unknown, whatever the tables
    hold: neither their vectors nor their descriptions serve as negatives.

    Parameters
    ----------
    config: with `cross_modal`.
    spec: the preprocessing.
    tables: of all labels.
    trained: bool[labels], the substances with a recording in the training data.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: PreprocessSpec,
        tables: SubstanceTables,
        trained: NDArray[np.bool_],
    ) -> None:
        super().__init__()
        if config.cross_modal is None:
            raise ValueError("an objective needs a configuration with cross_modal")
        self.settings: CrossModalConfig = config.cross_modal
        width = config.network.d_model
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        self.gcms: GcmsAlignment | None = None
        self.similarity: ChemicalSimilarity | None = None
        self.matcher: DescriptionMatcher | None = None
        self.decoder: MaskedDecoder | None = None
        self.describer: DescriptorTargets | None = None
        settings, elements = self.settings, tables.elements
        if elements:
            elements = elements.standardise(trained).restrict_to(trained)
        if settings.gcms and elements:
            self.gcms = GcmsAlignment(width, elements, settings.temperature)
        if settings.similarity and elements:
            self.similarity = ChemicalSimilarity(width, elements)
        if settings.signed:
            self.matcher = DescriptionMatcher(width, description_views(tables, trained))
        if (settings.masked or settings.pretrain) and elements:
            self.decoder = MaskedDecoder(config, spec, elements)
        if settings.descriptors and tables.descriptors:
            self.describer = DescriptorTargets(tables.descriptors.restrict_to(trained))

    def forward(
        self,
        network: CrossModalNet,
        x: Tensor,
        mask: Tensor,
        target: Tensor,
        progress: float,
        *,
        label_target: Tensor,
        label_smoothing: float,
        blend: Blend | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        network: in training mode.
        x: float32[batch, window, feature].
        mask: float32[batch, window].
        target: float32[batch, labels].
        progress: share of the steps that are done, 0..1.
        label_target: float32[batch, labels], what the logits learn: `target`, or the teachers'
            probabilities.
        label_smoothing: share of `label_target` spread over all labels.
        blend: how the windows are mixed within the network; `target` is mixed already.
        """
        settings = self.settings
        if self.decoder is not None and progress < settings.pretrain:
            alone: Tensor = self.decoder(network, x, mask, target, self.generator)
            return alone
        heads = network.head_outputs(x, mask, blend)
        descriptor_half = None
        if settings.balancer:
            label_half = self._draw_half(heads.logits[0])
            if heads.descriptors:
                descriptor_half = self._draw_half(heads.descriptors[0])
            first, second = (logits.float() for logits in heads.logits)
            loss = split_cross_entropy((first, second), label_target, label_half, label_smoothing)
        else:
            logits = heads.logits[0].float()
            loss = substance_loss(logits, label_target, label_smoothing=label_smoothing)
        for weight, term in (
            (settings.gcms, self.gcms),
            (settings.similarity, self.similarity),
            (settings.signed, self.matcher),
        ):
            if term is not None:
                loss = loss + weight * term(heads.embedding, target)
        if self.describer is not None:
            described = self.describer(heads.descriptors, target, descriptor_half)
            loss = loss + settings.descriptors * described
        if self.decoder is not None and settings.masked:
            masked = self.decoder(network, x, mask, target, self.generator)
            loss = loss + settings.masked * masked
        return loss

    def _draw_half(self, outputs: Tensor) -> Tensor:
        """Draw bool[columns], which half of the outputs' columns the first view learns."""
        count = outputs.shape[1]
        half = torch.randperm(count, generator=self.generator) < count // 2
        return half.to(outputs.device)


class _WithConstants(nn.Module):
    """A module with arrays that move with it to a device and are not saved with its state."""

    def hold(self, **arrays: NDArray[Any]) -> None:
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)


class GcmsAlignment(_WithConstants):
    """Windows and GC-MS vectors in one space, aligned by InfoNCE."""

    vectors: Tensor
    known: Tensor
    kind: Tensor

    def __init__(self, width: int, elements: SubstanceTable, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.window_side = nn.Linear(width, SHARED_WIDTH)
        self.vector_side = nn.Sequential(
            nn.Linear(elements.values.shape[1], HIDDEN_WIDTH),
            nn.GELU(),
            nn.Linear(HIDDEN_WIDTH, SHARED_WIDTH),
            nn.GELU(),
            nn.Linear(SHARED_WIDTH, SHARED_WIDTH),
        )
        kind = number_distinct_rows(elements.values)
        self.hold(vectors=elements.values, known=elements.known, kind=kind)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the loss of embeddings [batch, D] of windows that are `target` [batch, labels]."""
        rows, substances = purest_windows(target, self.kind, self.known)
        if len(rows) < 2:  # noqa: PLR2004 - InfoNCE needs a negative
            return embedding.sum() * 0
        sensed = self.window_side(embedding[rows]).float()
        vectors = self.vector_side(self.vectors[substances]).float()
        return symmetric_info_nce(sensed, vectors, self.temperature)


class ChemicalSimilarity(_WithConstants):
    """Windows as similar to each other as their substances are chemically."""

    similarity: Tensor
    known: Tensor

    def __init__(self, width: int, elements: SubstanceTable) -> None:
        super().__init__()
        self.window_side = nn.Linear(width, SHARED_WIDTH)
        self.hold(similarity=cosine_similarities(elements.values), known=elements.known)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the loss of embeddings [batch, D] of windows that are `target` [batch, labels]."""
        sensed = self.window_side(embedding).float()
        return similarity_loss(sensed, target, self.similarity, self.known)


class DescriptionMatcher(_WithConstants):
    """Windows and odour descriptions, compared in several views by a learned cosine each.

    Parameters
    ----------
    width: of the windows' embedding.
    tables: one per view, as `description_views` makes them.
    """

    def __init__(self, width: int, tables: dict[str, SubstanceTable]) -> None:
        super().__init__()
        self.views = tuple(tables)
        self.window_sides = nn.ModuleDict({v: nn.Linear(width, VIEW_WIDTH) for v in tables})
        self.view_sides = nn.ModuleDict(
            {v: nn.Linear(table.values.shape[1], VIEW_WIDTH) for v, table in tables.items()}
        )
        self.scale = nn.Parameter(torch.full((len(tables),), START_SCALE))
        self.bias = nn.Parameter(torch.full((len(tables),), START_BIAS))
        for view, table in tables.items():
            self.hold(**{f"{view}_values": table.values, f"{view}_known": table.known})

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the views; windows are `target` [batch, labels]."""
        losses = []
        for number, view in enumerate(self.views):
            known = self.get_buffer(f"{view}_known")
            row = all_known(target, known)
            if not bool(row.any()):
                continue
            cosine = self.cosine(view, embedding[row], self.get_buffer(f"{view}_values")[known])
            scores = self.scale[number] * cosine + self.bias[number]
            losses.append(signed_pair_loss(scores, target[row][:, known]))
        return torch.stack(losses).mean() if losses else embedding.sum() * 0

    def cosine(self, view: str, embedding: Tensor, described: Tensor) -> Tensor:
        """Return cosines [n, m] of windows [n, D] with m descriptions' vectors in one view."""
        sensed = F.normalize(self.window_sides[view](embedding).float(), dim=1)
        return sensed @ F.normalize(self.view_sides[view](described).float(), dim=1).T


def description_views(
    tables: SubstanceTables, trained: NDArray[np.bool_]
) -> dict[str, SubstanceTable]:
    """Return every substance's description in each view; only trained substances are known.

    Vocabularies, directions and scales are those of the trained substances alone. The values of
    the others serve to measure how well matching generalises to them.
    """
    views: dict[str, SubstanceTable] = {}
    if tables.texts:
        described = np.array([bool(text) for text in tables.texts]) & trained
        encoder = TextEncoder([t for t, d in zip(tables.texts, described, strict=True) if d])
        for view, values in encoder(tables.texts).items():
            views[view] = SubstanceTable((), values, described)
    if tables.descriptors:
        known = tables.descriptors.known & trained
        views["descriptors"] = SubstanceTable((), tables.descriptors.values, known)
    if tables.elements:
        known = tables.elements.known & trained
        values = tables.elements.standardise(trained).values.clip(-5, 5)
        views["elements"] = SubstanceTable((), values, known)
    return views


class MaskedDecoder(_WithConstants):
    """Predicts what is hidden of a window from the rest, with or without the GC-MS vector.

    As MolFusion's AtomAlign (arXiv 2406.18020) predicts masked atoms of one modality with the
    other's help. The vector is one more token that only this decoder reads: the trunk sees no
    label. Queries, one for a few rows each, attend to the trunk's tokens, whatever a token
    stands for.
    """

    vectors: Tensor

    def __init__(self, config: TrainConfig, spec: PreprocessSpec, elements: SubstanceTable) -> None:
        super().__init__()
        width = config.network.d_model
        rows = next(n for n in range(QUERY_ROWS, 0, -1) if spec.window % n == 0)
        self.channels = len(spec.channels)
        self.vector_token = nn.Linear(elements.values.shape[1], width)
        self.no_vector = nn.Parameter(torch.zeros(width))
        self.queries = nn.Parameter(0.02 * torch.randn(spec.window // rows, width))
        heads = DECODER_HEADS if width % DECODER_HEADS == 0 else 1
        self.reader = nn.TransformerDecoderLayer(
            width, heads, 2 * width, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.rows = nn.Linear(width, rows * spec.n_features)
        self.hold(vectors=elements.values)

    def forward(
        self,
        network: CrossModalNet,
        x: Tensor,
        mask: Tensor,
        target: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the loss of predicting parts of x [batch, window, feature] from the others.

        Windows are not blended here, whatever the network does elsewhere: the vector is then
        that of the blend, of which x is the greater part.
        """
        hidden = choose_hidden(x, self.channels, generator)
        seen = mask * ~hidden.all(dim=2)
        # The hidden span may cover a short window: its rows are then shown, as zeros.
        seen = torch.where(seen.sum(dim=1, keepdim=True) > 0, seen, mask)
        tokens, weight = network.trunk.encode(x.masked_fill(hidden, 0.0), seen)
        helped = (torch.rand(len(x), generator=generator) < WITH_ELEMENTS).to(x.device)
        vector = self.vector_token(target @ self.vectors)
        extra = torch.where(helped[:, None], vector, self.no_vector)[:, None]
        beyond = torch.cat([weight.new_ones(len(x), 1), weight], dim=1) == 0
        read = self.reader(
            self.queries.expand(len(x), -1, -1),
            torch.cat([extra, tokens], dim=1),
            memory_key_padding_mask=beyond,
        )
        return masked_prediction_loss(self.rows(read).reshape(x.shape).float(), x, hidden, mask)


class DescriptorTargets(_WithConstants):
    """The descriptors of substances as targets of the descriptor heads."""

    rarity: Tensor
    learnable: Tensor
    values: Tensor
    known: Tensor

    def __init__(self, table: SubstanceTable) -> None:
        super().__init__()
        present = table.values[table.known].sum(axis=0)
        rarity = (table.known.sum() - present) / np.maximum(present, 1)
        self.hold(
            rarity=rarity.clip(1 / MAX_RARITY, MAX_RARITY).astype(np.float32),
            # A descriptor that no trained substance has could only be learned as "never".
            learnable=(present > 0).astype(np.float32),
            values=table.values,
            known=table.known,
        )

    def forward(self, views: tuple[Tensor, ...], target: Tensor, half: Tensor | None) -> Tensor:
        """Return the loss of the views' logits [batch, descriptors].

        With `half` bool[descriptors] the first view learns these and the second the others.
        """
        wanted = target @ self.values
        weight = all_known(target, self.known).float()[:, None] * self.learnable
        if half is None:
            return balanced_bce(views[0].float(), wanted, self.rarity, weight)
        first, second = (
            balanced_bce(view.float(), wanted, self.rarity, weight * share)
            for view, share in zip(views, (half, ~half), strict=True)
        )
        return 0.5 * (first + second)
