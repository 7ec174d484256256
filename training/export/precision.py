"""training/: the cost of int8: float32, dynamic int8 and static int8 on held-out recordings.

Runs the float32 files of a cross-validation's fold bundles, quantised again each way with
calibration windows of that fold's own training recordings. Needs no torch network.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import UsageError
from models.bundle import Bundle, open_session
from models.manifest import FP32_MODEL, MANIFEST, read_manifest, read_verified
from training.data.protocol_windows import cut_windows
from training.evaluation.intervals import percentile_interval, pool_tallies, resample_counts
from training.evaluation.network_outputs import run_network, tally_bundle
from training.evaluation.scoring import total_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.evaluation.scoring import Tally

LARGEST_LOSS = 0.005
"""Of the headline score by int8, as a share of 1: half a point."""
HEADLINE = {"substance": "top1", "mixture": "within_01"}
PRECISIONS = ("fp32", "dynamic", "static")
WARM_UP = 10


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionScores:
    """One way of running the network, over all folds that were scored.

    Attributes
    ----------
    tally: its scores over the held-out recordings.
    size_mb: of a file.
    p50_ms, p99_ms: of one window on one thread.
    """

    tally: Tally
    size_mb: float
    p50_ms: float
    p99_ms: float


def compare_precisions(
    run_folder: Path,
    data: Dataset,
    fold_of: NDArray[np.int64],
    folds: Sequence[int],
    *,
    max_samples: int | None = None,
    timed: int = 200,
    on_fold: Callable[[int], None] = lambda _fold: None,
) -> dict[str, PrecisionScores]:
    """Score every kind on the held-out recordings of every fold, and time them.

    Parameters
    ----------
    run_folder: of a cross-validation; holds fold-K/bundle.
    data: the recordings that it was run on.
    fold_of: int[recordings], the fold of each.
    folds: those to score.
    max_samples: samples used of a recording, as in training.
    timed: windows timed of each kind, interleaved so that a noisy machine disturbs all alike.
    on_fold: called with each fold before it is scored.

    Raises
    ------
    UsageError: a fold's bundle is not there, or is one of other recordings.
    """
    from training.export.onnx import quantise  # noqa: PLC0415 - torch

    tallies: dict[str, list[Tally]] = {kind: [] for kind in PRECISIONS}
    models: dict[str, bytes] = {}
    bundles: dict[str, Bundle] = {}
    for fold in folds:
        on_fold(fold)
        train, test = data.subset(fold_of != fold), data.subset(fold_of == fold).drop_unordered()
        folder = run_folder / f"fold-{fold}" / "bundle"
        if not (folder / MANIFEST).is_file():
            raise UsageError(
                f"Expected the bundle of a cross-validation's fold in {folder}, there is none. Run "
                "`scent-train crossval` first, and name its folder with --run."
            )
        manifest = read_manifest(folder)
        model = read_verified(folder, manifest, FP32_MODEL)
        bundles = {"fp32": Bundle(folder, manifest, "fp32", open_session(model))}
        _refuse_trained(bundles["fp32"], test)
        windows = cut_windows(train.samples, manifest.preprocessing, max_samples)
        models = {
            "fp32": model,
            "dynamic": quantise(model, "dynamic"),
            "static": quantise(model, "static", windows),
        }
        for kind in ("dynamic", "static"):
            bundles[kind] = Bundle(folder, manifest, "int8", open_session(models[kind]))
        for kind, bundle in bundles.items():
            tallies[kind].append(tally_bundle(bundle, test, run_network(bundle, test)))
    times = time_interleaved(
        {
            kind: partial(bundle.run, windows.x[:1], windows.mask[:1])
            for kind, bundle in bundles.items()
        },
        timed,
    )
    sizes_mb = {kind: round(len(model) / 1e6, 3) for kind, model in models.items()}
    return {
        kind: PrecisionScores(pool_tallies(tallies[kind]), sizes_mb[kind], *times[kind])
        for kind in PRECISIONS
    }


def _refuse_trained(bundle: Bundle, test: Dataset) -> None:
    seen = [sample.name for sample in test.samples if sample.sha256 in bundle.training_hashes]
    if seen:
        raise UsageError(
            f"{bundle.folder} was trained on recordings that this fold holds out ({seen[0]}, "
            f"{len(seen)} in all), so its figures would mean nothing. Name the --data that "
            "`crossval` was given."
        )


def precision_report(compared: dict[str, PrecisionScores], task: str) -> dict[str, dict[str, Any]]:
    """Return the scores, size and times of each kind, and its loss of the headline score.

    `loss` is positive where float32 is better, with its 95 % interval over resampled recordings:
    both kinds are scored on the same draws, so that their common luck cancels.
    """
    name = HEADLINE[task]
    reference = compared["fp32"].tally[name]
    weights = resample_counts(len(reference.gained)).astype(np.float64)
    rows: dict[str, dict[str, Any]] = {}
    for kind, row in compared.items():
        scores = total_scores(row.tally)
        lost = reference.weighted(weights) - row.tally[name].weighted(weights)
        rows[kind] = {
            **{score: round(value, 4) for score, value in scores.items()},
            "loss": round(total_scores(compared["fp32"].tally)[name] - scores[name], 4),
            "loss_interval": list(percentile_interval(lost)),
            "mb": row.size_mb,
            "p50_ms": row.p50_ms,
            "p99_ms": row.p99_ms,
        }
    return rows


def choose_precision(rows: dict[str, dict[str, Any]]) -> str:
    """Return the fastest kind of int8 within LARGEST_LOSS, else "fp32"."""
    good = [kind for kind in PRECISIONS if kind != "fp32" and rows[kind]["loss"] <= LARGEST_LOSS]
    return min(good, key=lambda kind: float(rows[kind]["p50_ms"]), default="fp32")


def time_interleaved(
    runners: dict[str, Callable[[], object]], runs: int
) -> dict[str, tuple[float, float]]:
    """Return p50 and p99 in milliseconds of calls made in turns."""
    durations: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(runs + WARM_UP):
        for name, call in runners.items():
            started_s = time.perf_counter()
            call()
            if number >= WARM_UP:
                durations[name].append((time.perf_counter() - started_s) * 1e3)
    return {
        name: (round(statistics.median(taken), 3), round(float(np.quantile(taken, 0.99)), 3))
        for name, taken in durations.items()
    }
