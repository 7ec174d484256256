"""Announced probabilities and prediction sets."""

from __future__ import annotations

import pytest

from tests.training.outputs import calibrated_held_out
from training.evaluation.decision_fit import fit_fold_constants
from training.trust.prediction_sets import measure_prediction_sets


def test_sets_of_calibrated_probabilities_have_the_stated_coverage() -> None:
    held_out = calibrated_held_out()
    report = measure_prediction_sets(held_out, fit_fold_constants(held_out))
    for method in ("least_ambiguous", "adaptive"):
        row = report["sets"][method]["always"]
        assert row["coverage"] == pytest.approx(0.9, abs=0.05)
        assert 1.0 <= row["size"] < 4.0
    announced = report["announced"]["always"]
    assert announced["calibration_error"] < 0.1
    assert announced["precision"] > 0.7
