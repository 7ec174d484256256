"""Cross-modal switches on other sessions and on labels never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny import in_sessions, periodic, with_optimiser, write_config
from tests.training.tiny import write_recordings as write
from training.cli import main
from training.data.dataset import load_substances
from training.data.sessions import session_folds

pytest.importorskip("torch", reason="the trainer needs the extra `train`")
pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")

from training.experiments.cross_modal_sessions import (
    SessionTraining,
    joined,
    list_session_trainings,
    split_session_training,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of three substances in two sessions, further ones, and a configuration."""
    top = tmp_path_factory.mktemp("sessions")
    write(in_sessions(2, per_label=4, rows=80), top / "base")
    write(periodic(per_label=1, rows=80, seed=3), top / "also")
    write_config(with_optimiser(steps=20), top)
    return top


def test_the_table_has_a_row_per_switch_and_stored_results_are_used_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "cross-modal", "--sessions", "--also", str(folder / "also"), "--seeds", "2",
        "--config", str(folder / "tiny.yaml"), "--data", str(folder / "base"),
        "--steps", "6", "--run", str(tmp_path), "--only", "descriptors",
    ]  # fmt: skip
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["none", "descriptors"]
    assert all(row["recordings"] == 12 and row["further"] == 3 for row in rows)
    assert rows[0]["delta"] == rows[0]["delta_low"] == 0.0
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["none", "descriptors"]
    assert json.loads((tmp_path / "cross_modal_sessions.json").read_text())["rows"] == rows
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_further_recordings_never_train_and_are_judged_with_every_session(folder: Path) -> None:
    data, also = (load_substances(folder / part) for part in ("base", "also"))
    both = joined(data, also)
    for training in list_session_trainings(data, ["gcms"], range(1)):
        train, test = split_session_training(training, data, both)
        assert not (train & test).any()
        assert not train[len(data.samples) :].any()
        assert test[len(data.samples) :].all() != training.unseen
    first = session_folds(data)[0]
    train, _ = split_session_training(SessionTraining("gcms", 0, 0, unseen=False), data, both)
    assert not np.isin(np.flatnonzero(first.test), np.flatnonzero(train)).any()


def test_seeds_and_further_sessions_go_with_sessions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cross-modal", "--data", str(folder / "base"), "--seeds", "2"]) == 2
    assert "--sessions" in capsys.readouterr().err
