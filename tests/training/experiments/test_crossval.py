"""The cross-validation and its report of the decision layer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.outputs import held_out_of, random_streams
from tests.training.tiny import periodic, with_optimiser, write_config, write_recordings
from training.cli import main
from training.data.dataset import Dataset
from training.data.substance_tables import read_descriptors
from training.evaluation.held_out import HeldOut
from training.evaluation.network_outputs import WindowOutputs
from training.experiments.crossval import (
    _over_folds,
    best_constant,
    cross_validate,
    decision_report,
    descriptor_scores,
)

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic(rows=120)


def test_crossval_scores_a_learnable_relation(data: Dataset, tmp_path: Path) -> None:
    config = with_optimiser(steps=150)
    report = cross_validate(config, data, tmp_path, folds=range(2))
    assert report["mean"]["top1"] > 0.8
    assert report["mean"]["seen_in_training"] == 0
    assert [row["recordings"] for row in report["folds"]] == [3, 3]


def test_crossval_has_as_many_folds_as_a_label_has_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = write_recordings(periodic(per_label=2), tmp_path / "data")
    config = write_config(with_optimiser(steps=5), tmp_path)
    command = ["crossval", "--config", str(config), "--data", str(recordings), "--json"]

    def folds(*more: str) -> list[int]:
        assert main([*command, "--run", str(tmp_path / "run"), *more]) == 0
        return [row["fold"] for row in json.loads(capsys.readouterr().out)["folds"]]

    assert folds() == [0, 1]
    assert folds("--folds", "1") == [1]
    assert main([*command, "--folds", "4"]) == 2
    assert "--folds among 0, 1" in capsys.readouterr().err


def test_shuffled_labels_cannot_be_learned(data: Dataset, tmp_path: Path) -> None:
    """The control of the test above: without a relation there is no score."""
    rng = np.random.default_rng(2)
    targets = rng.permutation(data.targets)
    shuffled = dataclasses.replace(
        data,
        samples=tuple(
            dataclasses.replace(s, target=t) for s, t in zip(data.samples, targets, strict=True)
        ),
    )
    report = cross_validate(with_optimiser(steps=60), shuffled, tmp_path, folds=range(2))
    assert report["mean"]["top1"] < 0.7


def test_best_constant_beats_the_mean_on_its_own_data() -> None:
    target = np.array([[0.8, 0.2, 0], [0.8, 0.2, 0], [0, 0.2, 0.8]], dtype=np.float32)
    constant = best_constant(target)
    np.testing.assert_allclose(constant, [0.8, 0.2, 0.0])


def test_a_fold_s_constants_come_from_the_other_folds() -> None:
    streams = random_streams(40)
    before = decision_report(held_out_of(streams))
    logits = streams.logits.copy()
    logits[np.arange(40) % 5 == 2] = np.random.default_rng(0).normal(0, 5, (8, 40, 4))
    after = decision_report(held_out_of(dataclasses.replace(streams, logits=logits)))
    assert before["constants"]["2"] == after["constants"]["2"]
    assert before["constants"]["3"] != after["constants"]["3"]
    assert set(before["scores"]) == set(before["intervals"])


def test_one_fold_has_no_decision_report() -> None:
    whole = held_out_of(random_streams(10))
    assert decision_report(dataclasses.replace(whole, fold=np.zeros(10, dtype=int))) == {}


def test_descriptors_are_scored_over_held_out_recordings() -> None:
    labels = ("cinnamon", "garlic", "lemon", "mint", "walnuts")
    table = read_descriptors(labels)
    truth = np.repeat(np.arange(5), 4)
    owner = np.repeat(np.arange(20), 3)
    wanted = table.values[truth][owner].astype(np.float32)
    noise = np.random.default_rng(1).uniform(0, 1, wanted.shape).astype(np.float32)

    def report(said: np.ndarray | None) -> dict[str, Any]:
        answers = WindowOutputs(owner, np.zeros((60, 2), np.float32), descriptors=said)
        held_out = HeldOut(
            tuple(f"{k}.csv" for k in range(20)),
            tuple(map(str, range(20))),
            np.zeros(20, np.int64),
            np.eye(5, dtype=np.float32)[truth],
            answers,
        )
        return descriptor_scores(held_out, labels)

    assert report(wanted)["macro_auroc"] == 1
    assert 0.35 < report(noise)["macro_auroc"] < 0.65
    assert report(None) == {}


def test_a_score_that_only_some_folds_have_is_averaged_over_those() -> None:
    rows = [{"fold": 0, "mae": 0.1}, {"fold": 1, "mae": 0.3, "permuted_mae": 0.5}]
    assert _over_folds(rows, np.mean) == {"mae": 0.2, "permuted_mae": 0.5}
