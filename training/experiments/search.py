"""training/: settings found by Optuna, judged on held-out recordings and simulated sessions.

A study is a file: it can be cut off at any moment and goes on with the same command. Trials that
are worse than the median at the same fold and step are pruned, and stay visible. May import torch
and optuna (inside functions); never looks at a test part.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from hardware.errors import ScentdError, UsageError
from hardware.typed_yaml import TypedYamlError, YamlMapping, build
from training.config import TrainConfig, config_as_dict
from training.experiments.crossval import folds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import optuna
    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.evaluation.scoring import Windows
    from training.fit import Trainer

STUDY = "study.journal"
REPORTS = 4
"""Times that a fold is scored on its way: as often a trial can be pruned."""
STARTUP_TRIALS = 4
"""Trials before the first can be pruned: a median of fewer says little."""
_BATCH = 256


class SearchError(ScentdError):
    """A search cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Range:
    """What one field of a configuration may be: some choices, or a range.

    Attributes
    ----------
    choices: tried as they are; empty for a range.
    low, high: ends of a range.
    log: even in the logarithm.
    whole: the field takes whole numbers only.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def ends(self) -> tuple[Any, ...]:
        """Return values that stand for all, to try whether a configuration takes them."""
        return self.choices or (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Space:
    """What a search may try.

    Attributes
    ----------
    fields: by dotted name, "optimiser.learning_rate".
    robust_weight: share of the score that comes from simulated other sessions.
    """

    fields: Mapping[str, Range]
    robust_weight: float = 0.3


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial, for the table.

    Attributes
    ----------
    number: of the trial, from 0.
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


def load_space(path: Path, config: TrainConfig) -> Space:
    """Read a search space and try its ends on the configuration that it is for.

    Raises
    ------
    UsageError: the file is missing or has problems, all of which are listed.
    """
    try:
        raw = YamlMapping(path.read_bytes()).values
    except OSError as error:
        raise UsageError(f"Expected a search space at {path}: {error.strerror}.") from error
    except TypedYamlError as error:
        raise UsageError(f"{path} cannot be used: {error}") from error
    if not isinstance(raw.get("fields"), dict) or not raw["fields"]:
        raise UsageError(
            f"Expected {path} to hold `fields:`, a mapping of a configuration's fields to what "
            "they may be. training/configs/search-space.yaml is an example."
        )
    problems = [
        f"{key} is not known (there are: fields, robust_weight)"
        for key in raw
        if key not in ("fields", "robust_weight")
    ]
    weight = raw.get("robust_weight", Space.__dataclass_fields__["robust_weight"].default)
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        problems.append(f"robust_weight must lie in 0..1, got {weight!r}")
    fields = {name: _range(config, name, entry, problems) for name, entry in raw["fields"].items()}
    if problems:
        raise UsageError(f"{path} has problems:\n" + "\n".join(f"  {p}" for p in problems))
    return Space({name: span for name, span in fields.items() if span}, float(weight))


def changed(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration with some fields (by dotted name) set.

    Raises
    ------
    UsageError: a field is not there or does not take its value.
    """
    result, problems = _changed(config, settings)
    if result is None or problems:
        raise UsageError("These settings cannot be: " + "; ".join(problems) + ".")
    return result


def as_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as the part of a configuration that they are, to be pasted."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = float(f"{value:.4g}") if isinstance(value, float) else value
    return yaml.safe_dump(nested, sort_keys=False)


def open_study(
    folder: Path, config: TrainConfig, data: Dataset, space: Space, folds: Sequence[int]
) -> optuna.Study:
    """Open the study in `folder`, or begin it.

    Raises
    ------
    UsageError: the study there is of another configuration, space, data set or choice of folds.
    """
    import optuna  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    # The table tells of every trial; Optuna would print a traceback for Ctrl-C.
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
    # Seeded anew at every call, or a resumed study would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    return study


def search(
    study: optuna.Study,
    config: TrainConfig,
    data: Dataset,
    space: Space,
    *,
    folds: Sequence[int],
    trials: int,
    device: str = "cpu",
    on_step: Callable[[int, int, int, float], None] = lambda _trial, _fold, _step, _loss: None,
    on_trial: Callable[[TrialRow], None] = lambda _row: None,
) -> None:
    """Go on with a study until it has `trials` finished trials.

    Parameters
    ----------
    study: from `open_study`.
    config: what is not searched.
    data: all recordings.
    space: what may be tried.
    folds: those that a trial is trained and scored on.
    trials: complete and pruned ones in all, those of earlier calls counted.
    device: torch device.
    on_step: called with trial, fold, step and loss.
    on_trial: called with each trial when it has ended.
    """
    import optuna  # noqa: PLC0415

    from training.fit import TrainingError  # noqa: PLC0415 - torch

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    fold_of = folds_of(data)

    def objective(trial: optuna.Trial) -> float:
        settings = {name: _suggest(trial, name, span) for name, span in space.fields.items()}
        chosen = changed(config, settings)
        scores: list[float] = []
        for place, fold in enumerate(folds):
            course = _train(
                chosen,
                data.subset(fold_of != fold),
                data.subset(fold_of == fold).drop_unordered(),
                space.robust_weight,
                device,
                lambda step, loss, fold=fold: on_step(trial.number, fold, step, loss),  # type: ignore[misc]
            )
            score = 0.0
            for mark, score in enumerate(course):
                trial.report(score, place * REPORTS + mark)
                if trial.should_prune():
                    raise optuna.TrialPruned
            scores.append(score)
        return float(np.mean(scores))

    while sum(trial.state in ended for trial in study.trials) < trials:
        # A loss that is not finite ends its trial and not the search.
        study.optimize(objective, n_trials=1, catch=(TrainingError,))
        on_trial(table(study)[-1])


def table(study: optuna.Study) -> list[TrialRow]:
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


def best_of(rows: Sequence[TrialRow]) -> TrialRow:
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
    """Train a network and yield its score at each mark of the way."""
    from training.evaluation.sessions import other_sessions  # noqa: PLC0415
    from training.fit import Trainer  # noqa: PLC0415 - torch

    trainer = Trainer(config, train, device)
    judged = [(1 - robust_weight, _cut(test, trainer))]
    if robust_weight:
        elsewhere = other_sessions(test, config.preprocessing.channels, draws=1)
        judged.append((robust_weight, _cut(elsewhere, trainer)))
    marks = {round(trainer.steps * (k + 1) / REPORTS) for k in range(REPORTS)}
    while trainer.step < trainer.steps:
        loss = trainer.advance()
        on_step(trainer.step, loss)
        if trainer.step in marks:
            yield sum(
                weight * _score(trainer, windows, targets) for weight, (windows, targets) in judged
            )


def _cut(test: Dataset, trainer: Trainer) -> tuple[Windows, NDArray[np.float32]]:
    from training.evaluation.evaluate import MIXTURE_SECONDS  # noqa: PLC0415
    from training.evaluation.scoring import cut_windows  # noqa: PLC0415

    spec = trainer.spec
    limit = round(MIXTURE_SECONDS * spec.rate_hz) if test.task == "mixture" else None
    return cut_windows(test.samples, spec, limit), test.targets


def _score(trainer: Trainer, windows: Windows, targets: NDArray[np.float32]) -> float:
    """Return Top-1 or within-0.1 over windows, of the averaged weights, in float32."""
    import torch  # noqa: PLC0415

    from training.evaluation.scoring import mixture_scores, substance_scores  # noqa: PLC0415

    network = trainer.average
    device = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(windows.x), _BATCH):
            rows = slice(start, start + _BATCH)
            x = torch.from_numpy(windows.x[rows]).to(device)
            mask = torch.from_numpy(windows.mask[rows]).to(device)
            parts.append(network(x, mask)[0].cpu().numpy())
    output = np.concatenate(parts)
    if trainer.config.task == "mixture":
        target = targets[windows.owner]
        return mixture_scores(output, output > 0, target)["within_01"]
    return substance_scores(output, windows.owner, targets.argmax(axis=1))["top1"]


def _suggest(trial: optuna.Trial, name: str, span: Range) -> Any:
    if span.choices:
        return trial.suggest_categorical(name, span.choices)
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)


def _changed(
    config: TrainConfig, settings: Mapping[str, Any]
) -> tuple[TrainConfig | None, list[str]]:
    """Return the configuration with fields set, or what is wrong with them."""
    raw = config_as_dict(config)
    problems: list[str] = []
    for name, value in settings.items():
        *parents, last = name.split(".")
        place: Any = raw
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place:
            place[last] = value
        else:
            problems.append(f"{name} is no field of a configuration")
    try:
        return build(TrainConfig, raw), problems
    except TypedYamlError as error:
        return None, [*problems, *(problem.text.rstrip(".") for problem in error.problems)]


def _range(config: TrainConfig, name: str, entry: Any, problems: list[str]) -> Range | None:
    """Read what a field may be and try its ends; add what is wrong to `problems`."""
    keys = set(entry) if isinstance(entry, dict) else set()
    if keys == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        span = Range(tuple(entry["choices"]))
    elif {"low", "high"} <= keys <= {"low", "high", "log"} and all(
        type(entry[key]) in (int, float) for key in ("low", "high")
    ):
        ends = entry["low"], entry["high"]
        # A whole range of a field that takes fractions too is one of fractions.
        whole = all(type(end) is int for end in ends) and bool(_changed(config, {name: 0.5})[1])
        span = Range((), *ends, log=bool(entry.get("log")), whole=whole)
    else:
        problems.append(f"{name} must be {{choices: [...]}} or {{low: , high: , log: }}")
        return None
    if not span.choices and (span.low >= span.high or (span.log and span.low <= 0)):
        problems.append(f"{name} must have low < high, and low > 0 with log")
        return None
    wrong = [problem for end in span.ends() for problem in _changed(config, {name: end})[1]]
    problems += dict.fromkeys(wrong)
    return None if wrong else span
