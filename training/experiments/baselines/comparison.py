"""training/: baselines on the folds of the cross-validation, resumable, scored with intervals.

Knows folds, stored predictions and scores; nothing of how a baseline works. There is one file of
predictions per model and fold, so that an interrupted comparison resumes and other folds can be
added later.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.dataset import substance_folds
from training.engines import SERIAL
from training.evaluation.intervals import pool_tallies, score_intervals
from training.evaluation.scoring import total_scores
from training.evaluation.storage import write_json
from training.experiments.baselines.inputs import INPUTS, cut_input_windows
from training.experiments.runner import (
    SUBSTANCE_PROTOCOL,
    FoldPredictions,
    hash_inputs,
    load_or_compute,
    render_markdown_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from training.data.dataset import Dataset
    from training.engines import Engine
    from training.experiments.baselines.registry import BaselineEntry

REPORT = "compare.json"
PREDICTIONS = "compare"
SEED = 0

_TABLE_HEAD = (
    "model | inputs | folds | Top-1 (95 %) | Top-5 | recording Top-1 (95 %) | s a fold | parameters"
)
_TABLE_ROW = (
    "{kind} (`{name}`) | {inputs} | {folds} | {top1:.3f} ({top1_low:.3f} to {top1_high:.3f}) | "
    "{top5:.3f} | {recording_top1:.3f} ({recording_low:.3f} to {recording_high:.3f}) | "
    "{seconds:.0f} | {parameters:,}"
)


def compare_baselines(
    data: Dataset,
    entries: Sequence[BaselineEntry],
    folds: Sequence[int],
    folder: Path,
    *,
    jobs: int = 1,
    engine: Engine = SERIAL,
) -> Iterator[tuple[BaselineEntry, int, FoldPredictions]]:
    """Train and test every baseline on every fold, yielding each as it is done.

    They run on `engine`, each on `jobs` processor cores. Predictions in `folder` of the same data
    and the same baseline are read instead.
    """
    wanted = [(entry, fold) for entry in entries for fold in folds]
    calls = [partial(_stored_fold, data, entry, fold, folder, jobs) for entry, fold in wanted]
    for (entry, fold), part in zip(wanted, engine.in_order(calls), strict=True):
        yield entry, fold, part


def _stored_fold(
    data: Dataset, entry: BaselineEntry, fold: int, folder: Path, jobs: int
) -> FoldPredictions:
    path = folder / PREDICTIONS / entry.name / f"fold-{fold}.npz"
    spec = INPUTS[entry.inputs]
    identity = hash_inputs([data.sha256, entry.name, spec, entry.make, SEED, int(fold)])
    compute = partial(predict_fold, data, entry, fold, jobs=jobs)
    return load_or_compute(path, identity, FoldPredictions.read, compute)


def predict_fold(
    data: Dataset, entry: BaselineEntry, fold: int, *, jobs: int = 1
) -> FoldPredictions:
    """Train a baseline without a fold's recordings and run it on them.

    `parameters` in the extras: how many numbers training chose.
    """
    started_s = time.monotonic()
    held_out = substance_folds(data) == fold
    spec = INPUTS[entry.inputs]
    model = entry.make(len(data.labels), seed=SEED, jobs=jobs)
    truth = data.targets.argmax(axis=1)
    train = cut_input_windows(data.subset(~held_out), spec, entry.train_stride)
    test = cut_input_windows(data.subset(held_out), spec)
    model.fit(train.x, truth[~held_out][train.owner])
    return FoldPredictions(
        recordings=np.flatnonzero(held_out),
        truth=truth[held_out],
        owner=test.owner,
        log_probabilities=model.log_probabilities(test.x),
        seconds=round(time.monotonic() - started_s, 1),
        extras={"parameters": np.array(model.parameters)},
    )


def baseline_row(entry: BaselineEntry, folds: Mapping[int, FoldPredictions]) -> dict[str, Any]:
    """Return a baseline's row of the table: shares over all windows of all its folds.

    `seconds` is the mean over folds; `*_low` and `*_high` are 95 % bootstrap intervals over
    recordings.
    """
    parts = list(folds.values())
    tally = pool_tallies([part.tally() for part in parts])
    # The bootstrap draws recordings in the order of the data set, whatever that of the folds.
    groups = [f"{number:09}" for part in parts for number in part.recordings]
    scores, intervals = total_scores(tally), score_intervals(tally, groups, seed=SEED)
    (top1_low, top1_high), (low, high) = intervals["top1"], intervals["recording_top1"]
    return {
        "name": entry.name,
        "kind": entry.kind,
        "inputs": entry.inputs,
        "folds": sorted(folds),
        "top1": round(scores["top1"], 4),
        "top1_low": top1_low,
        "top1_high": top1_high,
        "top5": round(scores["top5"], 4),
        "macro_f1": round(scores["macro_f1"], 4),
        "recording_top1": round(scores["recording_top1"], 4),
        "recording_low": low,
        "recording_high": high,
        "seconds": round(float(np.mean([part.seconds for part in parts])), 1),
        "parameters": round(float(np.mean([part.extras["parameters"] for part in parts]))),
    }


def write_baseline_report(folder: Path, data: Dataset, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the rows, with the settings that make them comparable, to `compare.json`."""
    report = {
        "protocol": SUBSTANCE_PROTOCOL,
        "intervals": "95 % bootstrap over recordings",
        "inputs": {name: dataclasses.asdict(spec) for name, spec in INPUTS.items()},
        "seed": SEED,
        "data_sha256": data.sha256,
        "rows": list(rows),
    }
    return write_json(folder / REPORT, report)


def baseline_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of the rows."""
    folds = (", ".join(map(str, row["folds"])) for row in rows)
    lines = (_TABLE_ROW.format(**row | {"folds": f}) for row, f in zip(rows, folds, strict=True))
    return render_markdown_table(_TABLE_HEAD, lines)
