"""training/: the decision layer's constants, fitted on held-out answers.

Nothing here sees a recording that its network was trained on: the temperature
and the thresholds come from the windows that cross-validation held out, the
worth of evidence from the same recordings streamed through each fold's bundle
as the daemon would. numpy only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.decision import DecisionSpec, Share, log_probabilities
from models.preprocess import FeatureStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data import Sample

LIVE_STRIDE_S = 5.0
"""As the daemon's default `live_stride_s`."""
LISTENED_S = 300.0
"""Seconds of each recording that are streamed: announcements are made earlier or never."""
STAGES_S = (45.0, 60.0, 90.0, 120.0, 180.0, 300.0)
"""When belief is compared with truth, in seconds since the recording's start."""

_DEFAULT_PRESENCE = 0.5
_FLOORS = np.round(np.arange(0.05, 1.01, 0.05), 2)
_FACTORS = np.round(np.arange(0.0, 1.01, 0.05), 2)


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """What networks said, window by window, of recordings they had not seen.

    Attributes
    ----------
    logits: float32[recordings, windows, labels], one window every 5 s from the first on.
    shares: the windows' parts in the evidence, the same for every recording.
    ends_s: float[windows], seconds of the recording until the window's end.
    truth: int[recordings].
    """

    logits: NDArray[np.float32]
    shares: tuple[Share, ...]
    ends_s: NDArray[np.float64]
    truth: NDArray[np.int64]


def stream(bundle: Bundle, samples: Sequence[Sample]) -> Streams:
    """Stream the first five minutes of substances' recordings through a bundle."""
    spec = bundle.manifest.preprocessing
    first = spec.first_step + spec.min_steps
    step = round(LIVE_STRIDE_S * spec.rate_hz)
    ends = np.arange(first, round(LISTENED_S * spec.rate_hz) + 1, step)
    rows = []
    for sample in samples:
        features = FeatureStream(spec)
        logits = []
        for start, end in itertools.pairwise([0, *ends.tolist()]):
            features.extend(sample.values[start:end])
            x, mask = features.window()
            logits.append(bundle.run(x[np.newaxis], mask[np.newaxis]).logits)
        rows.append(np.concatenate([row for row in logits if row is not None]))
    filled = np.minimum(ends - spec.first_step, spec.window) / spec.window
    shares = tuple(
        Share(0.0 if k == 0 else step / spec.rate_hz, part, part if k == 0 else step / spec.window)
        for k, part in enumerate(filled.tolist())
    )
    truth = np.array([int(sample.target.argmax()) for sample in samples])
    return Streams(np.stack(rows), shares, ends / spec.rate_hz, truth)


def joined(parts: Sequence[Streams]) -> Streams:
    """Put the streams of several folds together."""
    return Streams(
        np.concatenate([part.logits for part in parts]),
        parts[0].shares,
        parts[0].ends_s,
        np.concatenate([part.truth for part in parts]),
    )


def fit_evidence(streams: Streams, spec: DecisionSpec) -> tuple[float, float]:
    """Return evidence_floor and evidence_factor of least negative log-likelihood over the stages.

    The grids are those of the manifest's range, 0..1; `spec` gives temperature and memory.
    """
    means, independent = _fading_means(streams, spec)
    stages = [int(np.abs(streams.ends_s - s).argmin()) for s in STAGES_S]
    rows = np.arange(len(streams.truth))

    def loss(floor: float, factor: float) -> float:
        total = 0.0
        for stage in stages:
            log_p = _log_softmax(means[:, stage] * (floor + factor * independent[stage]))
            total -= float(log_p[rows, streams.truth].mean())
        return total

    best = min(itertools.product(_FLOORS, _FACTORS), key=lambda pair: loss(*pair))
    return float(best[0]), float(best[1])


def announced_scores(streams: Streams, spec: DecisionSpec) -> dict[str, float]:
    """Score the beliefs with fitted constants: at each stage, share announced, precision, and gap.

    Announced means a belief of at least `spec.announce`; the gap is the mean belief minus the
    hit rate over all recordings, 0 for calibrated beliefs.
    """
    result = {}
    for stage, belief, best in _beliefs(streams, spec):
        sure = belief >= spec.announce
        right = best == streams.truth
        result[f"announced_{stage:.0f}s"] = round(float(sure.mean()), 4)
        result[f"precision_{stage:.0f}s"] = round(float(right[sure].mean()) if sure.any() else 0, 4)
        result[f"gap_{stage:.0f}s"] = round(float(belief.mean() - right.mean()), 4)
    return result


def best_temperature(logits: NDArray[np.float32], target: NDArray[np.float32]) -> float:
    """Temperature of least negative log-likelihood (Guo et al., ICML 2017); [windows, labels]."""
    truth = target.argmax(axis=1)

    def loss(temperature: float) -> float:
        log_p = np.stack([log_probabilities(row, temperature) for row in logits])
        return -float(log_p[np.arange(len(truth)), truth].mean())

    grid = np.geomspace(0.2, 5.0, 65)
    return round(float(grid[int(np.argmin([loss(t) for t in grid]))]), 4)


def best_threshold(presence: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Threshold of the largest F1; both arrays [windows].

    F1 and not the geometric mean of sensitivity and specificity: a component is absent from
    most windows, and the latter would list several false ones for every true one.
    """
    if not truth.any():
        return _DEFAULT_PRESENCE
    candidates = np.unique(np.quantile(presence, np.linspace(0.01, 0.99, 99)))
    hits = [
        2 * (presence[truth] >= c).sum() / ((presence >= c).sum() + truth.sum()) for c in candidates
    ]
    return round(float(np.clip(candidates[int(np.argmax(hits))], 0.01, 0.99)), 4)


def _beliefs(
    streams: Streams, spec: DecisionSpec
) -> Iterator[tuple[float, NDArray[np.float64], NDArray[np.intp]]]:
    """Yield each stage with the belief in, and the number of, the likeliest label."""
    means, independent = _fading_means(streams, spec)
    for seconds in STAGES_S:
        stage = int(np.abs(streams.ends_s - seconds).argmin())
        effective = spec.evidence_floor + spec.evidence_factor * independent[stage]
        log_p = _log_softmax(means[:, stage] * effective)
        yield seconds, np.exp(log_p.max(axis=1)), log_p.argmax(axis=1)


def _fading_means(
    streams: Streams, spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do what `models.decision.FadingMean` does, for all recordings at once (a test holds it).

    Returns
    -------
    mean log-probabilities float[recordings, windows, labels], and independent float[windows].
    """
    log_p = _log_softmax(streams.logits.astype(np.float64) / spec.temperature)
    means = np.empty_like(log_p)
    total = np.zeros_like(log_p[:, 0])
    weight = independent = 0.0
    counts = np.empty(len(streams.shares))
    for k, share in enumerate(streams.shares):
        fade = float(np.exp(-share.elapsed_s / spec.memory_s))
        total = total * fade + log_p[:, k] * share.filled
        weight = weight * fade + share.filled
        independent = independent * fade + share.fresh
        means[:, k] = total / weight
        counts[k] = independent
    return means, counts


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
