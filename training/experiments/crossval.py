"""training/: grouped cross-validation: train on some recordings, score int8 on others.

Every fold is trained, quantised, written as a bundle, loaded again and scored on its held-out
recordings: as they are, as another board would record them, and streamed through the decision
layer. The same outputs set the decision constants, which must not be fitted on training data.
Imports torch only while it runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.decision_spec import DecisionSpec
from training.data.dataset import N_FOLDS, folds_of
from training.engines import SERIAL
from training.evaluation.auroc import descriptor_report
from training.evaluation.decision_fit import fit_fold_constants
from training.evaluation.held_out import HELD_OUT, HeldOut, concatenate_held_out
from training.evaluation.intervals import pool_tallies, scores_with_intervals
from training.evaluation.mixture_fit import DEFAULT_PRESENCE, published_errors
from training.evaluation.network_outputs import (
    measure_space,
    run_network,
    score_bundle,
    tally_bundle,
)
from training.evaluation.open_set import find_open_set
from training.evaluation.scoring import (
    WITHIN,
    Ratio,
    Tally,
    mean_per_recording,
    mixture_tally,
    presence_tally,
    total_scores,
)
from training.evaluation.sessions import OTHER_BOARD, OTHER_SESSION, other_sessions
from training.evaluation.storage import CROSSVAL_REPORT, write_json
from training.evaluation.streaming import (
    first_announcement_s,
    median_announcement_s,
    stream_recordings,
    streaming_tally,
    trace_folds,
)
from training.experiments.runner import SUBSTANCE_PROTOCOL, report_head, train_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.engines import Engine
    from training.evaluation.open_set import OpenSetFold

ROBUST = ("top1", "recording_top1", "within_01", "top_k")
"""Scores that are given for simulated other sessions too."""

_MIXTURE_PROTOCOL = (
    "5-fold, component sets held out, single substances always trained on; "
    "first 60 s, w=100, stride 50; recordings whose rows are out of time order are scored "
    "apart (permuted_*)"
)


class GroupedTally(NamedTuple):
    """Scores over some recordings, and the group of each."""

    tally: Tally
    groups: tuple[str, ...]


class FoldResult(NamedTuple):
    """The scores of one fold for the report, its tallies and its network's outputs.

    Tallies by the prefix of their names: "" for the held-out recordings, "robust_" and "board_"
    for their simulated sessions, "constant_" and "permuted_" for mixtures.
    """

    row: dict[str, Any]
    tallies: dict[str, GroupedTally]
    held_out: HeldOut


def cross_validate(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    folds: Sequence[int] = range(N_FOLDS),
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
    engine: Engine = SERIAL,
) -> dict[str, Any]:
    """Cross-validate a configuration and write the report and the held-out outputs to `folder`.

    Finished folds and checkpoints in `folder` are used again. The report has the scores of each
    fold with their mean and standard deviation; the same scores over the recordings of all folds
    together (`pooled`) with 95 % bootstrap intervals over recordings (`intervals`); the scores of
    the decision layer (`decision`). `on_step` is called with fold, step and loss. The folds run on
    `engine`.
    """
    follow = engine.follow(on_step)
    calls = [partial(_run_fold, config, data, fold, folder, device, follow) for fold in folds]
    results = list(engine.in_order(calls))
    rows = [result.row for result in results]
    held_out = concatenate_held_out([result.held_out for result in results])
    held_out.save(folder / HELD_OUT)
    protocol = SUBSTANCE_PROTOCOL if data.task == "substance" else _MIXTURE_PROTOCOL
    report = {
        **report_head(config, data, protocol),
        "oddities": data.oddities,
        "folds": rows,
        "mean": _over_folds(rows, np.mean),
        "sd": _over_folds(rows, np.std),
        **_pool([result.tallies for result in results]),
        "descriptors": descriptor_scores(held_out, data.labels),
        "decision": decision_report(held_out, find_open_set(folder)),
    }
    write_json(folder / CROSSVAL_REPORT, report)
    return report


def decision_report(
    held_out: HeldOut, open_set: Sequence[OpenSetFold] = (), other: HeldOut | None = None
) -> dict[str, Any]:
    """Score the decision layer: every fold with constants fitted on the other folds and `other`.

    Substances: announcements by seconds and the time they take. Mixtures: presence at the
    fitted thresholds, as F1, sensitivity and specificity, and the coverage of the components'
    intervals. Empty with fewer than two folds: there is nothing to fit on.
    """
    specs = fit_fold_constants(held_out, open_set, other)
    if not specs:
        return {}
    streams = held_out.streams
    if streams is None:
        report = scores_with_intervals(_tally_presences(held_out, specs), held_out.groups)
    else:
        trace = trace_folds(streams, held_out.fold, specs)
        report = scores_with_intervals(streaming_tally(streams, trace), held_out.groups)
        median, interval = median_announcement_s(first_announcement_s(streams, trace))
        report["scores"]["median_decision_s"] = round(median, 4)
        report["intervals"]["median_decision_s"] = list(interval)
    constants = {str(fold): dataclasses.asdict(spec) for fold, spec in specs.items()}
    return {**report, "constants": constants}


def best_constant(target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the constant prediction (a share per label) with the best within-0.1 on `target`.

    Searched among the mean and all pairs of labels in shares of tenths: more than two
    components of a constant cannot both be near the shares that occur.
    """
    truly = target > 0
    weight = truly / truly.sum(axis=1, keepdims=True)
    shares = np.arange(0, 11) / 10
    # How much of within-0.1 label k alone earns with share s.
    worth = np.stack([((np.abs(s - target) < WITHIN - 1e-6) * weight).mean(axis=0) for s in shares])
    best: NDArray[np.float64] = target.mean(axis=0).astype(np.float64)
    best_worth = float(((np.abs(best - target) < WITHIN) * weight).sum(axis=1).mean())
    for first, second in itertools.combinations(range(target.shape[1]), 2):
        for number, share in enumerate(shares):
            total = worth[number, first] + worth[10 - number, second]
            if total > best_worth:
                best_worth = float(total)
                best = np.zeros(target.shape[1])
                best[first], best[second] = share, 1 - share
    return best


def _run_fold(
    config: TrainConfig,
    data: Dataset,
    fold: int,
    folder: Path,
    device: str,
    on_step: Callable[[int, int, float], None],
) -> FoldResult:
    """Train without one fold's recordings and score the int8 bundle on them."""
    started_s = time.monotonic()
    fold_of = folds_of(data)
    train, test = data.subset(fold_of != fold), data.subset(fold_of == fold)
    if config.in_order_only:
        train = train.drop_unordered()
    permuted = test.subset(np.array([not sample.in_order for sample in test.samples]))
    test = test.drop_unordered()
    presence = (DEFAULT_PRESENCE,) * len(data.labels) if data.task == "mixture" else ()
    bundle = train_bundle(
        config, train, folder / f"fold-{fold}", f"scent-train crossval (fold {fold})",
        decision=DecisionSpec(presence_thresholds=presence),
        device=device, on_step=partial(on_step, fold),
    )  # fmt: skip
    trained_s = time.monotonic()
    outputs = run_network(bundle, test)
    tallies = {"": GroupedTally(tally_bundle(bundle, test, outputs), _groups(test))}
    for prefix, spread in (("robust_", OTHER_SESSION), ("board_", OTHER_BOARD)):
        sessions = other_sessions(test, bundle.manifest.preprocessing.channels, spread)
        scores = _tally(bundle, sessions)
        chosen = {name: scores.tally[name] for name in ROBUST if name in scores.tally}
        tallies[prefix] = GroupedTally(chosen, scores.groups)
    if data.task == "mixture":
        tallies["constant_"] = _tally_constant(train, test, outputs.owner)
    if permuted.samples:
        tallies["permuted_"] = _tally(bundle, permuted)
    streams = None
    if data.task == "substance":
        streams = stream_recordings(bundle, test.samples).with_novelty(measure_space(bundle, train))
        # Only the novelty is needed further on; the embeddings would be ten megabytes.
        streams = dataclasses.replace(streams, embedding=None)
    row: dict[str, Any] = {"fold": fold, **score_bundle(bundle, test, outputs)}
    for prefix, grouped in tallies.items():
        row |= {prefix + name: value for name, value in total_scores(grouped.tally).items()}
    row["seconds"] = round(trained_s - started_s, 1)
    row["scoring_seconds"] = round(time.monotonic() - trained_s, 1)
    names, fold_numbers = tuple(s.name for s in test.samples), np.full(len(test.samples), fold)
    held_out = HeldOut(names, _groups(test), fold_numbers, test.targets, outputs, streams)
    return FoldResult(row, tallies, held_out)


def _groups(data: Dataset) -> tuple[str, ...]:
    return tuple(sample.group for sample in data.samples)


def _tally(bundle: Bundle, data: Dataset) -> GroupedTally:
    return GroupedTally(tally_bundle(bundle, data, run_network(bundle, data)), _groups(data))


def _tally_constant(train: Dataset, test: Dataset, owner: NDArray[np.int64]) -> GroupedTally:
    """Score the best constant prediction, chosen on the training recordings."""
    multiple = train.targets[(train.targets > 0).sum(axis=1) > 1]
    constant = np.broadcast_to(best_constant(multiple), (len(owner), multiple.shape[1]))
    scores = mixture_tally(constant, constant > 0, test.targets[owner], owner, len(test.samples))
    return GroupedTally(scores, _groups(test))


def _pool(folds: list[dict[str, GroupedTally]]) -> dict[str, Any]:
    """Return the scores over the recordings of all folds together, and their intervals."""
    scores: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for prefix in dict.fromkeys(prefix for tallies in folds for prefix in tallies):
        parts = [tallies[prefix] for tallies in folds if prefix in tallies]
        groups = [group for part in parts for group in part.groups]
        pooled = scores_with_intervals(pool_tallies([part.tally for part in parts]), groups)
        scores |= {prefix + name: value for name, value in pooled["scores"].items()}
        intervals |= {prefix + name: pair for name, pair in pooled["intervals"].items()}
    return {"pooled": scores, "intervals": intervals}


def descriptor_scores(held_out: HeldOut, labels: tuple[str, ...]) -> dict[str, Any]:
    """Score the odour descriptors of held-out recordings; empty without that head."""
    outputs = held_out.outputs
    if outputs.descriptors is None:
        return {}
    predicted = mean_per_recording(outputs.descriptors, outputs.owner, len(held_out.names))
    return descriptor_report(predicted, held_out.target.argmax(axis=1), labels)


def _tally_presences(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> Tally:
    """Count the presences of mixtures, and the coverage of their intervals, by each fold's spec."""
    outputs, recordings = held_out.outputs, len(held_out.names)
    proportions, presence = outputs.require("proportions"), outputs.require("presence")
    spec_of = [specs[int(fold)] for fold in held_out.fold]
    thresholds = np.array([spec.presence_thresholds for spec in spec_of])[outputs.owner]
    truly = held_out.window_target > 0
    tally = presence_tally(presence >= thresholds, truly, outputs.owner, recordings)
    covered, published = np.zeros((2, recordings))
    for recording, spec in enumerate(spec_of):
        if spec.proportion_margin is not None:
            rows = outputs.owner == recording
            errors = published_errors(
                proportions[rows], presence[rows], outputs.owner[rows], held_out.target, spec
            )
            covered[recording] = (errors <= spec.proportion_margin).sum()
            published[recording] = len(errors)
    return tally | ({"interval_coverage": Ratio(covered, published)} if published.any() else {})


def _over_folds(
    rows: list[dict[str, Any]], statistic: Callable[[list[float]], np.floating[Any]]
) -> dict[str, float]:
    """Return a statistic of every score over the folds that have it."""
    others = ("fold", "windows", "recordings", "seconds", "scoring_seconds")
    names = dict.fromkeys(name for row in rows for name in row if name not in others)
    return {
        name: round(float(statistic([row[name] for row in rows if name in row])), 4)
        for name in names
    }
