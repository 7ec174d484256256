"""The published scores, by hand and from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.outputs import some_log_probabilities
from training.evaluation.intervals import pool_tallies
from training.evaluation.scoring import (
    mixture_tally,
    substance_tally,
    total_scores,
)


def test_substance_scores_by_hand() -> None:
    p = np.log(np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    result = total_scores(substance_tally(p, np.array([0, 0, 1, 1]), np.array([0, 2])))
    assert result["top1"] == 0.5
    assert result["top5"] == 1.0
    assert result["recording_top1"] == 1.0
    assert result["macro_f1"] == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_mixture_scores_by_hand() -> None:
    target = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]], dtype=np.float32)
    predicted = np.array([[0.45, 0.2, 0.35], [0.75, 0.25, 0.0]])
    tally = mixture_tally(predicted, predicted > 0.3, target, np.arange(2), 2)
    result = total_scores(tally)
    assert result["within_01"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert result["top_k"] == pytest.approx(2 / 4)
    assert result["presence_f1"] == pytest.approx(2 * 1 / (3 + 4))
    assert result["mae"] == pytest.approx((0.05 + 0.3 + 0.35 + 0.75 + 0.05 + 0.8) / 6)


def brute_force(log_p: np.ndarray, owner: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute the scores from their definitions."""
    predicted, wanted = log_p.argmax(axis=1), truth[owner]
    f1 = []
    for k in np.unique(wanted):
        hit = ((predicted == k) & (wanted == k)).sum()
        f1.append(2 * hit / ((predicted == k).sum() + (wanted == k).sum()))
    scored = np.unique(owner)
    recordings = [log_p[owner == r].mean(axis=0).argmax() == truth[r] for r in scored]
    return {
        "top1": float((predicted == wanted).mean()),
        "macro_f1": float(np.mean(f1)),
        "recording_top1": float(np.mean(recordings)),
    }


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=20), st.integers(0, 5))
def test_weighted_scores_equal_those_of_the_repeated_recordings(
    chosen: list[int], seed: int
) -> None:
    log_p, owner, truth = some_log_probabilities(seed)
    tally = substance_tally(log_p, owner, truth)
    windows = [np.flatnonzero(owner == r) for r in chosen]
    beside = np.concatenate([np.full(len(w), k) for k, w in enumerate(windows)])
    if not len(beside):
        return
    expected = brute_force(log_p[np.concatenate(windows)], beside, truth[chosen])
    weights = np.bincount(chosen, minlength=12)[None].astype(float)
    for name, value in expected.items():
        assert tally[name].weighted(weights)[0] == pytest.approx(value), name


def test_pooled_folds_score_as_all_their_windows() -> None:
    rng = np.random.default_rng(3)
    target = rng.dirichlet([0.3] * 4, 30).astype(np.float32)
    target[target < 0.1] = 0
    predicted = rng.dirichlet([0.3] * 4, 30)
    owner = np.repeat(np.arange(10), 3)
    first, last = owner < 4, owner >= 4
    parts = [
        mixture_tally(predicted[part], predicted[part] > 0.3, target[part], owner[part] - start, n)
        for part, start, n in ((first, 0, 4), (last, 4, 6))
    ]
    whole = total_scores(pool_tallies(parts))
    expected = total_scores(mixture_tally(predicted, predicted > 0.3, target, np.arange(30), 30))
    assert whole == pytest.approx(expected)
