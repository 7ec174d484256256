"""Confusions, categories, calibration and accuracy over time."""

from __future__ import annotations

import numpy as np
import pytest

from models.bundle import load_bundle
from training.evaluation.findings import (
    OTHER,
    categories,
    confusion,
    most_confused,
    window_reliability,
)
from training.evaluation.held_out import HeldOut
from training.evaluation.network_outputs import WindowOutputs


def answered(stated: float, right: float, windows: int = 2000) -> HeldOut:
    """Windows that all state one probability for label 0, which is right so often."""
    logits = np.tile(np.log([stated, 1 - stated]), (windows, 1)).astype(np.float32)
    target = np.eye(2, dtype=np.float32)[(np.arange(windows) >= right * windows).astype(int)]
    names = tuple(map(str, range(windows)))
    answers = WindowOutputs(np.arange(windows), logits, logits=logits)
    return HeldOut(names, names, np.zeros(windows, dtype=int), target, answers)


@pytest.mark.parametrize(("stated", "right"), [(0.8, 0.8), (0.9, 0.6), (0.7, 0.95)])
def test_calibration_error_is_the_gap_between_stated_and_observed_share(
    stated: float, right: float
) -> None:
    curve = window_reliability(answered(stated, right), {})
    assert curve.error == pytest.approx(abs(stated - right), abs=1e-3)
    # 2,000 answers: the gap of a resample strays by about 0.01.
    np.testing.assert_allclose(curve.interval, curve.error, atol=0.04)


def test_confusion_has_the_share_of_each_true_label() -> None:
    table_ = confusion(answered(0.8, 0.75))
    np.testing.assert_allclose(table_, [[1, 0], [1, 0]])
    assert most_confused(table_, ("mint", "dill")) == [("dill", "mint", 1.0)]


def test_every_shipped_substance_has_one_category() -> None:
    labels = load_bundle("substances-50").manifest.labels
    found = categories(labels)
    assert OTHER not in found
    assert sorted(label for members in found.values() for label in members) == sorted(labels)
    assert len(found) == 5


def test_a_new_substance_is_in_the_category_other() -> None:
    assert categories(("almond", "my_shoe")) == {"nuts": ["almond"], OTHER: ["my_shoe"]}
