"""The constants of the decision layer, fitted on held-out predictions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.decision_spec import DecisionSpec
from models.substance_decision import EvidenceShare
from tests.training.outputs import calibrated_held_out, open_set_fold, random_streams
from training.evaluation.decision_fit import (
    best_temperature,
    fit_announce,
    fit_constants,
    fit_evidence,
    fit_open_set_unknown,
    fit_set,
    fit_unknown,
    fit_unknown_bound,
    measure_list,
)
from training.evaluation.scoring import total_scores
from training.evaluation.streaming import Streams, novelty_means, streaming_tally, trace_decisions


def test_temperature_corrects_overconfident_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4000, 4)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.eye(4, dtype=np.float32)[[rng.choice(4, p=row / row.sum()) for row in p]]
    assert best_temperature(3 * logits, truth) == pytest.approx(3.0, rel=0.1)


def test_repeated_windows_add_no_evidence() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 4, 400)
    shares = tuple(EvidenceShare(5.0 * (k > 0), 1.0, 1.0) for k in range(20))
    ends_s = 45.0 + 13.5 * np.arange(20)

    def hints(count: int) -> np.ndarray:
        """Logits of `count` observations that are right six times in ten."""
        seen = np.where(
            rng.random((400, count)) < 0.6, truth[:, None], rng.integers(0, 4, (400, count))
        )
        return (np.eye(4)[seen] * np.log(0.7 / 0.1)).astype(np.float32)

    spec = DecisionSpec(memory_s=1e6)
    repeated = Streams(np.repeat(hints(1), 20, axis=1), shares, ends_s, truth)
    independent = Streams(hints(20), shares, ends_s, truth)
    assert fit_evidence(repeated, spec)[1] == 0.0
    assert fit_evidence(independent, spec)[1] > 0.8


def test_fitted_announcing_belief_trades_announcements_for_precision() -> None:
    streams = random_streams(400)
    spec = DecisionSpec(evidence_floor=0.6, evidence_factor=0.3)
    belief = fit_announce(streams, spec)
    fitted = dataclasses.replace(spec, announce=belief, withdraw=0.6 * belief)
    hasty = dataclasses.replace(spec, announce=0.3, withdraw=0.18)
    chosen, careless = (
        total_scores(streaming_tally(streams, trace_decisions(streams, each)))
        for each in (fitted, hasty)
    )
    assert careless["precision_120s"] < 0.85 <= chosen["precision_120s"]
    assert chosen["announced_120s"] < careless["announced_120s"]


def test_evidence_is_fitted_on_recordings_of_any_length() -> None:
    streams = random_streams()
    streams.logits[:10, 20:] = np.nan
    floor, factor = fit_evidence(streams, DecisionSpec())
    assert 0 < floor <= 1
    assert 0 <= factor <= 1


def test_the_bound_keeps_95_percent_of_known_recordings_at_every_moment() -> None:
    fold = open_set_fold(5, strange=0.7)
    known, hidden = fold.streams.select(fold.known), fold.streams.select(~fold.known)
    fitted = fit_unknown(known, hidden, "cosine")
    means, independent = novelty_means(known, "cosine", DecisionSpec())
    assert fitted.unknown_above is not None
    ripe = means[:, independent >= fitted.unknown_after]
    assert (ripe < fitted.unknown_above + 1e-4).mean(axis=0).min() >= 0.94
    assert fitted.unknown_above == fit_unknown_bound(known, "cosine", fitted.unknown_after)
    trace = trace_decisions(hidden, fitted)
    assert trace.unrecognised[:, -1].mean() > 0.8


def test_other_sessions_set_how_sure_a_model_may_be_and_not_when_it_announces() -> None:
    same = calibrated_held_out()
    everything = np.ones(len(same.names), dtype=bool)
    assert same.streams is not None
    wrong = np.roll(same.target, 1, axis=1)
    half = np.arange(len(wrong)) % 2 == 0
    target = np.where(half[:, None], wrong, same.target)
    other = dataclasses.replace(
        same,
        target=target,
        streams=dataclasses.replace(same.streams, truth=target.argmax(axis=1)),
    )
    alone = fit_constants(same, everything)
    both = fit_constants(same, everything, other=other)
    assert both.temperature > 1.3 * alone.temperature
    assert both.announce < alone.announce
    assert both.memory_s > alone.memory_s


def test_the_coverage_of_a_list_is_that_of_recordings_and_counts_one_miss_more() -> None:
    streams = random_streams(30)
    spec = DecisionSpec(list_size=4, list_after=0.5)
    assert measure_list([streams], spec) == pytest.approx(0.96)  # four of four labels: 30 of 31
    assert measure_list([streams, streams], spec) == pytest.approx(0.98)
    fewer = dataclasses.replace(spec, list_size=1)
    assert measure_list([streams], fewer) < measure_list([streams], spec)


def test_unknown_smells_are_bounded_by_other_sessions_too() -> None:
    folds = [open_set_fold(fold, strange=0.7) for fold in range(2)]
    known = folds[0].streams.select(folds[0].known)
    far = {name: values + 0.3 for name, values in known.novelty.items()}
    sessions = dataclasses.replace(known, novelty=far)
    plain = fit_open_set_unknown(folds, known)
    bounded = fit_open_set_unknown(folds, known, sessions)
    assert plain.novelty is not None
    assert bounded.novelty is not None
    own = fit_unknown_bound(known, bounded.novelty, bounded.unknown_after)
    assert bounded.unknown_above is not None
    assert bounded.unknown_above > own


def test_sets_of_an_overconfident_model_get_a_lower_threshold() -> None:
    held_out = calibrated_held_out()
    streams = held_out.streams
    assert streams is not None
    overconfident = dataclasses.replace(streams, logits=4 * streams.logits)
    spec = DecisionSpec(evidence_floor=1.0, evidence_factor=0.0)
    honest, lower = (fit_set(part, spec) for part in (streams, overconfident))
    assert lower < honest / 5
