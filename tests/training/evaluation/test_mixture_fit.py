"""Bounds on mixtures' proportions and presence thresholds, fitted on held-out predictions."""

from __future__ import annotations

import numpy as np
import pytest

from models.decision_spec import DecisionSpec
from training.evaluation.mixture_fit import best_threshold, fit_margin, published_errors

SPEC = DecisionSpec(presence_thresholds=(0.5,) * 3)
TARGET = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], dtype=np.float32)


def test_only_components_that_would_be_published_count() -> None:
    """The third label is present too, and hidden by its threshold; the mean is over windows."""
    proportions = np.array([[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]], np.float32)
    presence = np.array([[0.9, 0.9, 0.1], [0.9, 0.9, 0.1], [0.1, 0.1, 0.9]], np.float32)
    errors = published_errors(proportions, presence, np.array([0, 0, 1]), TARGET, SPEC)
    # 0.6 and 0.3 for 0.7 and 0.3; then their means with 0.4 and 0.5; then 0.8 for 0.5.
    np.testing.assert_allclose(errors, [0.1, 0.0, 0.2, 0.1, 0.3], atol=0.01)


def test_a_margin_covers_the_stated_share_of_other_recordings() -> None:
    rng = np.random.default_rng(6)
    target = rng.dirichlet(np.ones(3), 400).astype(np.float32)
    said = np.clip(target + rng.normal(0, 0.1, target.shape), 0.01, None).astype(np.float32)
    said /= said.sum(axis=1, keepdims=True)
    presence = (target > 0.15).astype(np.float32)
    owner, half = np.arange(400), np.arange(400) < 200
    bound = fit_margin(said[half], presence[half], owner[half], target, SPEC)
    assert bound is not None
    errors = published_errors(said[~half], presence[~half], owner[~half], target, SPEC)
    assert (errors <= bound).mean() == pytest.approx(0.9, abs=0.05)


def test_too_few_recordings_give_no_margin() -> None:
    presence = np.ones((2, 3), np.float32)
    assert fit_margin(TARGET, presence, np.arange(2), TARGET, SPEC) is None


def test_nothing_published_gives_no_margin() -> None:
    absent = np.zeros((400, 3), np.float32)
    target = np.tile(TARGET, (200, 1))
    assert fit_margin(target, absent, np.arange(400), target, SPEC) is None


def test_presence_threshold_separates_separable_presences() -> None:
    presence = np.concatenate([np.linspace(0.0, 0.3, 50), np.linspace(0.4, 0.9, 50)])
    threshold = best_threshold(presence.astype(np.float32), np.arange(100) >= 50)
    assert 0.29 <= threshold <= 0.41


def test_presence_threshold_is_the_best_geometric_mean() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(500) < 0.1
    presence = np.clip(rng.normal(0.3 + 0.2 * truth, 0.1), 0, 1).astype(np.float32)

    def mean(threshold: float) -> float:
        found = presence >= threshold
        return float(np.sqrt(found[truth].mean() * (~found[~truth]).mean()))

    best = max(mean(threshold) for threshold in np.linspace(0, 1, 2001))
    assert mean(best_threshold(presence, truth)) == pytest.approx(best, abs=1e-3)
    assert best_threshold(presence, np.zeros(500, dtype=bool)) == 0.5
