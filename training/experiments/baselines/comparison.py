"""training/: baselines on the folds of the cross-validation, resumable, scored with intervals.

Knows folds, files of answers and scores; nothing of how a baseline works. What a baseline says
of a fold's recordings is kept in one file per model and fold, so that a comparison that was cut
off goes on, and other folds can be added later.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.dataset import substance_folds
from training.evaluation.intervals import Interval, intervals
from training.evaluation.scoring import substance_tally, values
from training.evaluation.stored_answers import keep, kept, write_json
from training.experiments.baselines.inputs import INPUTS, labelled_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.experiments.baselines.registry import BaselineEntry

REPORT = "compare.json"
ANSWERS = "compare"
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class FoldAnswers:
    """What a baseline, trained on the other folds, said of one fold's recordings.

    Attributes
    ----------
    log_probabilities: float64[windows, labels].
    owner: int[windows], recordings counted over the whole data set.
    truth: int[windows].
    seconds: that training and answering took, on whatever machine it was.
    parameters: numbers that training chose.
    """

    log_probabilities: NDArray[np.float64]
    owner: NDArray[np.int64]
    truth: NDArray[np.int64]
    seconds: float
    parameters: int


def compare(
    data: Dataset,
    entries: Sequence[BaselineEntry],
    folds: Sequence[int],
    folder: Path,
    *,
    jobs: int = 1,
) -> Iterator[tuple[BaselineEntry, int, FoldAnswers]]:
    """Train and ask every baseline on every fold, yielding each as it is done.

    Answers in `folder` of the same data and the same baseline are read instead.
    """
    for entry in entries:
        for fold in folds:
            path = folder / ANSWERS / entry.name / f"fold-{fold}.npz"
            key = _identity(data, entry, fold)
            answers = _stored(path, key)
            if answers is None:
                answers = held_out(data, entry, fold, jobs=jobs)
                keep(
                    path,
                    key,
                    {
                        item.name: getattr(answers, item.name)
                        for item in dataclasses.fields(answers)
                    },
                )
            yield entry, fold, answers


def held_out(data: Dataset, entry: BaselineEntry, fold: int, *, jobs: int = 1) -> FoldAnswers:
    """Train a baseline without a fold's recordings and ask it about them."""
    started_s = time.monotonic()
    fold_of = substance_folds(data)
    spec = INPUTS[entry.inputs]
    model = entry.make(len(data.labels), seed=SEED, jobs=jobs)
    train = labelled_windows(data.subset(fold_of != fold), spec, model.train_stride)
    test = labelled_windows(data.subset(fold_of == fold), spec)
    model.fit(train.x, train.label)
    return FoldAnswers(
        model.log_probabilities(test.x),
        np.flatnonzero(fold_of == fold)[test.owner],
        test.label,
        round(time.monotonic() - started_s, 1),
        model.parameters,
    )


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of `substance_tally`, and their 95 % intervals over recordings."""

    value: dict[str, float]
    interval: dict[str, Interval]


def scored(
    log_probabilities: NDArray[np.float64],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
    groups: Sequence[str] | None = None,
) -> Scores:
    """Score windows of some recordings of a data set.

    Parameters
    ----------
    log_probabilities: float[windows, labels].
    owner: int[windows], numbers of recordings; those without a window are no part of the score.
    truth: int[windows], the same for all windows of a recording.
    groups: per recording that has windows, in ascending order, what it is resampled with.
    """
    _, first, number = np.unique(owner, return_index=True, return_inverse=True)
    tally = substance_tally(log_probabilities, number, truth[first])
    return Scores(values(tally), intervals(tally, groups, seed=SEED))


def row(entry: BaselineEntry, answers: dict[int, FoldAnswers]) -> dict[str, Any]:
    """Return a baseline's line of the table: shares over all windows of all its folds.

    `seconds` is the mean over folds; `*_low` and `*_high` are 95 % bootstrap intervals over
    recordings.
    """
    parts = list(answers.values())
    scores = scored(
        np.concatenate([part.log_probabilities for part in parts]),
        np.concatenate([part.owner for part in parts]),
        np.concatenate([part.truth for part in parts]),
    )
    (top1_low, top1_high), (low, high) = scores.interval["top1"], scores.interval["recording_top1"]
    result = {
        "top1": scores.value["top1"],
        "top1_low": top1_low,
        "top1_high": top1_high,
        "top5": scores.value["top5"],
        "macro_f1": scores.value["macro_f1"],
        "recording_top1": scores.value["recording_top1"],
        "recording_low": low,
        "recording_high": high,
    }
    return {
        "name": entry.name,
        "kind": entry.kind,
        "inputs": entry.inputs,
        "folds": sorted(answers),
        **{name: round(value, 4) for name, value in result.items()},
        "seconds": round(float(np.mean([part.seconds for part in parts])), 1),
        "parameters": round(float(np.mean([part.parameters for part in parts]))),
    }


def write_report(folder: Path, data: Dataset, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the rows, with what makes them comparable, to `compare.json`."""
    report = {
        "protocol": "grouped 5-fold, one recording of every substance held out; w=100, stride 50",
        "intervals": "95 % bootstrap over recordings",
        "inputs": {name: dataclasses.asdict(spec) for name, spec in INPUTS.items()},
        "seed": SEED,
        "data_sha256": data.sha256,
        "rows": list(rows),
    }
    return write_json(folder / REPORT, report)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for a reader."""
    lines = [
        "| model | inputs | folds | Top-1 (95 %) | Top-5 | recording Top-1 (95 %) | s a fold "
        "| parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['kind']} (`{row['name']}`) | {row['inputs']} | "
        f"{', '.join(map(str, row['folds']))} | "
        f"{row['top1']:.3f} ({row['top1_low']:.3f} to {row['top1_high']:.3f}) | "
        f"{row['top5']:.3f} | "
        f"{row['recording_top1']:.3f} ({row['recording_low']:.3f} to {row['recording_high']:.3f})"
        f" | {row['seconds']:.0f} | {row['parameters']:,} |"
        for row in rows
    ]
    return "\n".join(lines)


def _identity(data: Dataset, entry: BaselineEntry, fold: int) -> str:
    settings = [data.sha256, entry.name, INPUTS[entry.inputs], entry.make, SEED, fold]
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _stored(path: Path, key: str) -> FoldAnswers | None:
    arrays = kept(path, key)
    if arrays is None:
        return None
    return FoldAnswers(
        arrays["log_probabilities"],
        arrays["owner"],
        arrays["truth"],
        float(arrays["seconds"]),
        int(arrays["parameters"]),
    )
