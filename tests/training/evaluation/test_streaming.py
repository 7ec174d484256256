"""Streamed recordings, their beliefs and announcements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.frames import SensorFrame
from models.bundle import Bundle, Outputs, load_bundle
from models.decision_spec import DecisionSpec
from models.embedding_space import EmbeddingSpace
from models.exposure import Phase
from models.nose import Nose
from models.novelty import NoveltyName
from models.preprocess import batch_features
from models.substance_decision import EvidenceShare, SubstanceDecision
from tests.models.toys import LABELS
from tests.training.exposures import SMELLS, recording
from tests.training.outputs import random_streams, toy_bundle, wandering
from tests.training.tiny import CONFIG, periodic, with_optimiser
from training.data.clean_air import begin_in_clean_air, notice_onset
from training.evaluation.scoring import total_scores
from training.evaluation.streaming import (
    Streams,
    evidence_means,
    first_announcement_s,
    median_announcement_s,
    posteriors,
    stream_recordings,
    streaming_tally,
    trace_announcements,
    trace_decisions,
)

pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.export.bundle import Provenance, export_bundle
from training.fit import train_network


def test_streamed_beliefs_equal_those_of_the_decision_layer() -> None:
    rng = np.random.default_rng(8)
    shares = (
        EvidenceShare(0.0, 0.2, 0.2),
        EvidenceShare(5.0, 0.25, 0.05),
        EvidenceShare(5.0, 0.3, 0.05),
    )
    logits = rng.normal(0, 2, (2, 3, 4)).astype(np.float32)
    streams = Streams(logits, shares, np.array([45.0, 50.0, 55.0]), np.array([0, 3]))
    spec = DecisionSpec(temperature=0.7, evidence_floor=0.4, evidence_factor=0.8, memory_s=30.0)
    means, independent = evidence_means(streams, spec)
    for row in range(2):
        decision = SubstanceDecision(("a", "b", "c", "d"), spec)
        for k, share in enumerate(shares):
            posterior = decision.add(Outputs(logits=logits[row, [k]]), share)
            scaled = means[row, k] * (0.4 + 0.8 * independent[k])
            expected = np.exp(scaled - scaled.max())
            np.testing.assert_allclose(posterior, expected / expected.sum(), rtol=1e-5)


def test_streams_have_a_window_every_five_seconds(tmp_path: Path) -> None:
    data = periodic(rows=120)
    fitted = train_network(with_optimiser(steps=3, batch=4), data)
    export_bundle(
        tmp_path / "tiny", CONFIG, fitted, data, DecisionSpec(), Provenance("test", "tiny.yaml")
    )
    bundle = load_bundle(tmp_path / "tiny", precision="fp32")
    long = dataclasses.replace(data.samples[0], values=np.tile(data.samples[0].values, (3, 1)))
    streams = stream_recordings(bundle, [long])
    assert streams.ends_s.tolist() == [7.0 + 5 * k for k in range(59)]
    for k in (0, 5, 58):
        end = int(streams.ends_s[k])
        x = batch_features(long.values[:end], fitted.spec)[0].x[-20:]
        logits = bundle.run(x[None].copy(), np.ones((1, len(x)), np.float32)).logits
        np.testing.assert_allclose(streams.logits[0, k], logits[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sure", [0.3, 0.45, 0.6])
@pytest.mark.parametrize("novel", [None, "energy", "cosine"])
@pytest.mark.parametrize("within", [None, 1.5])
def test_traced_announcements_equal_those_of_the_decision_layer(
    sure: float, novel: NoveltyName | None, within: float | None
) -> None:
    rng = np.random.default_rng(5)
    streams = random_streams()
    embedding = rng.normal(0, 1, (*streams.logits.shape[:2], 3)).cumsum(axis=1)
    streams = dataclasses.replace(streams, embedding=embedding.astype(np.float32))
    space = EmbeddingSpace(tuple("abcd"), np.zeros(3), np.eye(3), rng.normal(0, 1, (4, 3)))
    streams = streams.with_novelty(space)
    bound = None if novel is None else float(np.nanmedian(streams.novelty[novel]))
    spec = DecisionSpec(
        1.2, 0.6, 0.5, memory_s=60, announce=sure, withdraw=0.8 * sure,
        novelty=novel, unknown_above=bound, unknown_after=0.4, unknown_confirm=2,
        name_within=within,
    )  # fmt: skip
    trace = trace_decisions(streams, spec)
    changes, strange = 0, 0
    for row, logits in enumerate(streams.logits):
        decision = SubstanceDecision(tuple("abcd"), spec, space)
        for k, share in enumerate(streams.shares):
            outputs = Outputs(embedding[row, [k]].astype(np.float32), logits[[k]])
            belief = decision.add(outputs, share)
            label = decision.announced
            expected = -1 if label is None else "abcd".index(label)
            assert trace.named[row, k] == expected
            assert trace.unrecognised[row, k] == decision.unrecognised
            assert trace.belief[row, k] == pytest.approx(belief.max(), rel=1e-5)
        changes += int((np.diff(trace.named[row]) != 0).sum())
        strange += int(np.diff(trace.unrecognised[row]).sum())
    assert changes > 5, "the names hardly changed: the test saw too little"
    assert novel is None or strange > 10


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy-substance")


def test_traced_announcements_equal_those_of_the_nose(
    toy: Bundle,
) -> None:
    samples = [wandering(seed % 3, 150, seed) for seed in range(6)]
    streams = stream_recordings(toy, samples)
    trace = trace_decisions(streams, toy.manifest.decision)
    announced = 0
    for row, sample in enumerate(samples):
        nose = Nose([toy], rate_hz=1.0, skip_warm_up=True, assume_exposed=True)
        said = {}
        for number, readings in enumerate(sample.values):
            quality = np.where(np.isfinite(readings), 0, 1).astype(np.uint8)
            frame = SensorFrame(number, number * 1000, readings, quality, 0)
            for prediction in nose.process(frame).predictions:
                said[number + 1.0] = prediction
        for k in np.flatnonzero(streams.active[row]):
            prediction = said[streams.ends_s[k]]
            named = trace.named[row, k]
            assert prediction.label == (LABELS[named] if named >= 0 else None)
            assert prediction.top[0][1] == pytest.approx(trace.belief[row, k], rel=1e-4)
            announced += named >= 0
    assert announced > 10


def test_exposures_are_streamed_from_their_onset_as_by_the_nose(toy: Bundle) -> None:
    samples = [recording(label, "a", SMELLS[label], seed=k) for k, label in enumerate(SMELLS)]
    assert begin_in_clean_air(samples)
    # The toy needs 10 rows, a multiple of the stride, so that both predict at the same moments.
    streams = stream_recordings(toy, samples, from_onset=True)
    assert streams.delay_s is not None
    trace = trace_decisions(streams, toy.manifest.decision)
    compared = 0
    for row, sample in enumerate(samples):
        nose = Nose([toy], rate_hz=1.0, skip_warm_up=True)
        for number, readings in enumerate(sample.values):
            quality = np.where(np.isfinite(readings), 0, 1).astype(np.uint8)
            frame = SensorFrame(number, number * 1000, readings, quality, 0)
            for prediction in nose.process(frame).predictions:
                # The smell arrives at 20 s.
                at = streams.ends_s + streams.delay_s[row] == number + 1.0 - 20.0
                if at.any() and nose.exposure.phase is Phase.EXPOSED:
                    belief = trace.belief[row, int(at.argmax())]
                    assert prediction.top[0][1] == pytest.approx(belief, rel=1e-4)
                    compared += 1
    assert compared >= 3 * 4


def test_recordings_without_an_onset_do_not_begin_in_clean_air() -> None:
    still = recording("tea", "a", (0, 0, 0, 0), seed=9)
    assert not begin_in_clean_air([recording("tea", "a", SMELLS["tea"], seed=1), still])
    assert notice_onset(still) is None


def test_ended_recordings_are_not_counted_at_later_stages(toy: Bundle) -> None:
    streams = stream_recordings(
        toy, [wandering(0, 70, 1), wandering(1, 200, 2), wandering(2, 8, 3)]
    )
    assert streams.active.sum(axis=1).tolist() == [12, 38, 0]
    scores = streaming_tally(streams, trace_decisions(streams, DecisionSpec()))
    assert scores["announced_60s"].possible.tolist() == [1, 1, 0]
    assert scores["announced_180s"].possible.tolist() == [0, 1, 0]
    assert scores["announced_300s"].possible.sum() == 0
    assert total_scores(scores)["precision_300s"] == 0


def test_median_time_is_over_announced_recordings() -> None:
    first_s = np.array([50.0, 60.0, np.nan, 100.0])
    median, (low, high) = median_announcement_s(first_s)
    assert median == 60
    assert low == 50
    assert high == 100
    assert median_announcement_s(np.full(3, np.nan)) == (300.0, (300.0, 300.0))


def test_first_announcement_is_the_first_window_with_a_name() -> None:
    streams = random_streams()
    trace = trace_announcements(posteriors(streams, DecisionSpec()), DecisionSpec())
    seconds = first_announcement_s(streams, trace)
    for row in np.flatnonzero(np.isfinite(seconds)):
        k = int(np.flatnonzero(streams.ends_s == seconds[row])[0])
        assert trace.named[row, k] >= 0
        assert (trace.named[row, :k] < 0).all()
