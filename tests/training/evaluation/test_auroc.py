"""The area under the ROC curve and its bootstrap over groups."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.auroc import (
    auroc,
    column_aurocs,
    grouped_auroc,
    mean_auroc,
    stratified_weights,
)
from training.evaluation.intervals import resample_counts


def test_a_column_of_one_class_is_left_out_of_the_mean() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]])
    wanted = np.array([[True, True, True], [False, True, False]])
    areas = column_aurocs(scores, wanted, np.arange(2))
    assert {k: one.value for k, one in areas.items()} == {0: 1.0, 2: 0.0}
    assert mean_auroc([*areas.values()]).value == 0.5


def test_a_resampled_auroc_is_that_of_the_repeated_recordings() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(8), 5)
    scores = rng.integers(0, 6, 40).astype(float)  # with ties
    wanted = rng.random(40) < 0.4
    found = grouped_auroc(scores, wanted, group)
    assert found.value == pytest.approx(roc_auc_score(wanted, scores))
    times = resample_counts(8)[:5, group]
    expected = [roc_auc_score(np.repeat(wanted, n), np.repeat(scores, n)) for n in times]
    np.testing.assert_allclose(found.draws[:5], expected)
    low, high = found.interval
    assert low < found.value < high


def test_a_resample_of_one_class_is_left_out() -> None:
    alone = grouped_auroc(np.array([0.2, 0.9]), np.array([False, True]), np.array([0, 1]))
    assert np.isnan(alone.draws).any()
    assert alone.interval == (1.0, 1.0)


def test_ties_count_half() -> None:
    novelty = np.array([0.1, 0.4, 0.3, 0.4, 0.9])
    unknown = np.array([False, False, False, True, True])
    # Of six pairs five are rightly ordered and one is a tie.
    assert auroc(novelty, unknown) == 5.5 / 6


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_auroc_is_that_of_scikit_learn(levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra `train`")
    rng = np.random.default_rng(levels)
    for size in (2, 7, 300):
        positive = rng.permutation(np.arange(size) < max(1, size // 3))
        scores = rng.integers(0, levels, size) + positive * rng.normal(0, 1)
        assert auroc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))


def test_auroc_of_one_class_is_chance() -> None:
    assert auroc(np.arange(4.0), np.ones(4, dtype=bool)) == 0.5


def test_stratified_resamples_keep_the_number_of_groups_of_each_class() -> None:
    positive = np.repeat([False, True, True], 4)
    group = np.repeat(["a", "b", "c", "d", "e", "f"], 2)
    weights = stratified_weights(positive, group, np.random.default_rng(0))
    assert (weights[:, :2].sum(axis=1) == 2).all()
    assert (weights[:, 2:].sum(axis=1) == 4).all()
    scores = np.random.default_rng(1).normal(0, 1, 12) + positive
    area = grouped_auroc(scores, positive, group, weights)
    assert np.isfinite(area.draws).all()
    low, high = area.interval
    assert low <= area.value <= high
