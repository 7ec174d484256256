"""Networks that are trained without some substances."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.bundle import load_bundle
from tests.training.tiny import CONFIG, LABELS, oscillating
from training.evaluation.open_set import OpenSetError, read_open_set
from training.experiments.open_set import split_open_set, train_open_set

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_network_is_tested_on_nothing_it_is_trained_on(number: int) -> None:
    data = oscillating()
    train, known, hidden = split_open_set(data, number)
    assert hidden.labels == tuple(x for k, x in enumerate(LABELS) if k % 5 == number)
    assert train.labels == known.labels
    assert not set(train.labels) & set(hidden.labels)
    parts = [{sample.sha256 for sample in part.samples} for part in (train, known, hidden)]
    assert not parts[0] & (parts[1] | parts[2])
    for part in (train, known, hidden):
        for sample in part.samples:
            assert part.labels[int(sample.target.argmax())] == sample.name[0]


def test_outputs_are_stored_and_computed_once(tmp_path: Path) -> None:
    data = oscillating()
    asked = train_open_set(CONFIG, data, tmp_path, folds=[1])
    kept = tmp_path / "open-set/fold-1/answers.npz"
    written_ns = kept.stat().st_mtime_ns
    again = train_open_set(CONFIG, data, tmp_path, folds=[1])
    assert kept.stat().st_mtime_ns == written_ns
    read = read_open_set(tmp_path)
    for one in (asked[0], again[0], read[0]):
        assert one.labels == ("a", "c", "d", "e", "f")
        assert one.hidden == ("b", "g")
        assert one.known.sum() == 5
        assert (~one.known).sum() == 6
        np.testing.assert_array_equal(one.streams.logits, asked[0].streams.logits)
    hashes = load_bundle(tmp_path / "open-set/fold-1/bundle").training_hashes
    asked_about = {s.sha256 for s in data.samples if s.name in asked[0].names}
    assert len(hashes) == 10
    assert not hashes & asked_about


def test_missing_outputs_say_which_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(OpenSetError, match="crossval --open-set"):
        read_open_set(tmp_path)


def test_too_few_substances_are_refused(tmp_path: Path) -> None:
    few = dataclasses.replace(oscillating(), labels=LABELS[:5])
    with pytest.raises(OpenSetError, match="more than 5") as refused:
        train_open_set(CONFIG, few, tmp_path)
    # What the user gave is a substance configuration with recordings of single substances.
    assert "here are 5 (a, b, c, d, e)" in str(refused.value)
    assert "Record 1 more, or leave this option out" in str(refused.value)
