"""Folds and models trained by several workers: the results of one after the other."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.training.tiny import in_sessions, oscillating, periodic, with_optimiser
from training.engines import (
    ENGINES,
    LOCAL,
    SERIAL,
    Engine,
    EngineChoice,
    EngineError,
    open_engine,
)
from training.experiments.baselines.comparison import compare_baselines
from training.experiments.baselines.registry import BaselineEntry
from training.experiments.baselines.trees import WindowTrees
from training.experiments.crossval import cross_validate
from training.experiments.held_out_sessions import cross_validate_sessions
from training.experiments.open_set import train_open_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)  # as a worker: the last bits of a training depend on it

CONFIG = with_optimiser(steps=12)
TIMES = ("seconds", "scoring_seconds")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param != LOCAL:
        pytest.importorskip(
            "distributed", reason="distributed is not installed: pip install 'scentd[dask]'"
        )
    with open_engine(EngineChoice(request.param, workers=2)) as engine:
        yield engine


def double_after(seconds: float, number: int) -> int:
    time.sleep(seconds)
    return 2 * number


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_results_come_in_the_order_of_their_calls(engine: Engine) -> None:
    calls = [partial(double_after, 0.3 if number == 0 else 0.0, number) for number in range(20)]
    assert list(engine.in_order(calls)) == list(range(0, 40, 2))
    assert list(SERIAL.in_order(calls[1:])) == list(range(2, 40, 2))


def test_an_error_of_a_task_reaches_the_caller(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        list(engine.in_order([partial(divmod, 1, 0)]))


def test_folds_are_those_of_one_process(engine: Engine, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    data = periodic()
    one = cross_validate(
        CONFIG, data, tmp_path / "one", folds=[0, 1],
        on_step=lambda fold, step, _loss: seen.append((fold, step)),
    )  # fmt: skip
    assert len(seen) == 24
    many = cross_validate(
        CONFIG, data, tmp_path / "many", folds=[0, 1], engine=engine,
        on_step=lambda fold, step, _loss: seen.append((fold, step)),
    )  # fmt: skip
    assert without_times(many) == without_times(one)
    assert len(seen) == 24


@pytest.mark.slow
def test_sessions_are_those_of_one_process(engine: Engine, tmp_path: Path) -> None:
    data = in_sessions(2, per_label=4)
    one = cross_validate_sessions(CONFIG, data, tmp_path / "one")
    many = cross_validate_sessions(CONFIG, data, tmp_path / "many", engine=engine)
    assert without_times(many) == without_times(one)


@pytest.mark.slow
def test_networks_without_some_substances_are_those_of_one_process(
    engine: Engine, tmp_path: Path
) -> None:
    data = oscillating()
    one = train_open_set(CONFIG, data, tmp_path / "one", folds=[0, 1])
    many = train_open_set(CONFIG, data, tmp_path / "many", folds=[0, 1], engine=engine)
    for a, b in zip(one, many, strict=True):
        assert (a.fold, a.hidden) == (b.fold, b.hidden)
        assert np.array_equal(a.exemplars, b.exemplars)
        assert np.array_equal(a.outputs.require("logits"), b.outputs.require("logits"))


def test_baselines_are_those_of_one_process(engine: Engine, tmp_path: Path) -> None:
    data = periodic(rows=150)
    entries = [
        BaselineEntry(f"trees-{count}", "trees", "ours", partial(WindowTrees, trees=count))
        for count in (5, 6)
    ]
    one = list(compare_baselines(data, entries, [0, 1], tmp_path / "one"))
    many = list(compare_baselines(data, entries, [0, 1], tmp_path / "many", engine=engine))
    for (entry, fold, part), (entry_too, fold_too, part_too) in zip(one, many, strict=True):
        assert (entry.name, fold) == (entry_too.name, fold_too)
        assert np.array_equal(part.log_probabilities, part_too.log_probabilities)


@pytest.mark.slow
def test_the_workers_of_a_running_scheduler_are_used() -> None:
    distributed = pytest.importorskip(
        "distributed", reason="distributed is not installed: pip install 'scentd[dask]'"
    )
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        choice = EngineChoice("dask", scheduler=cluster.scheduler_address)
        with open_engine(choice) as engine:
            assert engine.workers == 1
            calls = [partial(double_after, 0.0, number) for number in range(3)]
            assert list(engine.in_order(calls)) == [0, 2, 4]


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_said() -> None:
    pytest.importorskip(
        "distributed", reason="distributed is not installed: pip install 'scentd[dask]'"
    )
    choice = EngineChoice("dask", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(EngineError, match="No scheduler of Dask answers"), open_engine(choice):
        pass
