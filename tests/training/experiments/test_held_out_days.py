"""Days of mixtures are held out with their component sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.mixed import CONFIG, mixtures
from training.data.dataset import component_sets
from training.data.mixture_days import mixture_days
from training.evaluation.decision_source import choose_decision
from training.evaluation.scoring import group_tally, total_scores
from training.evaluation.storage import SESSIONS_REPORT
from training.experiments.held_out_days import cross_validate_days, day_folds

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


def test_a_fold_trains_on_no_recording_of_its_day_and_no_set_of_it() -> None:
    data = mixtures(days=5)
    sets, days = component_sets(data), mixture_days(data)
    folds = day_folds(data)
    assert len(folds) == 5
    for fold in folds:
        judged = {sets[k] for k in np.flatnonzero(fold.test)}
        assert all(len(parts) > 1 for parts in judged)
        assert not judged & {sets[k] for k in np.flatnonzero(fold.train)}
        assert {days[k] for k in np.flatnonzero(fold.test)} == {fold.day}
        assert fold.day not in {days[k] for k in np.flatnonzero(fold.train)}
    # Days 0 and 4 have the same pair: neither may train for the other.
    assert folds[0].train.sum() == folds[4].train.sum() < folds[1].train.sum()


def test_the_report_has_the_constant_beside_every_score_and_serves_the_export(
    tmp_path: Path,
) -> None:
    report = cross_validate_days(CONFIG, mixtures(), tmp_path)
    scores = {"within_01", "top_k", "mae", "strong_balanced"}
    assert scores <= set(report["pooled"])
    assert {f"constant_{name}" for name in scores} <= set(report["pooled"])
    assert report["pooled"]["constant_strong_balanced"] == pytest.approx(0.5, abs=0.35)
    assert report["pooled"]["strong_balanced"] > 0.8
    assert report["exposures"] == 9
    assert json.loads((tmp_path / SESSIONS_REPORT).read_text())["pooled"] == report["pooled"]
    assert choose_decision(tmp_path, "mixture", CONFIG.name).source in ("sessions", "none")


def test_a_group_is_scored_by_both_kinds_of_error() -> None:
    said = np.array([True, True, False, False, True])
    truly = np.array([True, True, True, False, False])
    scores = total_scores(group_tally(said, truly))
    assert scores["strong_sensitivity"] == pytest.approx(2 / 3)
    assert scores["strong_specificity"] == pytest.approx(1 / 2)
    assert scores["strong_balanced"] == pytest.approx((2 / 3 + 1 / 2) / 2)
