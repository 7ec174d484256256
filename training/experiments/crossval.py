"""training/: grouped cross-validation: train on some recordings, score int8 on others.

Every fold goes the whole way: fit, quantise, write a bundle, load it, score it
through `evaluate`, on its recordings as they are and as another board would have made
them, and streamed through the decision layer. The answers on held-out recordings also set
the decision constants that must not be fitted on training data. Imports torch only while it
runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from training.data.dataset import (
    N_FOLDS,
    Dataset,
    component_set_folds,
    substance_folds,
)
from training.evaluation.constants import fitted, fold_constants
from training.evaluation.decision_fit import published_errors
from training.evaluation.evaluate import ask, measured_space, score, tally
from training.evaluation.held_out import HELD_OUT, HeldOut, HeldOutError, read_held_out, together
from training.evaluation.intervals import intervals, pooled
from training.evaluation.open_set_answers import open_set_of
from training.evaluation.scoring import Ratio, Tally, mixture_tally, presence_tally, values
from training.evaluation.sessions import OTHER_BOARD, OTHER_SESSION, SessionSpread, other_sessions
from training.evaluation.stored_answers import write_json
from training.evaluation.streaming import (
    decided_s,
    follow,
    median_decision,
    stream,
    streaming_tally,
)
from training.trust.enrolment import fit_head_temperature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.config import TrainConfig
    from training.evaluation.intervals import Interval
    from training.evaluation.open_set_answers import OpenFold
    from training.evaluation.streaming import Streams

REPORT = "crossval.json"

ROBUST = ("top1", "recording_top1", "within_01", "top_k")
"""Scores that are given for simulated other sessions too."""

_DEFAULT_PRESENCE = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Scores over some recordings, and which of those belong together."""

    tally: Tally
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What came of one fold.

    Attributes
    ----------
    row: its scores, for the report.
    panels: its tallies by the prefix of their names: "" for the held-out recordings, "robust_" and
        "board_" for their simulated sessions, "constant_" and "permuted_" for mixtures.
    held_out: its network's answers.
    """

    row: dict[str, Any]
    panels: dict[str, Panel]
    held_out: HeldOut


def folds_of(data: Dataset) -> NDArray[np.int64]:
    """Fold of each recording; -1 for those that train in every fold and test in none."""
    return substance_folds(data) if data.task == "substance" else component_set_folds(data)


def cross_validate(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    folds: Sequence[int] = range(N_FOLDS),
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
) -> dict[str, Any]:
    """Cross-validate a configuration and write the report and the held-out answers to `folder`.

    Parameters
    ----------
    config: what to train.
    data: all recordings.
    folder: holds a sub-folder per fold; finished folds and checkpoints there are used again.
    device: torch device.
    folds: which folds to run.
    on_step: called with fold, step and loss.

    Returns
    -------
    The report: the scores of each fold with their mean and standard deviation; the same scores
    over the recordings of all folds together (`pooled`) with 95 % bootstrap intervals over
    recordings (`intervals`); what the decision layer makes of them (`decision`).
    """
    done = [
        _one_fold(
            config,
            data,
            fold,
            folder / f"fold-{fold}",
            device=device,
            on_step=lambda step, loss, fold=fold: on_step(fold, step, loss),  # type: ignore[misc]
        )
        for fold in folds
    ]
    rows = [fold.row for fold in done]
    held_out = together([fold.held_out for fold in done])
    folder.mkdir(parents=True, exist_ok=True)
    held_out.save(folder / HELD_OUT)
    report = {
        "model": config.name,
        "task": config.task,
        "protocol": _protocol(data),
        "precision": "int8",
        "seed": config.seed,
        "data_sha256": data.sha256,
        "labels": list(data.labels),
        "oddities": data.oddities,
        "folds": rows,
        "mean": _over(rows, np.mean),
        "sd": _over(rows, np.std),
        **_pooled([fold.panels for fold in done]),
        "descriptors": descriptor_report(held_out, data.labels),
        "decision": decision_report(held_out, open_set_of(folder)),
    }
    write_json(folder / REPORT, report)
    return report


def fit_decision(folder: Path) -> DecisionSpec:
    """Return the decision constants that follow from a cross-validation's held-out answers.

    What they achieve on recordings that they were not fitted on is in the report (`decision`).
    """
    held_out = read_held_out(folder / HELD_OUT)
    open_set = open_set_of(folder)
    spec = fitted(held_out, np.ones(len(held_out.names), dtype=bool), open_set)
    if not open_set:
        return spec
    return dataclasses.replace(spec, head_temperature=fit_head_temperature(open_set))


def decision_report(held_out: HeldOut, open_set: Sequence[OpenFold] = ()) -> dict[str, Any]:
    """Score the decision layer: every fold with constants fitted on the other folds' answers.

    Substances: announcements by seconds and the time they take. Mixtures: presence at the
    fitted thresholds, as F1, sensitivity and specificity, and the coverage of the components'
    intervals. Empty with fewer than two folds: there is nothing to fit on.

    Parameters
    ----------
    held_out: answers of all folds.
    open_set: of networks that never met some substances; they set what is unknown.
    """
    specs = fold_constants(held_out, open_set)
    if not specs:
        return {}
    scored = _announcements if held_out.streams is not None else _presences
    parts = [scored(held_out, fold, spec) for fold, spec in specs.items()]
    whole = pooled([part for part, _ in parts])
    order = np.concatenate([np.flatnonzero(held_out.fold == fold) for fold in specs])
    scores: dict[str, float] = values(whole)
    spread: dict[str, Interval] = intervals(whole, [held_out.groups[row] for row in order])
    if held_out.streams is not None:
        first_s = np.concatenate([seconds for _, seconds in parts])
        scores["median_decision_s"], spread["median_decision_s"] = median_decision(first_s)
    return {
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "intervals": {name: list(pair) for name, pair in spread.items()},
        "constants": {str(fold): dataclasses.asdict(spec) for fold, spec in specs.items()},
    }


def descriptor_report(held_out: HeldOut, labels: tuple[str, ...]) -> dict[str, Any]:
    """Score the odour descriptors of held-out recordings: macro AUROC, and each descriptor's.

    A recording says the mean of its windows; resampled are substances. Empty without the head.
    """
    said = held_out.answers.descriptors
    if said is None:
        return {}
    from training.data.substance_tables import read_descriptors  # noqa: PLC0415
    from training.evaluation.auroc import column_areas, mean_area  # noqa: PLC0415 - scikit-learn

    owner, truth = held_out.answers.owner, held_out.target.argmax(axis=1)
    spoken = np.stack([said[owner == row].mean(axis=0) for row in range(len(truth))])
    table = read_descriptors(labels)
    areas = column_areas(spoken, table.values.astype(bool)[truth], truth)
    macro = mean_area(list(areas.values()))
    return {
        "macro_auroc": round(macro.value, 4),
        "interval": list(macro.interval),
        "auroc": {table.names[column]: round(area.value, 4) for column, area in areas.items()},
    }


def best_constant(target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the constant prediction (a share per label) with the best within-0.1 on `target`.

    Searched among the mean and all pairs of labels in shares of tenths: more than two
    components of a constant cannot both be near the shares that occur.
    """
    truly = target > 0
    weight = truly / truly.sum(axis=1, keepdims=True)
    shares = np.arange(0, 11) / 10
    # Worth of giving label k the share s: how much of within-0.1 it alone earns.
    worth = np.stack([((np.abs(s - target) < 0.1 - 1e-6) * weight).mean(axis=0) for s in shares])
    best: NDArray[np.float64] = target.mean(axis=0).astype(np.float64)
    best_worth = float(((np.abs(best - target) < 0.1) * weight).sum(axis=1).mean())  # noqa: PLR2004
    for first, second in itertools.combinations(range(target.shape[1]), 2):
        for number, share in enumerate(shares):
            total = worth[number, first] + worth[10 - number, second]
            if total > best_worth:
                best_worth = float(total)
                best = np.zeros(target.shape[1])
                best[first], best[second] = share, 1 - share
    return best


def _one_fold(
    config: TrainConfig,
    data: Dataset,
    fold: int,
    folder: Path,
    *,
    device: str,
    on_step: Callable[[int, float], None],
) -> Fold:
    """Train without one fold's recordings and score the int8 bundle on them."""
    from training.export.bundle import Provenance, export_bundle  # noqa: PLC0415 - torch
    from training.fit import train_network  # noqa: PLC0415

    started_s = time.monotonic()
    fold_of = folds_of(data)
    train, test = data.subset(fold_of != fold), data.subset(fold_of == fold)
    if config.in_order_only:
        train = train.drop_unordered()
    permuted = test.subset(np.array([not sample.in_order for sample in test.samples]))
    test = test.drop_unordered()
    fitted = train_network(config, train, folder=folder, device=device, on_step=on_step)
    neutral = DecisionSpec(presence_thresholds=_neutral_presence(data))
    provenance = Provenance(f"scent-train crossval (fold {fold})", config.name)
    export_bundle(folder / "bundle", config, fitted, train, neutral, provenance)
    trained_s = time.monotonic()
    bundle = load_bundle(folder / "bundle", precision="int8")
    answers = ask(bundle, test)
    panels = {
        "": Panel(tally(bundle, test, answers), _groups(test)),
        "robust_": _elsewhere(bundle, test, OTHER_SESSION),
        "board_": _elsewhere(bundle, test, OTHER_BOARD),
        **_constant(train, test, answers.owner),
        **_permuted(bundle, permuted),
    }
    row = {
        "fold": fold,
        **score(bundle, test, answers),
        **{
            prefix + name: value
            for prefix, panel in panels.items()
            if prefix
            for name, value in values(panel.tally).items()
        },
        "seconds": round(trained_s - started_s, 1),
    }
    held_out = HeldOut(
        tuple(sample.name for sample in test.samples),
        _groups(test),
        np.full(len(test.samples), fold),
        test.targets,
        answers,
        _streamed(bundle, train, test) if data.task == "substance" else None,
    )
    row["scoring_seconds"] = round(time.monotonic() - trained_s, 1)
    return Fold(row, panels, held_out)


def _streamed(bundle: Bundle, train: Dataset, test: Dataset) -> Streams:
    """Return the held-out recordings as the daemon hears them, with their novelty."""
    streams = stream(bundle, test.samples).told_in(measured_space(bundle, train))
    # What was needed of the embeddings is told; of every window they would be ten megabytes.
    return dataclasses.replace(streams, embedding=None, descriptors=None)


def _groups(data: Dataset) -> tuple[str, ...]:
    return tuple(sample.group for sample in data.samples)


def _elsewhere(bundle: Bundle, test: Dataset, spread: SessionSpread) -> Panel:
    elsewhere = other_sessions(test, bundle.manifest.preprocessing.channels, spread)
    scores = tally(bundle, elsewhere, ask(bundle, elsewhere))
    return Panel({name: scores[name] for name in ROBUST if name in scores}, _groups(elsewhere))


def _constant(train: Dataset, test: Dataset, owner: NDArray[np.int64]) -> dict[str, Panel]:
    """Score the best prediction that is always the same, chosen on the training recordings."""
    if train.task != "mixture":
        return {}
    multiple = train.targets[(train.targets > 0).sum(axis=1) > 1]
    constant = np.broadcast_to(best_constant(multiple), (len(owner), multiple.shape[1]))
    scores = mixture_tally(constant, constant > 0, test.targets[owner], owner, len(test.samples))
    return {"constant_": Panel(scores, _groups(test))}


def _permuted(bundle: Bundle, data: Dataset) -> dict[str, Panel]:
    """Score the held-out recordings that are in no time order, apart from the others."""
    if not data.samples:
        return {}
    return {"permuted_": Panel(tally(bundle, data, ask(bundle, data)), _groups(data))}


def _pooled(folds: list[dict[str, Panel]]) -> dict[str, Any]:
    """Scores over the recordings of all folds together, and their intervals."""
    scores: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    for prefix in dict.fromkeys(prefix for panels in folds for prefix in panels):
        panels = [fold[prefix] for fold in folds if prefix in fold]
        whole = pooled([panel.tally for panel in panels])
        groups = [group for panel in panels for group in panel.groups]
        scores |= {prefix + name: round(value, 4) for name, value in values(whole).items()}
        spread |= {prefix + name: list(pair) for name, pair in intervals(whole, groups).items()}
    return {"pooled": scores, "intervals": spread}


def _announcements(
    held_out: HeldOut, fold: int, spec: DecisionSpec
) -> tuple[Tally, NDArray[np.float64]]:
    """Score a fold's announcements; and the seconds until each recording's first."""
    streams = _there(held_out.streams).of(held_out.fold == fold)
    course = follow(streams, spec)
    return streaming_tally(streams, course), decided_s(streams, course)


def _presences(
    held_out: HeldOut, fold: int, spec: DecisionSpec
) -> tuple[Tally, NDArray[np.float64]]:
    """Score a fold's presences; mixtures have no first announcement."""
    recordings = np.flatnonzero(held_out.fold == fold)
    windows = held_out.fold[held_out.answers.owner] == fold
    owner = np.searchsorted(recordings, held_out.answers.owner[windows])
    present = _there(held_out.answers.presence)[windows] >= np.array(spec.presence_thresholds)
    truly = held_out.window_target[windows] > 0
    tally = presence_tally(present, truly, owner, len(recordings))
    if spec.proportion_margin is not None:
        tally["interval_coverage"] = _covered(held_out, recordings, spec, spec.proportion_margin)
    return tally, np.empty(0)


def _covered(
    held_out: HeldOut, recordings: NDArray[np.intp], spec: DecisionSpec, margin: float
) -> Ratio:
    """Count the components that would be published, and those within `margin` of the truth."""
    answers = held_out.answers
    hits, counts = np.zeros(len(recordings)), np.zeros(len(recordings))
    for number, recording in enumerate(recordings):
        rows = answers.owner == recording
        errors = published_errors(
            _there(answers.proportions)[rows],
            _there(answers.presence)[rows],
            answers.owner[rows],
            held_out.target,
            spec,
        )
        hits[number], counts[number] = (errors <= margin).sum(), len(errors)
    return Ratio(hits, counts)


def _there(value: T | None) -> T:
    if value is None:
        raise HeldOutError(
            "The held-out answers are of another task than the model. Name the run folder of its "
            "own cross-validation."
        )
    return value


def _neutral_presence(data: Dataset) -> tuple[float, ...]:
    return (_DEFAULT_PRESENCE,) * len(data.labels) if data.task == "mixture" else ()


def _protocol(data: Dataset) -> str:
    if data.task == "substance":
        return "grouped 5-fold, one recording of every substance held out; w=100, stride 50"
    return (
        "5-fold, component sets held out, single substances always trained on; "
        "first 60 s, w=100, stride 50; recordings whose rows are out of time order are scored "
        "apart (permuted_*)"
    )


def _over(rows: list[dict[str, Any]], statistic: Callable[..., Any]) -> dict[str, float]:
    names = [
        name
        for name in rows[0]
        if name not in ("fold", "windows", "recordings", "seconds", "scoring_seconds")
    ]
    return {name: round(float(statistic([row[name] for row in rows])), 4) for name in names}
