"""Searches by several searchers: on a real PostgreSQL, and by the workers of an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.errors import UsageError
from tests.sandbox import PATIENCE_S, ROOT, free_port, wait_until
from tests.training.postgresql import PASSWORD, postgresql
from tests.training.tiny import periodic, with_optimiser, write_config, write_recordings

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
optuna = pytest.importorskip("optuna", reason="the search needs the extra `train`")

from training.cli import main  # noqa: E402
from training.engines import EngineChoice, open_engine  # noqa: E402
from training.experiments.search import (  # noqa: E402
    open_study,
    run_trials,
    run_trials_on,
    trial_rows,
)
from training.experiments.search_space import Range, SearchSpace  # noqa: E402
from training.experiments.study_storage import StudyPlace, StudyStorageError, shown  # noqa: E402

torch.set_num_threads(1)

CONFIG = with_optimiser(steps=8)
SPACE = SearchSpace({"optimiser.learning_rate": Range(low=1e-4, high=1e-2, log=True)}, 0.0)
HEARTBEAT_S = 1

SEARCHER = """
import sys
from pathlib import Path
from tests.training.experiments.test_study_storage import *

def stop(trial, fold, step, loss):
    Path(sys.argv[2]).touch()
    import time
    time.sleep(600)

place = StudyPlace(Path(sys.argv[1]), sys.argv[3], heartbeat_s=HEARTBEAT_S)
study = open_study(place, CONFIG, periodic(), SPACE, [0])
run_trials(study, CONFIG, periodic(), SPACE, folds=[0], trials=3, on_step=stop, shared=True)
"""


def test_searchers_share_a_study_and_one_that_is_killed_costs_a_trial(tmp_path: Path) -> None:
    with postgresql() as url:
        place = StudyPlace(tmp_path, url, heartbeat_s=HEARTBEAT_S)
        begun = tmp_path / "begun"
        process = subprocess.Popen(
            [sys.executable, "-c", SEARCHER, str(tmp_path), str(begun), url], cwd=ROOT
        )
        wait_until(begun.exists, "the first searcher's trial")
        study = open_study(place, CONFIG, periodic(), SPACE, [0])
        assert [row.state for row in trial_rows(study)] == ["running"]
        run_trials(study, CONFIG, periodic(), SPACE, folds=[0], trials=2, shared=True)
        # The other searcher's trial runs, so that one was lacking.
        assert [row.state for row in trial_rows(study)] == ["running", "complete"]
        process.kill()
        process.wait(PATIENCE_S)

        def finished() -> bool:
            run_trials(study, CONFIG, periodic(), SPACE, folds=[0], trials=2, shared=True)
            return trial_rows(study)[0].state == "failed"

        wait_until(finished, "the trial without a heartbeat to fail")
        run_trials(study, CONFIG, periodic(), SPACE, folds=[0], trials=2, shared=True)
        assert [row.state for row in trial_rows(study)] == ["failed", "complete", "complete"]
        again = open_study(place, CONFIG, periodic(), SPACE, [0])
        assert trial_rows(again) == trial_rows(study)
        with pytest.raises(UsageError, match="--study") as refusal:
            open_study(place, CONFIG, periodic(), SPACE, [1])
        assert PASSWORD not in str(refusal.value)


def test_the_command_resumes_a_study_in_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_recordings(periodic(), tmp_path / "data")
    config = write_config(CONFIG, tmp_path)
    space = tmp_path / "space.yaml"
    rate = "{low: 0.0001, high: 0.01, log: true}"
    space.write_text(f"robust_weight: 0.0\nfields:\n  optimiser.learning_rate: {rate}\n")
    command = ["search", "--config", str(config), "--data", str(data), "--folds", "0", "--json"]
    command += ["--run", str(tmp_path / "run"), "--space", str(space)]
    with postgresql() as url:

        def trials(count: int, *more: str) -> int:
            names = ["--storage", url, "--trials", str(count)]
            assert main([*command, *names, *more]) == 0
            output = capsys.readouterr()
            assert PASSWORD not in output.out + output.err
            return len(json.loads(output.out)["trials"])

        assert trials(1) == 1
        assert trials(3, "--workers", "2") == 3
        assert trials(1, "--study", "other") == 1


def test_workers_search_one_study_in_a_file(tmp_path: Path) -> None:
    place = StudyPlace(tmp_path)
    study = open_study(place, CONFIG, periodic(), SPACE, [0])
    seen: list[int] = []
    with open_engine(EngineChoice(workers=2)) as engine:
        run_trials_on(
            engine, place, CONFIG, periodic(), SPACE,
            folds=[0], trials=4, on_trial=lambda row: seen.append(row.number),
        )  # fmt: skip
    rows = trial_rows(study)
    assert sorted(seen) == [0, 1, 2, 3]
    assert all(row.state in {"complete", "pruned"} for row in rows)
    assert len({row.settings["optimiser.learning_rate"] for row in rows}) == 4
    for row in rows:
        if row.state == "complete":
            one = StudyPlace(tmp_path / str(row.number))
            fixed = SearchSpace(
                {name: Range((value,)) for name, value in row.settings.items()}, 0.0
            )
            alone = open_study(one, CONFIG, periodic(), fixed, [0])
            run_trials(alone, CONFIG, periodic(), fixed, folds=[0], trials=1)
            assert trial_rows(alone)[0].score == row.score


def test_an_unreachable_database_is_one_plain_message_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: pip install 'scentd[postgresql]'"
    )
    url = f"postgresql://{PASSWORD[:3]}:{PASSWORD}@127.0.0.1:{free_port()}/studies"
    with pytest.raises(StudyStorageError, match="Check that its server runs") as error:
        open_study(StudyPlace(tmp_path, url), CONFIG, periodic(), SPACE, [0])
    assert "\n" not in str(error.value)
    assert "refused" in str(error.value)
    assert PASSWORD not in str(error.value)
    assert shown(url).endswith("/studies")


@pytest.mark.parametrize("url", [f"postgresql//x:{PASSWORD}@h", f"{PASSWORD}://u@h:port/x"])
def test_an_address_that_is_none_is_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, StudyStorageError)) as error:
        StudyPlace(tmp_path, url).open()
    assert PASSWORD not in str(error.value)


def test_a_missing_driver_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StudyStorageError, match=r"scentd\[postgresql\]"):
        StudyPlace(tmp_path, "postgresql://u@127.0.0.1/x").open()
