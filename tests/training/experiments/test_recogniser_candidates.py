"""Candidates for the rig's recogniser: compared and chosen with whole sessions held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.recogniser import PreparedExposure
from models.recogniser import LEAST_SIZE
from models.response import ROW_S
from tests.calibration.responses import days
from training.commands.rigs import candidate_table
from training.experiments import recogniser_candidates
from training.experiments.recogniser_candidates import (
    INPUTS,
    PRODUCT_INPUT,
    CandidateExposure,
    compare_candidates,
)
from training.experiments.recogniser_classifiers import CLASSIFIERS, OWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.experiments.recogniser_classifiers import Scorer


def exposures(*numbers: int) -> list[CandidateExposure]:
    """Return those of synthetic days, without an embedding."""
    found = []
    for one in days(*numbers):
        strong = one.rows.size >= LEAST_SIZE
        rows_s = ROW_S * np.flatnonzero(strong).astype(np.float64)
        found.append(CandidateExposure(one._replace(rows=one.rows[strong]), rows_s, None, 0.0))
    return found


def always_the_first(taught: Sequence[PreparedExposure]) -> Scorer:
    """Fit nothing."""
    labels = len({one.label for one in taught})
    return lambda features: np.tile(-np.arange(labels, dtype=float), (len(features), 1))


def test_the_better_candidate_is_chosen_for_every_held_out_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recogniser_candidates, "INPUTS", {PRODUCT_INPUT: INPUTS[PRODUCT_INPUT]})
    classifiers = {"first": always_the_first, OWN: CLASSIFIERS[OWN]}
    monkeypatch.setattr(recogniser_candidates, "CLASSIFIERS", classifiers)
    rows, nested = compare_candidates({"one": exposures(1, 2, 3), "other": exposures(4, 5)})
    assert [row.classifier for row in rows] == [OWN, "first"]
    assert [row.chosen for row in rows] == [5, 0]
    assert nested == pytest.approx(rows[0].score)
    assert nested > 0.9
    assert rows[0].right + rows[0].wrong <= 1.0
    table = candidate_table(rows, nested)
    assert len(table) == 2 + len(rows) + 2
    assert len({line.count("|") for line in table[:4]}) == 1


@pytest.mark.parametrize("classifier", sorted(set(CLASSIFIERS) - {OWN}))
def test_every_classifier_names_smells_of_another_day(classifier: str) -> None:
    taught = [
        PreparedExposure(one.taught.label, one.taught.session, INPUTS[PRODUCT_INPUT](one)[:, :9])
        for one in exposures(1, 2)
    ]
    score = CLASSIFIERS[classifier](taught)
    labels = sorted({one.label for one in taught})
    for one in exposures(3):
        best = score(INPUTS[PRODUCT_INPUT](one)[:, :9]).mean(axis=0).argmax()
        assert labels[int(best)] == one.taught.label
