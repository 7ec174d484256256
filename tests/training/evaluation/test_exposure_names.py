"""Names of exposures: soon, right and lasting ones are chosen."""

from __future__ import annotations

import dataclasses

import numpy as np

from models.decision_spec import DecisionSpec
from models.substance_decision import EvidenceShare
from training.evaluation.exposure_names import count_names, fit_names
from training.evaluation.streaming import DecisionTrace, Streams, trace_decisions

PLAIN = DecisionSpec(evidence_floor=1.0, evidence_factor=0.0, memory_s=1e-3)
"""The belief is that of the newest window."""


def exposures(beliefs: list[list[float]], delay_s: float = 0.0) -> Streams:
    """Return exposures of label 0, by its belief against label 1 in a window every 5 s."""
    p = np.array(beliefs)
    logits = np.log(np.stack([p, 1 - p], axis=2)).astype(np.float32)
    shares = (EvidenceShare(0.0, 1.0, 1.0),) + (EvidenceShare(5.0, 1.0, 0.05),) * (p.shape[1] - 1)
    truth = np.zeros(len(p), dtype=np.int64)
    ends_s = 20.0 + 5.0 * np.arange(p.shape[1])
    return Streams(logits, shares, ends_s, truth, delay_s=np.full(len(p), delay_s))


def trace(named: list[list[int]]) -> DecisionTrace:
    rows = np.array(named)
    belief = np.ones(rows.shape)
    return DecisionTrace(rows, belief, rows, belief[:, :, None], belief < 0)


def test_names_are_counted_as_soon_faulty_and_right() -> None:
    streams = exposures([[0.5] * 4] * 4)
    named = [[0, 0, 0, 0], [-1, 0, -1, -1], [1, 0, 0, 0], [-1, -1, -1, -1]]
    assert count_names(streams, trace(named)) == (0.75, 0.5, 0.5)
    late = dataclasses.replace(streams, delay_s=np.full(4, 38.0))
    assert count_names(late, trace(named)).soon == 0.5


def test_a_belief_is_chosen_that_no_passing_doubt_reaches() -> None:
    sure = [0.4, 0.2, 0.45, 0.97, 0.97, 0.97, 0.97]
    streams = exposures([sure, [0.5, *[0.97] * 6]] * 10)
    spec = fit_names(streams, PLAIN)
    counts = count_names(streams, trace_decisions(streams, spec))
    assert counts.soon == counts.right == 1.0
    assert counts.faulty == 0.0
    hasty = dataclasses.replace(PLAIN, announce=0.6, withdraw=0.4, confirm=1)
    assert count_names(streams, trace_decisions(streams, hasty)).faulty == 0.5


def test_evidence_grows_so_slowly_that_a_rise_like_another_smell_gets_no_name() -> None:
    rise = exposures([[0.3] * 18 + [0.98] * 60] * 10)
    shares = (rise.shares[0], *(EvidenceShare(5.0, 1.0, 0.5) for _ in rise.shares[1:]))
    streams = dataclasses.replace(rise, shares=shares)
    hasty = DecisionSpec(evidence_floor=1.0, evidence_factor=1.0, memory_s=1800.0)
    spec = fit_names(streams, hasty)
    assert spec.evidence_factor < 1.0
    counts = count_names(streams, trace_decisions(streams, spec))
    assert counts.faulty == 0.0
    assert counts.right == 1.0


def test_a_passing_doubt_takes_no_name_back() -> None:
    streams = exposures([[0.97, 0.97, 0.97, 0.3, 0.3, 0.97, 0.97]] * 10)
    counts = count_names(streams, trace_decisions(streams, fit_names(streams, PLAIN)))
    assert counts.faulty == 0.0
    assert counts.soon == counts.right == 1.0


def test_an_ended_recording_keeps_its_last_name() -> None:
    streams = exposures([[0.97, 0.97, 0.97, 0.97]])
    logits = streams.logits.copy()
    logits[0, 2:] = np.nan
    streams = dataclasses.replace(streams, logits=logits)
    counts = count_names(streams, trace_decisions(streams, PLAIN))
    assert counts == (1.0, 0.0, 1.0)
