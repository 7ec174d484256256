"""The losses between windows and what is known of their substances."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.substance_tables import cosine_similarities, number_distinct_rows

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.network.cross_modal_losses import (  # noqa: E402
    balanced_bce,
    choose_hidden,
    masked_prediction_loss,
    purest_windows,
    signed_pair_loss,
    similarity_loss,
    split_cross_entropy,
    symmetric_info_nce,
)
from training.network.losses import substance_loss  # noqa: E402


def test_the_purest_window_of_each_distinct_vector_is_chosen() -> None:
    target = torch.tensor(
        [[0.9, 0.1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.5, 0.5, 0, 0]]
    )
    vectors = np.array([[1.0, 2.0], [3.0, 1.0], [3.0, 1.0], [9.0, 9.0]], dtype=np.float32)
    kind = torch.from_numpy(number_distinct_rows(vectors))
    known = torch.tensor([True, True, True, False])
    rows, substances = purest_windows(target, kind, known)
    assert rows.tolist() == [1, 2]  # the purest of substance 0; 2 has the vector of 1
    assert substances.tolist() == [0, 1]


def test_info_nce_is_symmetric_and_least_for_pairs() -> None:
    own = torch.eye(5)
    assert symmetric_info_nce(own, own, 0.07) < 1e-4
    other = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        symmetric_info_nce(own, other, 0.07), symmetric_info_nce(other, own, 0.07)
    )
    assert symmetric_info_nce(own, own.roll(1, 0), 0.07) > 5


def test_similarity_loss_is_zero_where_cosines_are_those_of_the_substances() -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    similarity = torch.from_numpy(cosine_similarities(vectors.numpy()))
    target, known = torch.eye(4), torch.ones(4, dtype=torch.bool)
    assert similarity_loss(vectors, target, similarity, known) < 1e-10
    assert similarity_loss(torch.eye(4), target, similarity, known) > 0.01
    nothing = similarity_loss(torch.eye(4), target, similarity, ~known)
    assert nothing == 0


def test_positive_and_negative_pairs_have_the_same_weight() -> None:
    positive = torch.eye(50)
    always_no = torch.full((50, 50), -8.0)
    assert signed_pair_loss(always_no, positive) == pytest.approx(4.0, rel=0.01)
    assert signed_pair_loss(16 * positive - 8, positive) < 0.001


def test_a_channel_with_its_lags_or_a_span_of_time_is_hidden() -> None:
    x = torch.zeros(200, 20, 6)
    hidden = choose_hidden(x, 3, torch.Generator().manual_seed(0))
    kinds = set()
    for window in hidden:
        if window.all(dim=0).any():
            kinds.add("channel")
            columns = window.all(dim=0).nonzero()[:, 0].tolist()
            assert len(columns) == 2
            assert columns[1] - columns[0] == 3
        else:
            kinds.add("span")
            rows = window.all(dim=1).nonzero()[:, 0]
            assert 3 <= len(rows) <= 11
            assert (rows.diff() == 1).all()
    assert kinds == {"channel", "span"}


def test_masked_prediction_counts_hidden_and_measured_values_only() -> None:
    x, hidden, mask = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2, dtype=torch.bool), torch.ones(1, 4)
    hidden[0, 1:3] = True
    mask[0, 2] = 0
    wrong_elsewhere = torch.ones(1, 4, 2)
    wrong_elsewhere[0, 1] = 0
    assert masked_prediction_loss(wrong_elsewhere, x, hidden, mask) == 0
    assert masked_prediction_loss(torch.ones(1, 4, 2), x, hidden, mask) == pytest.approx(0.5)


def test_halves_of_the_labels_add_up_to_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 6, generator=generator)
    target = torch.eye(6)[torch.randint(6, (8,), generator=generator)]
    half = torch.tensor([True, False, True, False, False, True])
    both = split_cross_entropy((logits, logits), target, half, 0.1)
    torch.testing.assert_close(both, substance_loss(logits, target, label_smoothing=0.1))


def test_first_view_gets_no_gradient_from_the_other_half() -> None:
    first, second = (torch.zeros(2, 4, requires_grad=True) for _ in range(2))
    target = torch.eye(4)[[0, 0]]
    half = torch.tensor([False, False, True, True])
    split_cross_entropy((first, second), target, half, 0.0).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.abs().sum() == 0
    assert second.grad.abs().sum() > 0


def test_rare_descriptor_weighs_more() -> None:
    logits, wanted, weight = torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2)
    plain = balanced_bce(logits, wanted, torch.ones(2), weight)
    rare = balanced_bce(logits, wanted, torch.tensor([1.0, 9.0]), weight)
    torch.testing.assert_close(rare, 5 * plain)
