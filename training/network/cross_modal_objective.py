"""training/crossmodal: the losses of the switches that are on, with the modules only they need.

What is made here is trained with the network and thrown away after it: projections, decoders,
embeddings of the other modality. May import torch; the loop that steps is in `training.fit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from training.data.substance_tables import (
    SubstanceTables,
    TextEncoder,
    cosine_similarities,
    number_distinct_rows,
)
from training.network.cross_modal import CrossModalNet
from training.network.cross_modal_losses import (
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
    from training.network.cross_modal import HeadOutputs
    from training.network.stem import Blend

HIDDEN_WIDTH, SHARED_WIDTH = 512, 256
"""Of the published GC-MS encoder, an MLP 512-256-256 (SmellNet, arXiv 2506.00239)."""
VIEW_WIDTH = 64
"""Of the space in which a window meets one view of a description."""
START_SCALE, START_BIAS = 10.0, 0.0
"""Of a view's scaled cosine; both are learned. Rebalanced pairs need no bias against "yes"."""
MAX_RARITY = 20.0
"""Largest weight of a rare descriptor's presence."""
DECODER_HEADS, QUERY_ROWS = 4, 5
"""Of the masked prediction's decoder; rows predicted by one query, fewer if 5 do not divide."""
WITH_ELEMENTS = 0.5
"""Share of masked windows whose prediction is helped by the GC-MS vector. The others must do
without, so that the trunk cannot leave all to the vector."""


def build_cross_modal_network(
    config: TrainConfig, spec: PreprocessSpec, knowledge: SubstanceTables, n_labels: int
) -> CrossModalNet:
    """Build the network that a configuration's switches ask for, freshly initialised."""
    settings = config.cross_modal
    named = knowledge.descriptors.names if knowledge.descriptors else ()
    return CrossModalNet(
        config.network,
        window=spec.window,
        n_features=spec.n_features,
        n_labels=n_labels,
        n_lags=len(spec.lags),
        n_descriptors=len(named) if settings and settings.descriptors else 0,
        two_views=bool(settings and settings.balancer),
    )


class CrossModalObjective(nn.Module):
    """All that a cross-modal training minimises.

    Substances without a recording in the training data are unknown to it, whatever the tables
    say of them: neither their vectors nor their descriptions serve as negatives.

    Parameters
    ----------
    config: with `cross_modal`.
    spec: the preprocessing.
    knowledge: of all labels, as `read_substance_tables` reads it.
    trained: bool[labels], the substances with a recording in the training data.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: PreprocessSpec,
        knowledge: SubstanceTables,
        trained: NDArray[np.bool_],
    ) -> None:
        super().__init__()
        if config.cross_modal is None:
            raise ValueError("an objective needs a configuration with cross_modal")
        self.settings: CrossModalConfig = config.cross_modal
        self.label_smoothing = config.optimiser.label_smoothing
        width = config.network.d_model
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        self.gcms: GcmsAlignment | None = None
        self.similarity: ChemicalSimilarity | None = None
        self.matcher: DescriptionMatcher | None = None
        self.decoder: MaskedDecoder | None = None
        self.describer: DescriptorTargets | None = None
        elements = (
            knowledge.elements.restrict_to(trained).standardise() if knowledge.elements else None
        )
        if self.settings.gcms and elements:
            self.gcms = GcmsAlignment(width, elements.values, elements.known)
        if self.settings.similarity and elements:
            self.similarity = ChemicalSimilarity(width, elements.values, elements.known)
        if self.settings.signed:
            self.matcher = DescriptionMatcher(width, description_views(knowledge, trained))
        if (self.settings.masked or self.settings.pretrain) and elements:
            self.decoder = MaskedDecoder(config, spec, elements.values)
        if self.settings.descriptors and knowledge.descriptors:
            table = knowledge.descriptors.restrict_to(trained)
            self.describer = DescriptorTargets(table.values, table.known)

    def forward(
        self,
        network: CrossModalNet,
        x: Tensor,
        mask: Tensor,
        target: Tensor,
        progress: float,
        *,
        blend: Blend | None = None,
        taught: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        network: in training mode.
        x: float32[batch, window, feature].
        mask: float32[batch, window].
        target: float32[batch, labels].
        progress: share of the steps that are done, 0..1.
        blend: how the windows are mixed within the network; `target` is mixed already.
        taught: float32[batch, labels], what teachers say; learned instead of `target` as labels.
        """
        if self.decoder is not None and progress < self.settings.pretrain:
            alone: Tensor = self.decoder(network, x, mask, target, self.generator)
            return alone
        said = network.heads(x, mask, blend)
        halves = self._halves(said)
        loss = (
            self._task_loss(said, target, halves, self.label_smoothing)
            if taught is None
            else self._task_loss(said, taught, halves, 0.0)
        )
        if self.gcms is not None:
            loss = loss + self.settings.gcms * self.gcms(
                said.embedding, target, self.settings.temperature
            )
        if self.similarity is not None:
            loss = loss + self.settings.similarity * self.similarity(said.embedding, target)
        if self.matcher is not None:
            loss = loss + self.settings.signed * self.matcher(said.embedding, target)
        if self.describer is not None:
            half = halves.descriptors if halves else None
            loss = loss + self.settings.descriptors * self.describer(said.descriptors, target, half)
        if self.decoder is not None and self.settings.masked:
            loss = loss + self.settings.masked * self.decoder(
                network, x, mask, target, self.generator
            )
        return loss

    def _task_loss(
        self, said: HeadOutputs, target: Tensor, halves: _Halves | None, label_smoothing: float
    ) -> Tensor:
        if halves is None:
            return substance_loss(said.logits[0].float(), target, label_smoothing=label_smoothing)
        first, second = (logits.float() for logits in said.logits)
        return split_cross_entropy((first, second), target, halves.labels, label_smoothing)

    def _halves(self, said: HeadOutputs) -> _Halves | None:
        """Draw the labels and descriptors that the first view learns in this step."""
        if not self.settings.balancer:
            return None
        device = said.embedding.device
        labels = self._half(said.logits[0].shape[1]).to(device)
        count = said.descriptors[0].shape[1] if said.descriptors else 0
        return _Halves(labels, self._half(count).to(device))

    def _half(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator) < count // 2


@dataclass(frozen=True, slots=True, eq=False)
class _Halves:
    """bool[labels] and bool[descriptors], the first view's in this step."""

    labels: Tensor
    descriptors: Tensor


class GcmsAlignment(nn.Module):
    """Windows and GC-MS vectors in one space, drawn together by InfoNCE."""

    vectors: Tensor
    known: Tensor
    kind: Tensor

    def __init__(self, width: int, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
        super().__init__()
        self.window_side = nn.Linear(width, SHARED_WIDTH)
        self.vector_side = nn.Sequential(
            nn.Linear(vectors.shape[1], HIDDEN_WIDTH),
            nn.GELU(),
            nn.Linear(HIDDEN_WIDTH, SHARED_WIDTH),
            nn.GELU(),
            nn.Linear(SHARED_WIDTH, SHARED_WIDTH),
        )
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)
        self.register_buffer("known", torch.from_numpy(known), persistent=False)
        kind = torch.from_numpy(number_distinct_rows(vectors))
        self.register_buffer("kind", kind, persistent=False)

    def forward(self, embedding: Tensor, target: Tensor, temperature: float) -> Tensor:
        """Return the loss of embeddings [batch, D] of windows that are `target` [batch, labels]."""
        rows, substances = purest_windows(target, self.kind, self.known)
        if len(rows) < 2:  # noqa: PLR2004 - one pair has nothing to be told from
            return embedding.sum() * 0
        sensed = self.window_side(embedding[rows]).float()
        vectors = self.vector_side(self.vectors[substances]).float()
        return symmetric_info_nce(sensed, vectors, temperature)


class ChemicalSimilarity(nn.Module):
    """Windows as similar as their substances are chemically."""

    similarity: Tensor
    known: Tensor

    def __init__(self, width: int, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
        super().__init__()
        self.window_side = nn.Linear(width, SHARED_WIDTH)
        similarity = torch.from_numpy(cosine_similarities(vectors))
        self.register_buffer("similarity", similarity, persistent=False)
        self.register_buffer("known", torch.from_numpy(known), persistent=False)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the loss of embeddings [batch, D] of windows that are `target` [batch, labels]."""
        sensed = self.window_side(embedding).float()
        return similarity_loss(sensed, target, self.similarity, self.known)


class DescriptionMatcher(nn.Module):
    """Windows and odour descriptions, met in several views, each with a learned cosine.

    Parameters
    ----------
    width: of the windows' embedding.
    tables: per view, float32[labels, columns] and bool[labels], as `description_views` makes them.
    """

    def __init__(
        self, width: int, tables: dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]
    ) -> None:
        super().__init__()
        self.views = tuple(tables)
        self.window_sides = nn.ModuleDict({v: nn.Linear(width, VIEW_WIDTH) for v in tables})
        self.view_sides = nn.ModuleDict(
            {v: nn.Linear(values.shape[1], VIEW_WIDTH) for v, (values, _) in tables.items()}
        )
        self.scale = nn.Parameter(torch.full((len(tables),), START_SCALE))
        self.bias = nn.Parameter(torch.full((len(tables),), START_BIAS))
        for view, (values, known) in tables.items():
            self.register_buffer(f"{view}_values", torch.from_numpy(values), persistent=False)
            self.register_buffer(f"{view}_known", torch.from_numpy(known), persistent=False)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the views; windows are `target` [batch, labels]."""
        losses = []
        for number, view in enumerate(self.views):
            known = self.get_buffer(f"{view}_known")
            row = (target * known).sum(dim=1) > 1 - 1e-4
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
    knowledge: SubstanceTables, trained: NDArray[np.bool_]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Return the views of every substance's description, and who has one *and* was trained.

    Vocabularies, directions and scales are set by the trained substances alone; the values of
    the others are there for judging how far it carries.
    """
    tables: dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}
    if knowledge.texts:
        described = np.array([bool(text) for text in knowledge.texts]) & trained
        encoder = TextEncoder([t for t, d in zip(knowledge.texts, described, strict=True) if d])
        for view, values in encoder(knowledge.texts).items():
            tables[view] = values, described
    if knowledge.descriptors:
        tables["descriptors"] = (
            knowledge.descriptors.values,
            knowledge.descriptors.known & trained,
        )
    if knowledge.elements:
        own = knowledge.elements.values[knowledge.elements.known & trained]
        spread = np.where(own.std(axis=0) > 0, own.std(axis=0), 1.0)
        scaled = ((knowledge.elements.values - own.mean(axis=0)) / spread).clip(-5, 5)
        tables["elements"] = scaled.astype(np.float32), knowledge.elements.known & trained
    return tables


class MaskedDecoder(nn.Module):
    """Predicts what is hidden of a window from the rest, with or without the GC-MS vector.

    As MolFusion's AtomAlign (arXiv 2406.18020) predicts masked atoms of one modality with the
    other's help. The vector is one more token that this decoder reads and never reaches the
    trunk, which therefore sees no label. Queries, one for a few rows each, attend to the trunk's
    tokens, whatever a token stands for.
    """

    vectors: Tensor

    def __init__(
        self, config: TrainConfig, spec: PreprocessSpec, vectors: NDArray[np.float32]
    ) -> None:
        super().__init__()
        width = config.network.d_model
        rows = next(n for n in range(QUERY_ROWS, 0, -1) if spec.window % n == 0)
        self.channels = len(spec.channels)
        self.vector_token = nn.Linear(vectors.shape[1], width)
        self.no_vector = nn.Parameter(torch.zeros(width))
        self.queries = nn.Parameter(0.02 * torch.randn(spec.window // rows, width))
        heads = DECODER_HEADS if width % DECODER_HEADS == 0 else 1
        self.reader = nn.TransformerDecoderLayer(
            width, heads, 2 * width, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.rows = nn.Linear(width, rows * spec.n_features)
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)

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
        # A short window may lie in the hidden span whole: it is then shown, as zeros.
        seen = torch.where(seen.sum(dim=1, keepdim=True) > 0, seen, mask)
        tokens, weight = network.trunk.encoded(x.masked_fill(hidden, 0.0), seen)
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


class DescriptorTargets(nn.Module):
    """The descriptors of substances as targets of the descriptor heads."""

    rarity: Tensor
    learnable: Tensor
    values: Tensor
    known: Tensor

    def __init__(self, values: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
        super().__init__()
        present = values[known].sum(axis=0)
        rarity = (known.sum() - present) / np.maximum(present, 1)
        limited = torch.from_numpy(rarity.clip(1 / MAX_RARITY, MAX_RARITY).astype(np.float32))
        self.register_buffer("rarity", limited, persistent=False)
        # A descriptor that no trained substance has can only be learned as "never".
        learnable = torch.from_numpy((present > 0).astype(np.float32))
        self.register_buffer("learnable", learnable, persistent=False)
        self.register_buffer("values", torch.from_numpy(values), persistent=False)
        self.register_buffer("known", torch.from_numpy(known), persistent=False)

    def forward(self, views: tuple[Tensor, ...], target: Tensor, half: Tensor | None) -> Tensor:
        """Return the loss of the views' logits [batch, descriptors].

        With `half` bool[descriptors] the first view learns these and the second the others.
        """
        wanted = target @ self.values
        row = ((target * self.known).sum(dim=1) > 1 - 1e-4).float()
        weight = row[:, None] * self.learnable
        rarity = self.rarity
        if half is None:
            return balanced_bce(views[0].float(), wanted, rarity, weight)
        parts = (weight * half, weight * ~half)
        losses = [
            balanced_bce(view.float(), wanted, rarity, part)
            for view, part in zip(views, parts, strict=True)
        ]
        return 0.5 * (losses[0] + losses[1])
