"""Teaching a network smells that it was not trained on."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.training.outputs import WIDTH, open_set_fold
from training.trust.enrolment import measure_enrolment


def test_taught_smells_are_named_in_other_recordings() -> None:
    folds = [open_set_fold(k, strange=1.0) for k in range(2)]
    report = measure_enrolment(folds)
    assert set(report["taught"]) == {"1", "2", "3"}
    for row in report["taught"].values():
        assert set(row) == {"4 ways", "2 ways", "all labels"}
        assert row["4 ways"]["scores"]["accuracy_300s"] > 0.95
    # Five lessons of each network: four other recordings of four smells.
    assert report["taught"]["1"]["4 ways"]["tests"] == 2 * 5 * 16
    assert report["known"]["scores"]["alone_accuracy_300s"] > 0.95


def test_identical_smells_are_named_by_chance() -> None:
    """The control of the test above."""
    fold = open_set_fold(0, strange=1.0)
    noise = np.random.default_rng(1).normal(0, 1, (*fold.streams.logits.shape[:2], WIDTH))
    same = dataclasses.replace(
        fold.streams,
        embedding=noise.astype(np.float32),
    )
    report = measure_enrolment([dataclasses.replace(fold, streams=same)])
    assert report["taught"]["1"]["4 ways"]["scores"]["accuracy_300s"] < 0.45
