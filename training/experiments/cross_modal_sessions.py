"""training/: each cross-modal switch judged on other sessions and on labels never trained on.

Inside a session nothing is left to gain, so there a second modality cannot show what it is worth.
Here a network of each switch and seed names recordings of sessions that were held out, and networks
without every fifth label are asked about those. May import torch through `training.fit`.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.embedding_space import unit_rows
from training.config import non_default_settings
from training.data.protocol_windows import cut_windows
from training.data.sessions import session_folds
from training.data.substance_tables import read_substance_tables
from training.evaluation.intervals import percentile_interval, resample_counts
from training.evaluation.scoring import mean_per_recording
from training.evaluation.storage import write_json
from training.experiments.cross_modal import (
    PLAIN,
    SWITCHES,
    descriptor_extras,
    hidden_substances,
    matching_extras,
    predict,
    split_recordings,
    with_switch,
)
from training.experiments.few_shot import teach_and_test
from training.experiments.runner import (
    BATCH,
    FoldPredictions,
    hash_inputs,
    load_or_compute,
    render_markdown_table,
    run_in_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.fit import TrainedNetwork

REPORT = "cross_modal_sessions.json"
PREDICTIONS = "cross_modal_sessions"
UNSEEN_FOLDS = (0, 1)
"""Folds of labels that are left out, ten of fifty each."""
RANKS = (1, 3)

_HEAD = (
    "switch | other session Top-1 | Top-3 (95 %) | 1 / rank, against none (95 %) | further "
    "sessions Top-3 | never trained, taught once | s a training | also"
)
_ROW = (
    "{name} | {top1:.2f} | {top3:.2f} ({low:.2f} to {high:.2f}) | {delta:+.3f} ({delta_low:+.3f} "
    "to {delta_high:+.3f}) | {also_top3} | {taught:.2f} | {seconds:.0f} | {also}"
)


@dataclass(frozen=True, slots=True)
class SessionTraining:
    """One training: of a switch and a seed, without a fold of sessions, or of labels (unseen)."""

    switch: str
    seed: int
    fold: int
    unseen: bool

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{'unseen' if self.unseen else 'sessions'}-{self.fold}-seed-{self.seed}"


def list_session_trainings(
    data: Dataset, names: Sequence[str], seeds: Iterable[int]
) -> list[SessionTraining]:
    """List the trainings of every seed, `none` first."""
    folds = range(len(session_folds(data)))
    return [
        SessionTraining(name, seed, fold, unseen)
        for seed in seeds
        for name in dict.fromkeys((PLAIN, *names))
        for unseen, chosen in ((False, folds), (True, UNSEEN_FOLDS))
        for fold in chosen
    ]


def run_session_training(
    training: SessionTraining,
    config: TrainConfig,
    data: Dataset,
    also: Dataset | None,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> FoldPredictions:
    """Train a network and return its predictions for the recordings it is judged on.

    Those are the recordings of the held-out sessions and of `also`, or those of the labels that
    were left out and of their fold. Stored predictions of the same training are read instead.
    """
    from training.fit import train_network  # noqa: PLC0415 - torch

    own = dataclasses.replace(with_switch(config, training.switch), seed=training.seed)
    tables = read_substance_tables(own.cross_modal, data).sha256 if own.cross_modal else ""
    both = joined(data, also)
    identity = hash_inputs([non_default_settings(own), both.sha256, tables, training.name])
    path = folder / PREDICTIONS / training.switch / f"{training.name}.npz"
    checkpoint = path.with_name(f"{training.name}-{identity[:12]}")

    def compute() -> FoldPredictions:
        train, test = split_session_training(training, data, both)
        started_s = time.monotonic()
        fitted = train_network(
            own, both.subset(train), folder=checkpoint, device=device, on_step=on_step
        )
        found = predict(fitted, both, test, round(time.monotonic() - started_s, 1))
        if training.unseen:
            hidden = np.isin(both.targets.argmax(axis=1), hidden_substances(data, training.fold))
            found.extras["taught"] = _teach_once(fitted, both.subset(test & hidden))
        shutil.rmtree(checkpoint)
        return found

    return load_or_compute(path, identity, FoldPredictions.read, compute)


def joined(data: Dataset, also: Dataset | None) -> Dataset:
    """Return both data sets as one, `data` first."""
    if also is None:
        return data
    return dataclasses.replace(data, samples=(*data.samples, *also.samples))


def split_session_training(
    training: SessionTraining, data: Dataset, both: Dataset
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what is trained on and what is judged, bool[recordings of both]."""
    further = len(both.samples) - len(data.samples)
    if training.unseen:
        train, test = split_recordings(data, training)
    else:
        fold = session_folds(data)[training.fold]
        train, test = fold.train, fold.test
    judged = np.full(further, not training.unseen)
    return np.append(train, np.zeros(further, bool)), np.append(test, judged)


def _teach_once(fitted: TrainedNetwork, hidden: Dataset) -> NDArray[np.float64]:
    """Teach each left-out label from one recording, test on the others: right and tested.

    Nearest class mean by the cosine from the mean embedding, the method of `few_shot`.
    """
    windows = cut_windows(hidden.samples, fitted.spec)
    embedding = run_in_batches(fitted.network, windows, BATCH)[1].double().numpy()
    points = unit_rows(embedding - embedding.mean(axis=0))
    truth = hidden.targets.argmax(axis=1)
    order = np.zeros(len(truth), dtype=int)
    for label in np.unique(truth):
        order[truth == label] = np.arange((truth == label).sum())
    counts = np.zeros(2)
    for number in np.unique(order):
        tally, _ = teach_and_test(points, windows.owner, truth, order == number)
        score = tally["recording_top1"]
        counts += score.gained.sum(), score.possible.sum()
    return counts


def session_row(
    name: str,
    config: TrainConfig,
    data: Dataset,
    runs: Mapping[SessionTraining, FoldPredictions],
) -> dict[str, Any]:
    """Return a switch's row of the table.

    Scores of a recording are means over seeds (and, for further sessions, over the networks that
    were asked); intervals are 95 % bootstrap intervals over recordings, and of differences paired.
    """
    ranks, base = _mean_ranks(name, runs), _mean_ranks(PLAIN, runs)
    own = sorted(row for row in ranks if row < len(data.samples))
    further = sorted(row for row in ranks if row >= len(data.samples))
    weights = resample_counts(len(own)).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    listed = np.array([np.mean(ranks[row] < RANKS[1]) for row in own])
    difference = np.array(
        [np.mean(1 / (1 + ranks[row])) - np.mean(1 / (1 + base[row])) for row in own]
    )
    unseen = {t: one for t, one in runs.items() if t.switch == name and t.unseen}
    taught = np.sum([one.extras["taught"] for one in unseen.values()], axis=0)
    low, high = percentile_interval(weights @ listed)
    delta_low, delta_high = percentile_interval(weights @ difference)
    row: dict[str, Any] = {
        "name": name,
        "seeds": sorted({t.seed for t in runs}),
        "recordings": len(own),
        "further": len(further),
        "top1": round(float(np.mean([np.mean(ranks[k] < RANKS[0]) for k in own])), 4),
        "top3": round(float(listed.mean()), 4),
        "low": low,
        "high": high,
        "delta": round(float(difference.mean()), 4),
        "delta_low": delta_low,
        "delta_high": delta_high,
        "taught": round(float(taught[0] / taught[1]), 4),
        "seconds": round(
            float(np.mean([one.seconds for t, one in runs.items() if t.switch == name])), 1
        ),
    }
    if further:
        row["also_top3"] = round(float(np.mean([np.mean(ranks[k] < RANKS[1]) for k in further])), 4)
    return {**row, "extras": _extras(name, config, data, unseen)}


def _mean_ranks(
    name: str, runs: Mapping[SessionTraining, FoldPredictions]
) -> dict[int, NDArray[np.int64]]:
    """Return, by recording, the rank of the true label in each network that was asked."""
    ranks: dict[int, list[int]] = {}
    for training, one in runs.items():
        if training.switch != name or training.unseen:
            continue
        means = mean_per_recording(one.log_probabilities, one.owner, len(one.truth))
        place = (means > means[np.arange(len(means)), one.truth][:, None]).sum(axis=1)
        for recording, rank in zip(one.recordings.tolist(), place.tolist(), strict=True):
            ranks.setdefault(recording, []).append(rank)
    return {recording: np.array(found) for recording, found in ranks.items()}


def _extras(
    name: str,
    config: TrainConfig,
    data: Dataset,
    unseen: Mapping[SessionTraining, FoldPredictions],
) -> dict[str, float]:
    """Return what only some switches say of labels never trained on, as means over seeds."""
    settings = SWITCHES[name]
    found: dict[str, list[float]] = {}
    for seed in sorted({t.seed for t in unseen}):
        by_fold = {t.fold: one for t, one in unseen.items() if t.seed == seed}
        extras: dict[str, Any] = {}
        if settings and settings.descriptors:
            extras |= descriptor_extras(config, data, {}, by_fold)
        if settings and settings.signed:
            extras |= matching_extras(data, {}, by_fold)
        for key, value in extras.items():
            if isinstance(value, float):
                found.setdefault(key, []).append(value)
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}


def write_session_report(
    folder: Path, config: TrainConfig, data: Dataset, rows: Sequence[dict[str, Any]]
) -> Path:
    """Write the rows, with the settings that make them comparable."""
    report = {
        "protocol": "whole sessions held out; labels never trained on: ten of fifty, twice",
        "model": config.name,
        "steps": config.optimiser.steps,
        "data_sha256": data.sha256,
        "rows": list(rows),
    }
    return write_json(folder / REPORT, report)


def session_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of the rows."""
    lines = []
    for row in rows:
        also = ", ".join(f"{key.replace('_', ' ')} {v:.2f}" for key, v in row["extras"].items())
        further = f"{row['also_top3']:.2f}" if "also_top3" in row else ""
        lines.append(_ROW.format(**row | {"also": also, "also_top3": further}))
    return render_markdown_table(_HEAD, lines)
