"""training/: settings found by Optuna, scored on held-out recordings and simulated sessions.

A study is a file or lies in a database: it can be interrupted at any moment and resumes with the
same command; in a database several searchers share it. Trials that are worse than the median at
the same fold and step are pruned, and stay listed. May import torch and optuna (inside functions);
never reads a test part.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError, UsageError
from training.config import config_as_dict
from training.data.dataset import folds_of
from training.data.protocol_windows import scored_windows
from training.evaluation.scoring import mixture_tally, substance_tally, total_scores
from training.evaluation.sessions import other_sessions
from training.experiments.runner import run_in_batches
from training.experiments.search_space import with_settings
from training.experiments.study_storage import StudyPlace, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import optuna

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.data.protocol_windows import Windows
    from training.engines import Engine
    from training.experiments.search_space import Range, SearchSpace
    from training.fit import Trainer

REPORTS = 4
"""How often a fold is scored during its training, and a trial can be pruned."""
STARTUP_TRIALS = 4
"""Trials before the first can be pruned: a median of fewer says little."""
_BATCH = 256


class SearchError(ScentdError):
    """A search cannot continue; the message says why."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial, for the table.

    Attributes
    ----------
    state: "complete", "pruned", "failed" or "running".
    score: the mean over folds; of a pruned trial the last that was reported.
    folds, share: whole folds done and the share of the next one, when it ended.
    settings: by dotted name.
    """

    number: int
    state: str
    score: float | None
    folds: int
    share: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def open_study(
    place: StudyPlace,
    config: TrainConfig,
    data: Dataset,
    space: SearchSpace,
    folds: Sequence[int],
) -> optuna.Study:
    """Open the study of a place, or create it.

    Trials of a file that still run are those of a killed process, and count as failed; those of a
    database may be another searcher's, and fail once their heartbeat is missing.

    Raises
    ------
    UsageError: the study there is of another configuration, space, data set or choice of folds.
    StudyStorageError: the database cannot be used.
    """
    import optuna  # noqa: PLC0415

    study = _load_study(place)
    parts = [config_as_dict(config), config_as_dict(space), data.sha256, list(folds)]
    identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise UsageError(
            f"{place} is a search with another configuration, space, number of steps, "
            "choice of folds or other data: its scores cannot be compared. Name another "
            + ("--study." if place.shared else "--run, or remove that file to start anew.")
        )
    study.set_user_attr("identity", identity)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING and not place.shared:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # Another seed for each call, or a resumed study would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    return study


def _load_study(place: StudyPlace) -> optuna.Study:
    import optuna  # noqa: PLC0415

    # The table lists every trial; Optuna would print a traceback for Ctrl-C.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with explained(place.url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the heartbeat
        return optuna.create_study(
            study_name=place.name,
            storage=place.open(),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )


def run_trials(
    study: optuna.Study,
    config: TrainConfig,
    data: Dataset,
    space: SearchSpace,
    *,
    folds: Sequence[int],
    trials: int,
    device: str = "cpu",
    on_step: Callable[[int, int, int, float], None] = lambda _trial, _fold, _step, _loss: None,
    on_trial: Callable[[TrialRow], None] = lambda _row: None,
    shared: bool = False,
) -> None:
    """Run trials until the study has `trials` complete and pruned ones, earlier calls counted.

    A trial is trained and scored on each of `folds`. `on_step` is called with trial, fold, step
    and loss, `on_trial` with each trial when it has ended. With `shared`, other searchers work on
    the study: their running trials count too, and each trial has a seed of its own.
    """
    while missing_trials(study, trials, running=shared):
        on_trial(
            _run_trial(
                study, config, data, space,
                folds=folds, device=device, on_step=on_step, shared=shared,
            )
        )  # fmt: skip


def _run_trial(
    study: optuna.Study,
    config: TrainConfig,
    data: Dataset,
    space: SearchSpace,
    *,
    folds: Sequence[int],
    device: str,
    on_step: Callable[[int, int, int, float], None] = lambda _trial, _fold, _step, _loss: None,
    shared: bool,
) -> TrialRow:
    import optuna  # noqa: PLC0415

    from training.fit import TrainingError  # noqa: PLC0415 - torch

    fold_of = folds_of(data)
    number = -1

    def objective(trial: optuna.Trial) -> float:
        nonlocal number
        number = trial.number
        if shared:
            # Searchers that start together would draw the same settings.
            study.sampler = optuna.samplers.TPESampler(
                seed=config.seed + number, constant_liar=True
            )
        settings = {name: _suggest(trial, name, span) for name, span in space.fields.items()}
        chosen = with_settings(config, settings)
        scores = []
        for place, fold in enumerate(folds):
            marks = _train(
                chosen,
                data.subset(fold_of != fold),
                data.subset(fold_of == fold).drop_unordered(),
                space.robust_weight,
                device,
                partial(on_step, number, fold),
            )
            score = 0.0
            for mark, score in enumerate(marks):
                trial.report(score, place * REPORTS + mark)
                if trial.should_prune():
                    raise optuna.TrialPruned
            scores.append(score)
        return float(np.mean(scores))

    # A loss that is not finite ends its trial and not the search.
    study.optimize(objective, n_trials=1, catch=(TrainingError,))
    return trial_rows(study)[number]


def missing_trials(study: optuna.Study, trials: int, *, running: bool = False) -> int:
    """Return how many trials a study lacks; with `running`, those that run are not lacking.

    Trials whose searcher was killed are failed first, where the study has heartbeats.
    """
    import optuna  # noqa: PLC0415

    if running:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
    states = optuna.trial.TrialState
    counted = {states.COMPLETE, states.PRUNED, *((states.RUNNING,) if running else ())}
    return max(0, trials - sum(trial.state in counted for trial in study.trials))


def run_trials_on(
    engine: Engine,
    place: StudyPlace,
    config: TrainConfig,
    data: Dataset,
    space: SearchSpace,
    *,
    folds: Sequence[int],
    trials: int,
    device: str = "cpu",
    on_trial: Callable[[TrialRow], None] = lambda _row: None,
) -> None:
    """Run trials as `run_trials` does, several at once by the workers of an engine.

    A trial's score is that of one process; which settings it tries depends on which others have
    ended before, as in every search by several workers.
    """
    study = _load_study(place)
    while missing := missing_trials(study, trials, running=place.shared):
        one = partial(_one_trial, place, config, data, space, list(folds), trials, device)
        for _, row in engine.run(one, range(missing)):
            if row is not None:
                on_trial(row)


def _one_trial(
    place: StudyPlace,
    config: TrainConfig,
    data: Dataset,
    space: SearchSpace,
    folds: list[int],
    trials: int,
    device: str,
    _number: int,
) -> TrialRow | None:
    """Run one trial of a study in a worker, unless it has enough; return its row."""
    study = _load_study(place)
    if not missing_trials(study, trials, running=True):
        return None
    return _run_trial(study, config, data, space, folds=folds, device=device, shared=True)


def trial_rows(study: optuna.Study) -> list[TrialRow]:
    """Return every trial, the pruned ones too, in the order they were made."""
    rows = []
    for trial in study.trials:
        marks = trial.intermediate_values
        last = max(marks, default=-1)
        done, rest = divmod(last + 1, REPORTS)
        score = trial.value if trial.value is not None else marks.get(last)
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        rows.append(TrialRow(trial.number, state, score, done, rest / REPORTS, dict(trial.params)))
    return rows


def best_trial(rows: Sequence[TrialRow]) -> TrialRow:
    """Return the best complete trial.

    Raises
    ------
    SearchError: none is complete.
    """
    complete = [row for row in rows if row.state == "complete" and row.score is not None]
    if not complete:
        raise SearchError(
            "No trial of the search is complete yet, so there are no best settings. Run the same "
            "command again with more --trials."
        )
    return max(complete, key=lambda row: row.score or 0.0)


def _train(
    config: TrainConfig,
    train: Dataset,
    test: Dataset,
    robust_weight: float,
    device: str,
    on_step: Callable[[int, float], None],
) -> Iterator[float]:
    """Train a network and yield its score `REPORTS` times on the way."""
    from training.fit import Trainer  # noqa: PLC0415 - torch

    trainer = Trainer(config, train, device)
    tests = [(1 - robust_weight, test, scored_windows(test, trainer.spec))]
    if robust_weight:
        sessions = other_sessions(test, config.preprocessing.channels, draws=1)
        tests.append((robust_weight, sessions, scored_windows(sessions, trainer.spec)))
    marks = {round(trainer.steps * (k + 1) / REPORTS) for k in range(REPORTS)}
    while trainer.step < trainer.steps:
        loss = trainer.advance()
        on_step(trainer.step, loss)
        if trainer.step in marks:
            yield sum(weight * _score(trainer, data, windows) for weight, data, windows in tests)


def _score(trainer: Trainer, data: Dataset, windows: Windows) -> float:
    """Return Top-1 or within-0.1 over windows, of the averaged weights, in float32."""
    output = run_in_batches(trainer.average, windows, _BATCH)[0].numpy()
    owner, target = windows.owner, data.targets
    if trainer.config.task == "mixture":
        tally = mixture_tally(output, output > 0, target[owner], owner, len(target))
        return total_scores(tally)["within_01"]
    return total_scores(substance_tally(output, owner, target.argmax(axis=1)))["top1"]


def _suggest(trial: optuna.Trial, name: str, span: Range) -> Any:
    if span.choices:
        return trial.suggest_categorical(name, span.choices)
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)
