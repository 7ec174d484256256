"""The published losses of mixtures, and the softened share of misses."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.network.losses import focal_bce, mixture_loss, soft_miss_share  # noqa: E402


def test_mixture_loss_is_least_at_the_truth() -> None:
    target = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])
    right = (target + 1e-4).log(), torch.where(target > 0, 6.0, -6.0)
    wrong = right[0].roll(1, dims=1), right[1].roll(1, dims=1)
    assert mixture_loss(*right, target) < 0.01
    assert mixture_loss(*wrong, target) > 1.0


def test_soft_miss_share_counts_components_more_than_a_tenth_off() -> None:
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    predicted = torch.tensor([[0.5, 0.1, 0.4], [0.6, 0.2, 0.2]])
    assert float(soft_miss_share(predicted, target)) == pytest.approx(0.5, abs=0.03)
    assert float(soft_miss_share(target, target)) < 0.05


def test_focal_loss_without_focus_is_half_the_cross_entropy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.network.losses.FOCAL_ALPHA", 0.5)
    monkeypatch.setattr("training.network.losses.FOCAL_GAMMA", 0.0)
    logits, truth = torch.randn(4, 5), (torch.rand(4, 5) > 0.5).float()
    reference = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(focal_bce(logits, truth), reference / 2)
