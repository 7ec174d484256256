"""Bootstrap intervals of scores over recordings."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.intervals import resample_counts, score_intervals
from training.evaluation.scoring import substance_tally


def test_interval_of_a_share_is_the_binomial_one() -> None:
    """For one window a recording the bootstrap has a known spread: sqrt(p (1 - p) / n)."""
    hits = np.arange(400) % 4 > 0
    log_p = np.log(np.where(hits[:, None], [[0.9, 0.1]], [[0.1, 0.9]]))
    tally = substance_tally(log_p, np.arange(400), np.zeros(400, dtype=int))
    low, high = score_intervals(tally)["top1"]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def some_answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of 60 windows of 12 recordings of 4 labels, better than chance."""
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, 12, 60))
    truth = np.arange(12) % 4
    logits = rng.normal(0, 1, (60, 4)) + 1.2 * np.eye(4)[truth[owner]]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), owner, truth


def test_more_windows_of_the_same_recordings_are_no_more_evidence() -> None:
    log_p, owner, truth = some_answers()
    once = score_intervals(substance_tally(log_p, owner, truth))
    often = score_intervals(
        substance_tally(np.repeat(log_p, 10, axis=0), np.repeat(owner, 10), truth)
    )
    assert once == often


def test_recordings_of_one_group_are_drawn_together() -> None:
    groups = ["a", "b", "a", "c"]
    weights = resample_counts(4, groups, seed=0, draws=50)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert (weights[:, 0] != weights[:, 1]).any()
