"""Recognising smells that a network was not trained on."""

from __future__ import annotations

from tests.training.outputs import open_set_fold
from training.trust.unknown_smells import measure_unknown_smells


def test_distant_smells_are_recognised_as_unknown_and_near_ones_are_not() -> None:
    far = measure_unknown_smells([open_set_fold(k, strange=1.0) for k in range(3)])
    near = measure_unknown_smells([open_set_fold(k, strange=0.0) for k in range(3)])
    assert far["auroc_300s"] > 0.97
    assert 0.35 < near["auroc_300s"] < 0.65
    for report in (far, near):
        for places in report["scores"].values():
            for row in places.values():
                low, high = row["interval"]
                assert low <= row["auroc"] <= high
    decided = far["decision"]["by_second"]["300s"]
    assert decided["hidden"]["unrecognised"] > 0.9
    assert decided["known"]["unrecognised"] < 0.15
    assert far["scores"]["cosine"]["300s"]["transferred"]["known_recall"] > 0.85
