"""training/: windows of recordings, and the field's scores of what a network says of them.

numpy only: `evaluate` and `crossval` score int8 networks through ONNX Runtime
with these very functions. The protocol is the published one (window 100, stride
50); sources of the scores: SmellNet, arXiv 2506.00239, and FACTS of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.preprocess import FeatureSegment, PreprocessSpec, batch_features, protocol_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Sample

WITHIN = 0.1
"""A component counts as right when its proportion is off by less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The protocol's windows of some recordings.

    Attributes
    ----------
    x: float32[windows, window, feature].
    mask: float32[windows, window].
    owner: int[windows], the recording each was cut from.
    """

    x: NDArray[np.float32]
    mask: NDArray[np.float32]
    owner: NDArray[np.int64]


def cut_windows(
    samples: Sequence[Sample], spec: PreprocessSpec, max_samples: int | None = None
) -> Windows:
    """Cut every recording by the published protocol; one too short gives one partial window.

    Recordings faster than the model are averaged down to its rate first.
    """
    xs, masks, owner = [], [], []
    for number, sample in enumerate(samples):
        values = _at_rate(sample, spec)[:max_samples]
        segment = batch_features(values, spec)[0]
        x = protocol_windows(segment, spec)
        mask = np.ones(x.shape[:2], dtype=np.float32)
        if not len(x):
            x, mask = _one_partial_window(segment, spec)
        xs.append(x)
        masks.append(mask)
        owner += [number] * len(x)
    return Windows(np.concatenate(xs), np.concatenate(masks), np.array(owner, dtype=np.int64))


def substance_scores(
    log_probabilities: NDArray[np.float64],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> dict[str, float]:
    """Score substances.

    Parameters
    ----------
    log_probabilities: float[windows, labels].
    owner: int[windows], the recording of each window.
    truth: int[recordings], the true label of each recording.

    Returns
    -------
    top1, top5 and macro_f1 over windows (macro over the labels present), and
    recording_top1 by mean log-probability.
    """
    wanted = truth[owner]
    order = np.argsort(-log_probabilities, axis=1, kind="stable")
    predicted = order[:, 0]
    per_recording = [int(log_probabilities[owner == r].mean(axis=0).argmax()) for r in set(owner)]
    return {
        "top1": float((predicted == wanted).mean()),
        "top5": float((order[:, :5] == wanted[:, None]).any(axis=1).mean()),
        "macro_f1": float(np.mean([_f1(predicted == k, wanted == k) for k in np.unique(wanted)])),
        "recording_top1": float(np.mean(per_recording == truth[sorted(set(owner))])),
    }


def mixture_scores(
    proportions: NDArray[np.floating],
    present: NDArray[np.bool_],
    target: NDArray[np.float32],
) -> dict[str, float]:
    """Score mixtures, all arrays [windows, labels].

    Parameters
    ----------
    proportions: predicted shares.
    present: predicted presence, at the manifest's thresholds.
    target: true shares.

    Returns
    -------
    within_01: mean over windows of the fraction of present components with |p - y| < 0.1;
    top_k: pooled share of present components among the K largest predictions, K = number
    present; presence_f1 (micro); mae over all components.
    """
    truly = target > 0
    close = (np.abs(proportions - target) < WITHIN) & truly
    count = truly.sum(axis=1)
    rank = np.argsort(np.argsort(-proportions, axis=1, kind="stable"), axis=1, kind="stable")
    found = (rank < count[:, None]) & truly
    return {
        "within_01": float((close.sum(axis=1) / count).mean()),
        "top_k": float(found.sum() / truly.sum()),
        "presence_f1": _f1(present, truly),
        "mae": float(np.abs(proportions - target).mean()),
    }


def _f1(predicted: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    hits = float((predicted & wanted).sum())
    total = float(predicted.sum() + wanted.sum())
    return 2 * hits / total if total else 0.0


def _at_rate(sample: Sample, spec: PreprocessSpec) -> NDArray[np.float32]:
    factor = max(1, round(sample.rate_hz / spec.rate_hz))
    if factor == 1:
        return sample.values
    whole = len(sample.values) // factor * factor
    groups = sample.values[:whole].reshape(-1, factor, sample.values.shape[1])
    counted = np.isfinite(groups)
    total = np.where(counted, groups, 0).sum(axis=1, dtype=np.float64)
    number = counted.sum(axis=1)
    return np.where(number, total / np.maximum(number, 1), np.nan).astype(np.float32)


def _one_partial_window(
    segment: FeatureSegment, spec: PreprocessSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = segment.x[-spec.window :]
    x = np.zeros((1, spec.window, spec.n_features), dtype=np.float32)
    mask = np.zeros((1, spec.window), dtype=np.float32)
    x[0, : len(rows)] = rows
    mask[0, : len(rows)] = 1.0
    return (x, mask) if len(rows) >= spec.min_steps else (x[:0], mask[:0])
