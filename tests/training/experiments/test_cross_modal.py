"""Comparing trainings with and without a second modality."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hardware.errors import UsageError
from tests.training.tiny import periodic, with_optimiser, write_config, write_recordings
from training.cli import main
from training.config import (
    CrossModalConfig,
    TeacherConfig,
)
from training.data.dataset import N_FOLDS, Dataset, load_substances

pytest.importorskip("torch", reason="the trainer needs the extra `train`")
pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")

from training.experiments.cross_modal import (
    PLAIN,
    SWITCHES,
    Training,
    hidden_substances,
    list_trainings,
    split_recordings,
    with_budget,
    with_switch,
)

LABELS = ("almond", "apple", "banana", "cloves", "garlic", "ginger", "lemon", "mint", "pear",
          "walnuts")  # fmt: skip
CONFIG = with_optimiser(steps=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of ten substances, with the tables beside them and a configuration."""
    top = tmp_path_factory.mktemp("comparison")
    rng = np.random.default_rng(5)
    periods_s = {label: 4.0 + 2 * place for place, label in enumerate(LABELS)}
    write_recordings(periodic(periods_s, per_label=2, rows=70), top / "base")
    with (top / "gcms_elements.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["food_name", "C", "H", "S"])
        writer.writerows([label, *rng.integers(1, 900, 3)] for label in LABELS)
    texts = {
        label: f"{label} smells {' and '.join(rng.permutation(WORDS)[:4])}." for label in LABELS
    }
    (top / "text_description.json").write_text(json.dumps(texts))
    write_config(CONFIG, top)
    return top


WORDS = ["sweet", "nutty", "green", "sharp", "warm", "fresh", "earthy", "floral", "woody"]


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load_substances(folder / "base")


def test_an_interrupted_comparison_resumes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compared(*options: str) -> list[dict[str, object]]:
        command = [
            "cross-modal", "--config", str(folder / "tiny.yaml"), "--data", str(folder / "base"),
            "--steps", "6", "--run", str(tmp_path), "--json", *options,
        ]  # fmt: skip
        assert main(command) == 0
        rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return rows

    first = compared("--folds", "0", "--only", "signed")
    assert [row["name"] for row in first] == [PLAIN, "signed"]
    more = compared("--only", "signed,descriptors+balancer")
    assert [row["folds"] for row in more] == [[0, 1]] * 3
    again = compared("--folds", "0", "--only", "signed")
    assert again == first  # `seconds` too: nothing was trained anew
    assert first[0]["delta_top1"] == first[0]["delta_low"] == 0.0
    names = {row["name"]: set(row["extras"]) for row in more}  # type: ignore[call-overload]
    assert names[PLAIN] == set()
    assert {"matching_auroc", "matching_auroc_unseen", "matching_views"} <= names["signed"]
    assert {"descriptor_auroc", "descriptor_auroc_unseen"} <= names["descriptors+balancer"]
    report = json.loads((tmp_path / "cross_modal.json").read_text())
    assert report["rows"] == again
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_markdown_table_is_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "cross-modal", "--config", str(folder / "tiny.yaml"), "--data", str(folder / "base"),
        "--steps", "2", "--run", str(tmp_path), "--folds", "0", "--only", "gcms",
    ]  # fmt: skip
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [PLAIN, "gcms"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--only", "gcms,smell"), "smell"),
        (("--steps", "0"), "--steps"),
        (("--config", "mixtures-12"), "mixture"),
        (("--folds", "7"), "--folds"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], word: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cross-modal", "--data", str(folder / "base"), *options]) == 2
    assert word in capsys.readouterr().err


def test_trainings_go_fold_by_fold_and_begin_without_a_switch() -> None:
    todo = list_trainings(["gcms", "signed"], [1, 3], unseen=True)
    assert [(task.switch, task.fold, task.unseen) for task in todo] == [
        (PLAIN, 1, False), ("gcms", 1, False), ("signed", 1, False), ("signed", 1, True),
        (PLAIN, 3, False), ("gcms", 3, False), ("signed", 3, False), ("signed", 3, True),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="odor"):
        list_trainings(["odor"], [0], unseen=False)


def test_hidden_substances_are_in_no_training_and_each_is_hidden_once(data: Dataset) -> None:
    strangers = np.concatenate([hidden_substances(data, fold) for fold in range(N_FOLDS)])
    assert sorted(strangers) == list(range(len(LABELS)))
    train, test = split_recordings(data, Training("signed", 1, unseen=True))
    assert not (train & test).any()
    assert (train | test).all()
    own = hidden_substances(data, 1)
    assert not np.isin(data.targets[train].argmax(axis=1), own).any()
    assert set(own) < set(data.targets[test].argmax(axis=1))
    plain, _ = split_recordings(data, Training("signed", 1, unseen=False))
    assert len(np.unique(data.targets[plain].argmax(axis=1))) == len(LABELS)


def test_budget_is_so_many_steps_of_one_network() -> None:
    taught = dataclasses.replace(
        CONFIG, teachers=(TeacherConfig(seed=1, steps=9, augment=CONFIG.augment),)
    )
    config = with_budget(taught, 10)
    assert config.teachers == ()
    assert config.optimiser.steps == 10
    assert config.optimiser.warmup <= 2
    assert config.network == CONFIG.network


def test_switch_keeps_the_files_that_the_configuration_names() -> None:
    given = CrossModalConfig(descriptors=0.3, gcms_file="my.csv", descriptors_file="own.csv")
    config = dataclasses.replace(CONFIG, cross_modal=given)
    assert with_switch(config, PLAIN).cross_modal is None
    on = with_switch(config, "gcms").cross_modal
    assert on == CrossModalConfig(gcms=0.5, gcms_file="my.csv", descriptors_file="own.csv")


def test_each_switch_sets_the_option_of_its_name() -> None:
    assert SWITCHES[PLAIN] is None
    both = SWITCHES["both"]
    assert both is not None
    assert both.similarity == both.masked == 0.4
    for name in ("gcms", "similarity", "signed", "masked", "balancer", "descriptors"):
        assert getattr(SWITCHES[name], name)


# --- matching -------------------------------------------------------------------------------
