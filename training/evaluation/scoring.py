"""training/: windows of recordings, and the field's scores of what a network says of them.

numpy only: `evaluate` and `crossval` score int8 networks through ONNX Runtime
with these very functions. The protocol is the published one (window 100, stride
50); sources of the scores: SmellNet, arXiv 2506.00239, and FACTS of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.preprocess import FeatureSegment, PreprocessSpec, batch_features, protocol_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Sample

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


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """A score as sums over recordings, so that it can be had of any selection of them.

    The score is sum(gained) / sum(possible), or the mean of such ratios over columns.

    Attributes
    ----------
    gained, possible: float[recordings], or float[recordings, columns].
    present: bool[recordings, columns], where a column counts at all; None for everywhere.
    """

    gained: NDArray[np.float64]
    possible: NDArray[np.float64]
    present: NDArray[np.bool_] | None = None

    def of(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the score float[draws] of each row of weights[draws, recordings].

        NaN where there is nothing to score.
        """
        gained, possible = weights @ self.gained, weights @ self.possible
        ratio: NDArray[np.float64] = np.full(gained.shape, np.nan)
        np.divide(gained, possible, out=ratio, where=possible > 0)
        if ratio.ndim == 1:
            return ratio
        counts = possible > 0 if self.present is None else weights @ self.present > 0
        total: NDArray[np.float64] = np.where(counts, ratio, 0.0).sum(axis=1)
        mean: NDArray[np.float64] = np.full(len(total), np.nan)
        np.divide(total, counts.sum(axis=1), out=mean, where=counts.any(axis=1))
        return mean


Tally = dict[str, Ratio]
"""Scores by name, all over the same recordings."""


def substance_tally(
    log_probabilities: NDArray[np.floating],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> Tally:
    """Count what every recording adds to the scores of substances.

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
    labels, recordings = log_probabilities.shape[1], len(truth)
    wanted = truth[owner]
    order = np.argsort(-log_probabilities, axis=1, kind="stable")

    def by_recording(numbers: NDArray[Any]) -> NDArray[np.float64]:
        return _by_recording(numbers, owner, recordings)

    windows = by_recording(np.ones(len(owner)))
    hits = by_recording(order[:, 0] == wanted)
    summed = np.zeros((recordings, labels))
    np.add.at(summed, owner, log_probabilities)
    heard = windows > 0
    named = np.zeros((recordings, labels))
    np.add.at(named, (owner, order[:, 0]), 1.0)
    own = np.eye(labels, dtype=bool)[truth]
    return {
        "top1": Ratio(hits, windows),
        "top5": Ratio(by_recording((order[:, :5] == wanted[:, None]).any(axis=1)), windows),
        "macro_f1": Ratio(
            2 * own * hits[:, None], named + own * windows[:, None], own & heard[:, None]
        ),
        "recording_top1": Ratio(
            ((summed.argmax(axis=1) == truth) & heard).astype(float), heard.astype(float)
        ),
    }


def mixture_tally(
    proportions: NDArray[np.floating],
    present: NDArray[np.bool_],
    target: NDArray[np.float32],
    owner: NDArray[np.int64],
    recordings: int,
) -> Tally:
    """Count what every recording adds to the scores of mixtures; arrays [windows, labels].

    Parameters
    ----------
    proportions: predicted shares.
    present: predicted presence, at the manifest's thresholds.
    target: true shares.
    owner: int[windows], the recording of each window.
    recordings: how many there are.

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

    def by_recording(numbers: NDArray[Any]) -> NDArray[np.float64]:
        return _by_recording(numbers, owner, recordings)

    windows = by_recording(np.ones(len(owner)))
    return {
        "within_01": Ratio(by_recording(close.sum(axis=1) / count), windows),
        "top_k": Ratio(by_recording(found.sum(axis=1)), by_recording(count)),
        "presence_f1": presence_tally(present, truly, owner, recordings)["presence_f1"],
        "mae": Ratio(
            by_recording(np.abs(proportions - target).sum(axis=1)),
            windows * target.shape[1],
        ),
    }


def presence_tally(
    present: NDArray[np.bool_],
    truly: NDArray[np.bool_],
    owner: NDArray[np.int64],
    recordings: int,
) -> Tally:
    """Count what every recording adds to the scores of presence, micro over bool[windows, labels].

    Returns
    -------
    presence_f1; presence_sensitivity, the share of the present that are found;
    presence_specificity, the share of the absent that are not named.
    """

    def by_recording(numbers: NDArray[Any]) -> NDArray[np.float64]:
        return _by_recording(numbers.sum(axis=1), owner, recordings)

    hits, named, there = (by_recording(x) for x in (present & truly, present, truly))
    return {
        "presence_f1": Ratio(2 * hits, named + there),
        "presence_sensitivity": Ratio(hits, there),
        "presence_specificity": Ratio(by_recording(~present & ~truly), by_recording(~truly)),
    }


def values(tally: Tally) -> dict[str, float]:
    """Return every score over all recordings; 0 where there was nothing to score."""
    return {
        name: float(np.nan_to_num(ratio.of(np.ones((1, len(ratio.gained))))[0]))
        for name, ratio in tally.items()
    }


def substance_scores(
    log_probabilities: NDArray[np.floating],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> dict[str, float]:
    """Score substances over all recordings; see `substance_tally`."""
    return values(substance_tally(log_probabilities, owner, truth))


def mixture_scores(
    proportions: NDArray[np.floating],
    present: NDArray[np.bool_],
    target: NDArray[np.float32],
) -> dict[str, float]:
    """Score mixtures over all windows; see `mixture_tally`."""
    return values(mixture_tally(proportions, present, target, np.arange(len(target)), len(target)))


def _by_recording(
    numbers: NDArray[Any], owner: NDArray[np.int64], recordings: int
) -> NDArray[np.float64]:
    """Sum numbers[windows] over each recording's windows."""
    total: NDArray[np.float64] = np.bincount(owner, weights=numbers, minlength=recordings).astype(
        np.float64
    )
    return total


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
