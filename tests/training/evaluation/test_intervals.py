"""Bootstrap intervals of scores over recordings."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.outputs import some_log_probabilities
from training.evaluation.intervals import resample_counts, score_intervals
from training.evaluation.scoring import substance_tally


def test_interval_of_a_share_is_the_binomial_interval() -> None:
    """For one window a recording the bootstrap has a known spread: sqrt(p (1 - p) / n)."""
    hits = np.arange(400) % 4 > 0
    log_p = np.log(np.where(hits[:, None], [[0.9, 0.1]], [[0.1, 0.9]]))
    tally = substance_tally(log_p, np.arange(400), np.zeros(400, dtype=int))
    low, high = score_intervals(tally)["top1"]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_repeated_windows_do_not_narrow_an_interval() -> None:
    log_p, owner, truth = some_log_probabilities()
    once = score_intervals(substance_tally(log_p, owner, truth))
    often = score_intervals(
        substance_tally(np.repeat(log_p, 10, axis=0), np.repeat(owner, 10), truth)
    )
    assert once == often


def test_recordings_of_a_group_are_resampled_together() -> None:
    groups = ["a", "b", "a", "c"]
    weights = resample_counts(4, groups, seed=0, draws=50)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert (weights[:, 0] != weights[:, 1]).any()
