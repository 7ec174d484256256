"""training/: the losses between windows and what is known of their substances.

Pure functions of tensors; torch only. Shapes: B windows of a batch, L labels, D dimensions.
Targets are soft, float32[B, L] with rows summing to 1, because windows may be mixed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

MIN_PURITY = 0.5
"""A mixed window stands for a substance only if more than this share of it is the substance."""


def all_known(target: Tensor, known: Tensor) -> Tensor:
    """Return bool[B]: windows of `target` [B, L] that hold known substances bool[L] only."""
    return (target * known).sum(dim=1) > 1 - 1e-4


def purest_windows(target: Tensor, kind: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the purest window for every distinct vector of a batch.

    With one vector twice in a batch InfoNCE would push a window away from its own vector:
    the published training keeps the vectors of a batch unique (SmellNet, arXiv 2506.00239).

    Parameters
    ----------
    target: float32[B, L].
    kind: int64[L]; substances of one kind have the same vector.
    known: bool[L], which substances have a vector.

    Returns
    -------
    Rows of the chosen windows and the substance of each, int64[U] both.
    """
    purity, substance = target.max(dim=1)
    usable = (purity > MIN_PURITY) & known[substance]
    chosen: dict[int, int] = {}
    for row in torch.argsort(purity, descending=True, stable=True).tolist():
        if usable[row]:
            chosen.setdefault(int(kind[substance[row]]), row)
    rows = torch.tensor(sorted(chosen.values()), dtype=torch.long, device=target.device)
    return rows, substance[rows]


def symmetric_info_nce(embeddings: Tensor, vectors: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions; row k of `embeddings` [U, D] belongs to row k of `vectors`.

    Mean of the cross-entropies of finding the vector of a window and the window of a vector
    (CLIP: Radford et al., ICML 2021; for smells SmellNet, arXiv 2506.00239).
    """
    scores = F.normalize(embeddings, dim=1) @ F.normalize(vectors, dim=1).T / temperature
    own = torch.arange(len(scores), device=scores.device)
    return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))


def similarity_loss(
    embeddings: Tensor, target: Tensor, similarity: Tensor, known: Tensor
) -> Tensor:
    """Mean squared error between windows' cosine similarities and those of their substances.

    Continuous targets instead of binary pairs, as MolFusion's MolSim uses for the similarity
    of fingerprints. A mixed window is as similar as its parts are on average.

    Parameters
    ----------
    embeddings: float32[B, D], of windows.
    target: float32[B, L].
    similarity: float32[L, L], chemical similarity of the substances.
    known: bool[L]; pairs with a window of unknown substances do not count.
    """
    unit = F.normalize(embeddings, dim=1)
    wanted = target @ similarity @ target.T
    row = all_known(target, known).float()
    # The diagonal teaches nothing: every window resembles itself.
    weight = row[:, None] * row[None] * (1 - torch.eye(len(row), device=row.device))
    return ((unit @ unit.T - wanted).square() * weight).sum() / weight.sum().clamp(min=1)


def signed_pair_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Binary cross-entropy over all pairs; positives and negatives have the same total weight.

    One description in fifty is right: without rebalancing, "no" would be the best answer to
    all. Sigmoid of scaled cosines with explicit negatives, as in the matching of smells with
    texts and pictures in MUSTI (MediaEval 2022-23) and in SigLIP (Zhai et al., ICCV 2023).

    Parameters
    ----------
    scores: float32[B, J], scaled cosine plus bias of each window with each description.
    positive: float32[B, J], share of the window that the description is about.
    """
    negative = 1 - positive
    right = (positive * F.softplus(-scores)).sum() / positive.sum().clamp(min=1e-6)
    wrong = (negative * F.softplus(scores)).sum() / negative.sum().clamp(min=1e-6)
    return 0.5 * (right + wrong)


def choose_hidden(
    x: Tensor, channels: int, generator: torch.Generator, span: tuple[float, float] = (0.2, 0.5)
) -> Tensor:
    """Choose what of each window is hidden: one channel with all its lags, or a span of time.

    Parameters
    ----------
    x: float32[B, window, feature], features lag-major and channel-minor.
    channels: of the sensor.
    generator: on the CPU; draws one of the two for each window, evenly.
    span: shortest and longest hidden span, as shares of the window.

    Returns
    -------
    bool[B, window, feature] on the device of `x`, True where hidden.
    """
    size, window, features = x.shape
    channel = torch.randint(channels, (size,), generator=generator)
    by_channel = (torch.arange(features)[None] % channels) == channel[:, None]
    low, high = span
    length = (low + (high - low) * torch.rand(size, generator=generator)) * window
    first = torch.rand(size, generator=generator) * (window - length)
    row = torch.arange(window)[None]
    by_time = (row >= first[:, None]) & (row < (first + length)[:, None])
    choose_channel = torch.rand(size, generator=generator) < 0.5  # noqa: PLR2004 - a coin
    hidden = torch.where(choose_channel[:, None, None], by_channel[:, None, :], by_time[:, :, None])
    return hidden.to(x.device)


def masked_prediction_loss(predicted: Tensor, x: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """Smooth L1 of the prediction where `x` was hidden and measured; all [B, window, feature].

    Not squared: differences of log-conductances are heavy-tailed, and a few bursts would
    dominate the loss. `mask` is float32[B, window].
    """
    weight = hidden * mask[:, :, None]
    error = F.smooth_l1_loss(predicted, x, reduction="none")
    return (error * weight).sum() / weight.sum().clamp(min=1)


def balanced_bce(logits: Tensor, wanted: Tensor, rarity: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy over descriptors, the presence of a rare one weighing more.

    Parameters
    ----------
    logits, wanted: float32[B, descriptors]; `wanted` may be a share.
    rarity: float32[descriptors], weight of a presence: absences over presences in the table.
    weight: float32[B, descriptors], 0 where a term does not count.
    """
    terms = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=rarity, reduction="none")
    return (terms * weight).sum() / weight.sum().clamp(min=1e-6)


def split_cross_entropy(
    views: tuple[Tensor, Tensor], target: Tensor, half: Tensor, label_smoothing: float
) -> Tensor:
    """Cross-entropy of the first view for the labels of `half`, of the second for the others.

    The label balancer (Shin, Pei, Kumari & Besold, 2023, "Optimizing learning across multimodal
    transfer features for modeling olfactory perception"): in each step each view learns a random
    half of the labels, so that neither leaves the rare ones to the other.

    Parameters
    ----------
    views: logits float32[B, L] of both views.
    target: float32[B, L].
    half: bool[L], the first view's labels in this step.
    label_smoothing: share of the target spread over all labels.
    """
    smooth = target * (1 - label_smoothing) + label_smoothing / target.shape[1]
    share = half.float()
    first, second = (view.log_softmax(dim=1) for view in views)
    return -(smooth * (share * first + (1 - share) * second)).sum(dim=1).mean()
