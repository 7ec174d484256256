"""The cross-validation: it scores what can be learned, and nothing where nothing can."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny import periodic, with_optimiser, write_config, write_recordings
from training.cli import main
from training.data.dataset import Dataset
from training.experiments.crossval import best_constant, cross_validate

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic(rows=120)


def test_crossval_learns_what_is_there_to_learn(data: Dataset, tmp_path: Path) -> None:
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
