"""training/: settings found by Optuna, scored on held-out recordings and simulated sessions.

A study is a file: it can be interrupted at any moment and resumes with the same command. Trials
that are worse than the median at the same fold and step are pruned, and stay listed. May import
torch and optuna (inside functions); never reads a test part.
"""

from __future__ import annotations

import hashlib
import json
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import optuna

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.data.protocol_windows import Windows
    from training.experiments.search_space import Range, SearchSpace
    from training.fit import Trainer

STUDY = "study.journal"
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
    folder: Path, config: TrainConfig, data: Dataset, space: SearchSpace, folds: Sequence[int]
) -> optuna.Study:
    """Open the study in `folder`, or create it.

    Raises
    ------
    UsageError: the study there is of another configuration, space, data set or choice of folds.
    """
    import optuna  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    # The table lists every trial; Optuna would print a traceback for Ctrl-C.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / STUDY)))
    study = optuna.create_study(
        study_name="search", storage=storage, direction="maximize", load_if_exists=True
    )
    parts = [config_as_dict(config), config_as_dict(space), data.sha256, list(folds)]
    identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise UsageError(
            f"{folder / STUDY} is a search with another configuration, space, number of steps, "
            "choice of folds or other data: its scores cannot be compared. Name another --run, or "
            "remove that file to start anew."
        )
    study.set_user_attr("identity", identity)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:  # its process was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # Another seed for each call, or a resumed study would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    return study


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
) -> None:
    """Run trials until the study has `trials` complete and pruned ones, earlier calls counted.

    A trial is trained and scored on each of `folds`. `on_step` is called with trial, fold, step
    and loss, `on_trial` with each trial when it has ended.
    """
    import optuna  # noqa: PLC0415

    from training.fit import TrainingError  # noqa: PLC0415 - torch

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    fold_of = folds_of(data)

    def objective(trial: optuna.Trial) -> float:
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
                partial(on_step, trial.number, fold),
            )
            score = 0.0
            for mark, score in enumerate(marks):
                trial.report(score, place * REPORTS + mark)
                if trial.should_prune():
                    raise optuna.TrialPruned
            scores.append(score)
        return float(np.mean(scores))

    while sum(trial.state in ended for trial in study.trials) < trials:
        # A loss that is not finite ends its trial and not the search.
        study.optimize(objective, n_trials=1, catch=(TrainingError,))
        on_trial(trial_rows(study)[-1])


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
