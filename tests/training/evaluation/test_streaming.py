"""Streamed answers: the beliefs of the decision layer, and when a network answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Outputs, load_bundle
from models.decision_spec import DecisionSpec
from models.preprocess import batch_features
from models.substance_decision import EvidenceShare, SubstanceDecision
from tests.training.tiny import CONFIG, periodic, with_optimiser
from training.evaluation.streaming import Streams, evidence_means, stream_recordings

pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.export.bundle import Provenance, export_bundle
from training.fit import train_network


def test_streamed_beliefs_are_those_of_the_decision_layer() -> None:
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
    for recording in range(2):
        decision = SubstanceDecision(("a", "b", "c", "d"), spec)
        for k, share in enumerate(shares):
            posterior = decision.add(Outputs(logits=logits[recording, [k]]), share)
            scaled = means[recording, k] * (0.4 + 0.8 * independent[k])
            expected = np.exp(scaled - scaled.max())
            np.testing.assert_allclose(posterior, expected / expected.sum(), rtol=1e-5)


def test_stream_asks_every_five_seconds_from_the_first_window_on(tmp_path: Path) -> None:
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
