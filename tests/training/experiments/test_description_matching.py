"""Matching descriptions with recordings."""

from __future__ import annotations

import numpy as np
import pytest

from training.experiments.description_matching import (
    Pairs,
    all_pairs,
    fit_experts,
    geometric_mean_threshold,
    match_hidden,
    match_known,
    score_matching,
)

pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")


def views(informative: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [recordings, labels, 3 views]; the second view has so much information."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(20), 3)
    cosines = rng.normal(0, 0.3, (60, 20, 3))
    cosines[np.arange(60), truth, 1] += informative
    return cosines, truth


def test_combination_of_experts_follows_the_informative_one() -> None:
    result = match_known(*views(1.0))
    assert result.auroc.value > 0.95
    assert result.views[1] > 0.95
    assert abs(result.views[0] - 0.5) < 0.12
    assert result.sensitivity > 0.8
    assert result.specificity > 0.8


def test_matching_without_information_is_chance() -> None:
    assert abs(match_known(*views(0.0)).auroc.value - 0.5) < 0.12


def test_pairs_take_the_chosen_substances_only() -> None:
    cosines, truth = views(1.0)
    pairs = all_pairs(cosines, truth, np.array([2, 5, 7]))
    assert pairs.cosines.shape == (9 * 3, 3)
    assert pairs.matches.sum() == 9
    np.testing.assert_array_equal(pairs.cosines[0], cosines[6, 2])


def test_hidden_substances_are_matched_by_experts_of_the_other_folds() -> None:
    """Inverting one fold's cosines must spoil the matching of the other."""
    cosines, truth = views(1.0)
    halves = [all_pairs(cosines, truth, np.arange(start, start + 10)) for start in (0, 10)]
    fair = match_hidden(halves)
    assert min(one.auroc.value for one in fair) > 0.95
    assert min(one.sensitivity for one in fair) > 0.8
    upside_down = Pairs(-halves[1].cosines, halves[1].matches, halves[1].substance)
    misled, judged = match_hidden([halves[0], upside_down])
    assert misled.auroc.value < 0.1
    assert judged.auroc.value < 0.1
    alone = match_hidden([halves[0]])
    assert len(alone) == 2
    assert min(one.auroc.value for one in alone) > 0.9


def test_threshold_is_that_of_the_greatest_geometric_mean() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.7, 0.9])
    wanted = np.array([False, False, False, False, True, True, True])
    best = geometric_mean_threshold(scores, wanted)
    assert best == 0.5
    grid = np.linspace(0, 1, 101)
    means = [np.sqrt((scores[wanted] >= t).mean() * (scores[~wanted] < t).mean()) for t in grid]
    assert np.sqrt(1.0 * 0.75) == pytest.approx(max(means))


def test_experts_are_scored_at_the_threshold_they_were_fitted_with() -> None:
    cosines = np.array([[0.0], [0.1], [0.9], [1.0]])
    pairs = Pairs(cosines, np.array([False, False, True, True]), np.arange(4))
    experts = fit_experts(pairs)
    other = Pairs(cosines - 10, pairs.matches, pairs.substance)
    shifted = score_matching(experts, other)
    assert shifted.auroc.value == 1.0
    assert (shifted.sensitivity, shifted.specificity) == (0.0, 1.0)
