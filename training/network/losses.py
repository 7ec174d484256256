"""training/: the published losses of the two tasks.

Substances: cross-entropy. Mixtures: Kullback-Leibler divergence of the proportions, plus half an
epsilon-insensitive L1 over the present components, plus half a focal binary cross-entropy of the
presences (SmellNet, arXiv 2506.00239; focal loss: Lin et al., ICCV 2017). One term is not
published and off by default: the softened share of present components that are more than 0.1 off.
Without it an uncertain network predicts the mean of the possible compositions, which is near none
of them. torch only; knows nothing of data or training loops.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from training.evaluation.scoring import WITHIN

EPSILON = 0.2
"""Width of the insensitive zone of the L1 term, in proportion."""
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 2.0
L1_WEIGHT = FOCAL_WEIGHT = 0.5
WITHIN_SOFTNESS = 0.03
"""Gives a slope to the score that counts a proportion as right WITHIN 0.1."""


def substance_loss(logits: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    """Cross-entropy of logits [batch, labels] against soft targets of the same shape."""
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


def mixture_loss(
    proportion_logits: Tensor,
    presence_logits: Tensor,
    target: Tensor,
    *,
    miss_weight: float = 0.0,
) -> Tensor:
    """Return the composite loss; all three are [batch, labels], target rows sum to 1.

    `miss_weight` is the weight of the softened share of misses; 0 is the published loss.
    """
    log_proportions = proportion_logits.log_softmax(dim=1)
    divergence = F.kl_div(log_proportions, target, reduction="batchmean")
    present = (target > 0).float()
    excess = ((log_proportions.exp() - target).abs() - EPSILON).clamp(min=0) * present
    insensitive_l1 = excess.sum() / present.sum().clamp(min=1)
    focal = focal_bce(presence_logits, present)
    loss = divergence + L1_WEIGHT * insensitive_l1 + FOCAL_WEIGHT * focal
    if miss_weight:
        loss = loss + miss_weight * soft_miss_share(log_proportions.exp(), target)
    return loss


def soft_miss_share(proportions: Tensor, target: Tensor) -> Tensor:
    """Softened share of present components that are off by 0.1 or more, mean over windows."""
    present = (target > 0).float()
    off = ((proportions - target).abs() - WITHIN) / WITHIN_SOFTNESS
    return ((off.sigmoid() * present).sum(dim=1) / present.sum(dim=1)).mean()


def focal_bce(logits: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy that weighs wrong answers more; both are [batch, labels]."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
    probability = logits.sigmoid()
    right = present * probability + (1 - present) * (1 - probability)
    weight = present * FOCAL_ALPHA + (1 - present) * (1 - FOCAL_ALPHA)
    return (weight * (1 - right) ** FOCAL_GAMMA * cross_entropy).mean()
