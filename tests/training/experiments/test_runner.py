"""Storing the results of experiments, and hiding substances from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.experiments.runner import (
    FoldPredictions,
    every_fifth,
    hash_inputs,
    load_or_compute,
    render_markdown_table,
)


def predictions(seed: int) -> FoldPredictions:
    log_p = np.random.default_rng(seed).normal(0, 1, (6, 2))
    extras = {"views": np.array(["words", "elements"]), "parameters": np.array(17)}
    return FoldPredictions(
        np.array([4, 9]), np.array([0, 1]), np.repeat([0, 1], 3), log_p, 1.5, extras
    )


def test_a_stored_result_is_read_until_its_inputs_change(tmp_path: Path) -> None:
    path, computed = tmp_path / "below" / "fold-0.npz", []

    def result(inputs: list[object]) -> FoldPredictions:
        def compute() -> FoldPredictions:
            computed.append(inputs)
            return predictions(len(computed))

        return load_or_compute(path, hash_inputs(inputs), FoldPredictions.read, compute)

    first, again = result(["data", 0]), result(["data", 0])
    assert computed == [["data", 0]]
    np.testing.assert_array_equal(again.log_probabilities, first.log_probabilities)
    assert again.seconds == 1.5
    assert again.extras["views"].tolist() == ["words", "elements"]
    other = result(["data", 1])
    assert len(computed) == 2
    assert not np.array_equal(other.log_probabilities, first.log_probabilities)


def test_every_substance_is_hidden_from_one_fold() -> None:
    hidden = np.stack([every_fifth(12, fold) for fold in range(5)])
    assert hidden.sum(axis=0).tolist() == [1] * 12


def test_a_markdown_table_has_a_rule_under_its_head() -> None:
    assert render_markdown_table("a | b", ["1 | 2"]) == "| a | b |\n|---|---|\n| 1 | 2 |"
