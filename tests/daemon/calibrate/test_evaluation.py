"""Scores of labelled recordings on a rig, and the coverage of its prediction sets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from daemon.calibrate.evaluation import (
    RecordingResult,
    ScoredRecording,
    check_sets,
    score_recording,
    score_report,
    sets_summary,
)
from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from models.nose import NoseSettings
from tests.calibration.smells import LEMON, record_smell, teachable_bundle

if TYPE_CHECKING:
    from pathlib import Path

STATED = DecisionSpec(set_threshold=0.5)


def scored(*truths: tuple[float, ...], after: bool = False) -> list[ScoredRecording]:
    """Return recordings whose predictions gave the right label these probabilities."""
    found = []
    for number, looks in enumerate(truths):
        covered = sum(value >= 0.5 for value in looks)
        verdict = RecordingResult("a", 0.6, 0, len(looks), covered, looks)
        poor = RecordingResult("b", 0.6, 0, 1, 0, (0.0,))
        pair = (poor, verdict) if after else (verdict, None)
        found.append(ScoredRecording(f"{number}.csv", "a", *pair))
    return found


def test_every_prediction_is_scored_by_its_published_set(tmp_path: Path) -> None:
    bundle = teachable_bundle(tmp_path, decision=DecisionSpec(set_threshold=0.3))
    settings = NoseSettings()
    right = score_recording(bundle, record_smell(tmp_path, LEMON), "lemon", settings, None)
    wrong = score_recording(bundle, record_smell(tmp_path, LEMON), "garlic", settings, None)
    assert right.covered_looks == right.right_looks == right.looks > 3
    assert wrong.covered_looks == 0
    assert len(right.truths) == right.looks
    assert all(a + b <= 1 for a, b in zip(right.truths, wrong.truths, strict=True))


def test_recordings_of_a_board_that_the_model_does_not_know_are_scored(
    tmp_path: Path, foreign_substances: Path
) -> None:
    """That is what a calibration is for: without one, nothing is announced on such a board."""
    recording = record_smell(tmp_path, LEMON, seconds=200)
    found = score_recording(
        load_bundle(foreign_substances), recording, "lemon", NoseSettings(), None
    )
    assert found.label == "lemon"
    assert found.right_looks > 3
    assert found.covered_looks == 0


def test_the_returned_threshold_gives_the_stated_coverage() -> None:
    rng = np.random.default_rng(2)
    looks = rng.beta(2, 2, (40, 12))
    recordings = scored(*map(tuple, looks.tolist()))
    found = check_sets(recordings, STATED)
    assert found is not None
    assert found["covered"] == pytest.approx((looks >= 0.5).mean(), abs=1e-3)
    assert 0.9 <= (looks >= found["set_threshold"]).mean() <= 0.95
    assert f"set_threshold: {found['set_threshold']:g}" in " ".join(sets_summary(found))


def test_with_a_correction_the_corrected_predictions_count() -> None:
    found = check_sets(scored((0.9, 0.8), (0.7, 0.2), after=True), STATED)
    assert found is not None
    assert found["covered"] == 0.75


@pytest.mark.parametrize(
    "truths", [[(0.9,)] * 8, [(0.9,)] * 5 + [(0.0,)] * 5], ids=["few", "not among the likeliest"]
)
def test_too_few_recordings_give_no_threshold(truths: list[tuple[float, ...]]) -> None:
    found = check_sets(scored(*truths), STATED)
    assert found is not None
    assert found["set_threshold"] is None
    assert "9 recordings" in " ".join(sets_summary(found))


def test_a_model_without_sets_has_no_coverage() -> None:
    spec = dataclasses.replace(STATED, set_threshold=None)
    recordings = scored((0.9,))
    assert check_sets(recordings, spec) is None
    assert sets_summary(None) == []
    answer = score_report(recordings, spec)
    assert answer["sets"] is None
    assert "truths" not in answer["files"][0]["before"]
