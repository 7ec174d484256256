"""The search for settings on small synthetic recordings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from hardware.errors import UsageError
from models.preprocess import PreprocessSpec
from tests.training import tiny
from tests.training.tiny import SPEC, periodic, with_optimiser, write_config, write_recordings
from training.commands._shared import config_path
from training.commands.search import _lines
from training.config import (
    AugmentConfig,
    TrainConfig,
    load_train_config,
)
from training.data.dataset import Dataset, load_substances

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
pytest.importorskip("optuna", reason="the search needs the extra `train`")

from training.cli import main  # noqa: E402
from training.experiments import search as searching  # noqa: E402
from training.experiments.search import (  # noqa: E402
    SearchError,
    TrialRow,
    best_trial,
    open_study,
    run_trials,
    trial_rows,
)
from training.experiments.search_space import (  # noqa: E402
    Range,
    SearchSpace,
    load_space,
    settings_yaml,
    with_settings,
)
from training.experiments.study_storage import StudyPlace  # noqa: E402

torch.set_num_threads(1)

CONFIG = dataclasses.replace(
    with_optimiser(steps=24, learning_rate=1e-2, warmup=2, ema=0.8),
    preprocessing=dataclasses.replace(SPEC, lags=(3,)),
    network=dataclasses.replace(tiny.CONFIG.network, d_model=8),
    augment=AugmentConfig(partial=0.0),
    seed=3,
)
# A rate of 1e-6 learns nothing in so few steps, one of 2e-2 does.
SPACE = SearchSpace({"optimiser.learning_rate": Range((1e-6, 2e-2))}, robust_weight=0.0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic()


def run(folder: Path, data: Dataset, trials: int, space: SearchSpace = SPACE) -> list[TrialRow]:
    study = open_study(StudyPlace(folder), CONFIG, data, space, [0])
    run_trials(study, CONFIG, data, space, folds=[0], trials=trials)
    return trial_rows(study)


def test_a_study_resumes(data: Dataset, tmp_path: Path) -> None:
    first = run(tmp_path, data, 2)
    assert [row.number for row in first] == [0, 1]
    again = run(tmp_path, data, 4)
    assert again[:2] == first
    assert len(again) == 4
    assert run(tmp_path, data, 4) == again  # there is nothing left to do


def test_pruned_trials_are_listed_with_their_last_score(data: Dataset, tmp_path: Path) -> None:
    rows = run(tmp_path, data, 12)
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned, "a rate that learns nothing was never pruned"
    # A tie with the median is not pruned: only the useless rate is.
    assert {row.settings["optimiser.learning_rate"] for row in pruned} == {1e-6}
    assert all(row.folds + row.share <= 1 for row in pruned)
    printed = list(_lines(rows))
    assert len(printed) == 13
    assert sum("pruned" in line for line in printed) == len(pruned)
    best = best_trial(rows)
    assert best.settings == {"optimiser.learning_rate": 2e-2}
    assert best.score == max(row.score or 0 for row in rows if row.state == "complete")


def test_a_trial_is_scored_on_held_out_recordings(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No recording that a trial trains on is in the fold that it is scored on."""
    import training.fit as fitting

    trained: list[set[str]] = []
    scored: list[set[str]] = []
    real_trainer, real_cut = fitting.Trainer, searching.scored_windows

    def trainer(config: TrainConfig, train: Dataset, device: str) -> fitting.Trainer:
        trained.append({sample.sha256 for sample in train.samples})
        return real_trainer(config, train, device)

    def cut(test: Dataset, spec: PreprocessSpec) -> object:
        scored.append({sample.sha256 for sample in test.samples})
        return real_cut(test, spec)

    monkeypatch.setattr(fitting, "Trainer", trainer)
    monkeypatch.setattr(searching, "scored_windows", cut)
    run(tmp_path, data, 1, dataclasses.replace(SPACE, robust_weight=0.5))
    assert len(trained) == 1
    assert len(scored) == 2  # as they are, and as another board would have made them
    assert len(scored[0]) == 3
    assert not trained[0] & scored[0]


def test_an_interrupted_trial_fails_and_the_study_remains(data: Dataset, tmp_path: Path) -> None:
    study = open_study(StudyPlace(tmp_path), CONFIG, data, SPACE, [0])

    def stop(trial: int, _fold: int, step: int, _loss: float) -> None:
        if (trial, step) == (1, 10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(study, CONFIG, data, SPACE, folds=[0], trials=3, on_step=stop)
    assert [row.state for row in trial_rows(study)] == ["complete", "failed"]
    assert [row.state for row in run(tmp_path, data, 2)][:2] == ["complete", "failed"]


def test_study_of_other_settings_is_refused(data: Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, 1)
    wider = SearchSpace({**SPACE.fields, "network.dropout": Range((), 0.0, 0.3)}, 0.0)
    for config, space, folds in (
        (dataclasses.replace(CONFIG, seed=9), SPACE, [0]),
        (CONFIG, wider, [0]),
        (CONFIG, SPACE, [0, 1]),
    ):
        with pytest.raises(UsageError, match="cannot be compared"):
            open_study(StudyPlace(tmp_path), config, data, space, folds)


def test_no_complete_trial_has_no_best_settings() -> None:
    with pytest.raises(SearchError):
        best_trial([TrialRow(0, "pruned", 0.5, 0, 0.5)])


def test_best_settings_can_be_pasted_into_a_configuration() -> None:
    settings = {"optimiser.learning_rate": 0.00123456, "network.d_model": 96, "seed": 4}
    text = settings_yaml(settings)
    assert yaml.safe_load(text) == {
        "optimiser": {"learning_rate": 0.001235}, "network": {"d_model": 96}, "seed": 4,
    }  # fmt: skip
    assert with_settings(CONFIG, settings).network.d_model == 96


@pytest.mark.parametrize("name", ["substances-50", "mixtures-12"])
def test_shipped_space_fits_the_shipped_configurations(name: str) -> None:
    config = load_train_config(config_path(name))
    space = load_space(config_path(name).parent / "search-space.yaml", config)
    assert len(space.fields) >= 10
    assert space.fields["network.layers"].whole
    assert not space.fields["augment.mix"].whole


def test_every_problem_of_a_space_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "robust_weight: 3\nfields:\n  optimiser.lerning_rate: {choices: [1.0]}\n"
        "  network.layers: {low: 4, high: 2}\n  network.heads: {choices: [two]}\n"
        "  network.dropout: 0.3\n  optimiser.weight_decay: {low: 0, high: 1, log: true}\n"
    )
    with pytest.raises(UsageError) as caught:
        load_space(path, CONFIG)
    for word in (
        "robust_weight", "lerning_rate", "network.layers", "heads", "dropout", "weight_decay",
    ):  # fmt: skip
        assert word in str(caught.value)


def test_command_prints_trials_and_settings_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_recordings(periodic(), tmp_path / "data")
    assert load_substances(folder).labels == ("almond", "banana", "mango")
    write_config(CONFIG, tmp_path)
    (tmp_path / "space.yaml").write_text(
        "robust_weight: 0.5\nfields:\n"
        "  optimiser.learning_rate: {low: 0.001, high: 0.02, log: true}\n"
        "  network.layers: {low: 1, high: 2}\n"
    )
    command = [
        "search", "--config", str(tmp_path / "tiny.yaml"), "--data", str(folder), "--folds", "0",
        "--run", str(tmp_path / "run"), "--space", str(tmp_path / "space.yaml"), "--steps", "8",
    ]  # fmt: skip
    assert main([*command, "--trials", "1"]) == 0
    out = capsys.readouterr().out
    assert "complete" in out
    pasted = yaml.safe_load(out.split("\n\n", 1)[1])
    assert set(pasted) == {"optimiser", "network"}
    assert main([*command, "--trials", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in result["trials"]] == [0, 1]
    assert result["best"]["settings"]["network.layers"] in (1, 2)
    assert main([*command, "--trials", "2", "--steps", "9"]) == 2
