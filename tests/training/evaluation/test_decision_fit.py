"""The temperature and the worth of further evidence, fitted on held-out answers."""

from __future__ import annotations

import numpy as np
import pytest

from models.decision_spec import DecisionSpec
from models.substance_decision import EvidenceShare
from training.evaluation.decision_fit import best_temperature, fit_evidence
from training.evaluation.streaming import Streams


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4000, 4)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.eye(4, dtype=np.float32)[[rng.choice(4, p=row / row.sum()) for row in p]]
    assert best_temperature(3 * logits, truth) == pytest.approx(3.0, rel=0.1)


def test_evidence_is_worth_little_when_windows_repeat_each_other() -> None:
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
