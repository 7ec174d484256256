"""New substances from one recording each: the teaching, the metrics, and the whole experiment."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from models.embedding_space import EmbeddingSpace
from tests.training.tiny import CONFIG, LABELS, oscillating
from training.evaluation.open_set import OpenSetError
from training.evaluation.scoring import total_scores
from training.experiments.few_shot import (
    FEW_SHOT,
    METHODS,
    run_few_shot,
    split_few_shot,
    teach_and_test,
    transform_embedding,
)

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


def clusters(spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of four windows of each of five recordings of three substances."""
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(3), 5)
    owner = np.repeat(np.arange(15), 4)
    centre = 10 * np.eye(3, 6)[truth[owner]]
    return centre + rng.normal(0, spread, (60, 6)), owner, truth, np.arange(15) % 5 == 0


def test_distant_substances_are_recognised_from_one_recording() -> None:
    scores, tested = teach_and_test(*clusters(0.1))
    assert total_scores(scores) == {"top1": 1.0, "recording_top1": 1.0}
    assert len(tested) == 12


def test_the_teaching_recording_is_never_tested() -> None:
    space, owner, truth, teaches = clusters(0.1)
    _, tested = teach_and_test(space, owner, truth, teaches)
    assert not teaches[tested].any()
    # Lessons that say nothing leave chance: what is scored is not what was taught.
    space[~teaches[owner]] = np.random.default_rng(0).normal(5, 5, (48, 6))
    scores, _ = teach_and_test(space, owner, truth, teaches)
    assert total_scores(scores)["top1"] < 0.6


def test_every_fifth_substance_is_kept_out_with_all_its_recordings() -> None:
    known, fresh = split_few_shot(oscillating())
    assert fresh.labels == ("a", "f")
    assert known.labels == ("b", "c", "d", "e", "g")
    assert len(known.samples) == 15
    assert not {s.sha256 for s in known.samples} & {s.sha256 for s in fresh.samples}
    for data in (known, fresh):
        for sample in data.samples:
            assert data.labels[int(sample.target.argmax())] == sample.name[0]


def test_whitening_makes_the_spread_within_substances_spherical() -> None:
    rng = np.random.default_rng(2)
    label = np.repeat([0, 1], 3000)
    x = rng.normal(0, [1.0, 5.0, 0.2], (6000, 3)) + 4 * label[:, None]
    measured = EmbeddingSpace.fit(x.astype(np.float32), label, ("a", "b"))
    space = transform_embedding(measured, x.astype(np.float32), "mahalanobis")
    inside = np.concatenate([space[label == k] - space[label == k].mean(axis=0) for k in (0, 1)])
    spreads = np.sqrt(np.linalg.eigvalsh(np.cov(inside.T)))
    assert spreads.max() / spreads.min() < 5  # before: 25
    assert spreads.max() < 1.2


def test_cosine_ignores_length() -> None:
    x = np.random.default_rng(1).normal(0, 1, (50, 4)).astype(np.float32)
    measured = EmbeddingSpace.fit(x, np.arange(50) % 2, ("a", "b"))
    space = dataclasses.replace(measured, middle=np.zeros(4))
    near, far = (transform_embedding(space, scale * x, "cosine") for scale in (1, 3))
    np.testing.assert_allclose(far, near, rtol=1e-5)


def test_a_network_is_taught_substances_it_was_not_trained_on(tmp_path: Path) -> None:
    report = run_few_shot(CONFIG, oscillating(), tmp_path)
    assert json.loads((tmp_path / FEW_SHOT).read_text()) == report
    assert set(report["methods"]) == set(METHODS)
    for row in report["methods"].values():
        assert row["scores"]["recording_top1"] > 0.6  # chance is one half
        low, high = row["intervals"]["top1"]
        assert low <= row["scores"]["top1"] <= high


def test_too_few_substances_are_refused(tmp_path: Path) -> None:
    data = oscillating()
    few = dataclasses.replace(data, labels=LABELS[:5])
    with pytest.raises(OpenSetError, match="more than 5"):
        run_few_shot(CONFIG, few, tmp_path)
