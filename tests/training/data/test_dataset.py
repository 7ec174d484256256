"""Recordings from disk: labels, proportions, folds, and rows out of time order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from hardware.errors import UsageError
from tests.training.tiny import periodic, write_recordings
from training.data.dataset import (
    DataError,
    Dataset,
    component_set_folds,
    component_sets,
    is_in_order,
    load_mixtures,
    load_substances,
    substance_folds,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    return load_substances(write_recordings(periodic(rows=120), folder))


def test_folders_become_labels_and_files_are_hashed(data: Dataset) -> None:
    assert data.labels == ("almond", "banana", "mango")
    assert len({sample.sha256 for sample in data.samples}) == 15
    assert data.oddities["rows"] == 15 * 120


def test_every_fold_holds_out_one_recording_of_every_substance(data: Dataset) -> None:
    folds = substance_folds(data)
    labels = data.targets.argmax(axis=1)
    for fold in range(5):
        assert sorted(labels[folds == fold]) == [0, 1, 2]


def test_folder_without_a_label_of_its_name_is_wrong_use(tmp_path: Path) -> None:
    write_recordings(periodic(per_label=1, rows=10), tmp_path)
    with pytest.raises(UsageError, match="mango"):
        load_substances(tmp_path, labels=("almond", "banana"))


def test_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="LABEL"):
        load_substances(tmp_path)


def write_mixture(folder: Path, name: str) -> None:
    rows = "".join(f"{100.0 * k},{600 + k % 3},300,400,500\n" for k in range(30))
    (folder / name).write_text("timestamp_ms,NO2,C2H5CH,VOC,CO\n" + rows)


def test_mixture_names_give_proportions_and_a_set_is_in_one_fold(tmp_path: Path) -> None:
    for name in (
        "Almond20_Orange80.a_1.csv", "Almond20_Orange80.a_2.csv", "almond_50_orange_50.b.csv",
        "apple.c.csv", "pear20_apple80.d.csv", "apple_100.e.csv",
    ):  # fmt: skip
        write_mixture(tmp_path, name)
    mixtures = load_mixtures(tmp_path)
    by_name = {sample.name: sample for sample in mixtures.samples}
    shares = dict(zip(mixtures.labels, by_name["Almond20_Orange80.a_1.csv"].target, strict=True))
    assert shares == pytest.approx({"almond": 0.2, "apple": 0.0, "orange": 0.8, "pear": 0.0})
    assert by_name["Almond20_Orange80.a_1.csv"].group == by_name["Almond20_Orange80.a_2.csv"].group
    folds = component_set_folds(mixtures)
    for present, fold in zip(component_sets(mixtures), folds, strict=True):
        assert (fold == -1) == (len(present) == 1)
    same = {f for p, f in zip(component_sets(mixtures), folds, strict=True) if "orange" in p}
    assert len(same) == 1


def test_permuted_rows_are_distinguished_from_rows_in_time_order(data: Dataset) -> None:
    rng = np.random.default_rng(6)
    for sample in data.samples:
        assert is_in_order(sample.values)
        assert not is_in_order(rng.permutation(sample.values))


def test_constant_recording_is_not_called_permuted() -> None:
    assert is_in_order(np.full((100, N_CHANNELS), 300.0, dtype=np.float32))


def test_a_recording_that_is_too_slow_for_the_model_says_so() -> None:
    slow = dataclasses.replace(periodic().samples[0], rate_hz=0.2)
    with pytest.raises(DataError, match=r"at least 0\.25 Hz.*has 0\.2 Hz"):
        slow.at_rate(1.0)
