"""training/: the decision layer's constants, fitted on held-out answers.

Nothing here sees a recording that its network was trained on: the temperature
and the thresholds come from the windows that cross-validation held out, the
worth of evidence and the announcing belief from the same recordings streamed through
each fold's bundle as the daemon would. numpy only.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from models.decision import DecisionSpec
from training.evaluation.scoring import values
from training.evaluation.streaming import (
    Streams,
    announce,
    fading_means,
    log_softmax,
    posteriors,
    streaming_tally,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVIDENCE_STAGES_S = (45.0, 60.0, 90.0, 120.0, 180.0, 300.0)
"""When belief is compared with truth, in seconds since the recording's start."""
PRECISION = 0.85
"""Announcements are to be right this often after two minutes ..."""
ANNOUNCED = 0.82
"""... and, where that leaves room, only so many recordings announced that those are right as often
as can be. A little over the 0.8 that is asked for: the threshold is used on other recordings."""
WITHDRAW = 0.6
"""A name is taken back below this share of the announcing belief."""

_DEFAULT_PRESENCE = 0.5
_FLOORS = np.round(np.arange(0.05, 1.01, 0.05), 2)
_FACTORS = np.round(np.arange(0.0, 1.01, 0.05), 2)
_BELIEFS = np.round(np.arange(0.1, 0.96, 0.02), 2)


def fit_substances(
    logits: NDArray[np.float32], target: NDArray[np.float32], streams: Streams
) -> DecisionSpec:
    """Return the constants of a substance model.

    Parameters
    ----------
    logits: float32[windows, labels], of held-out recordings by the published protocol.
    target: float32[windows, labels].
    streams: the same recordings, streamed.
    """
    spec = DecisionSpec(temperature=best_temperature(logits, target))
    floor, factor = fit_evidence(streams, spec)
    spec = dataclasses.replace(spec, evidence_floor=floor, evidence_factor=factor)
    return announcing(spec, fit_announce(streams, spec))


def announcing(spec: DecisionSpec, belief: float) -> DecisionSpec:
    """Return `spec` with another announcing belief, and what goes with it."""
    return dataclasses.replace(
        spec,
        announce=belief,
        withdraw=round(WITHDRAW * belief, 3),
        overrule=max(spec.overrule, belief),
    )


def fit_evidence(streams: Streams, spec: DecisionSpec) -> tuple[float, float]:
    """Return evidence_floor and evidence_factor of least negative log-likelihood over the stages.

    The grids are those of the manifest's range, 0..1; `spec` gives temperature and memory.
    """
    means, independent = fading_means(streams, spec)
    heard = streams.heard
    stages = sorted({int(np.abs(streams.ends_s - s).argmin()) for s in EVIDENCE_STAGES_S})
    stages = [stage for stage in stages if heard[:, stage].any()]

    def loss(floor: float, factor: float) -> float:
        total = 0.0
        for stage in stages:
            there = heard[:, stage]
            log_p = log_softmax(means[there, stage] * (floor + factor * independent[stage]))
            total -= float(log_p[np.arange(there.sum()), streams.truth[there]].mean())
        return total

    best = min(itertools.product(_FLOORS, _FACTORS), key=lambda pair: loss(*pair))
    return float(best[0]), float(best[1])


def fit_announce(streams: Streams, spec: DecisionSpec) -> float:
    """Return the belief from which on a label is announced, judged after 120 s.

    The most precise one that announces 82 % of the recordings; where that is right less often
    than 85 %, the one that announces the most at 85 %; where nothing is, the most precise.
    """
    posterior = posteriors(streams, spec)
    tried: list[tuple[float, float, float]] = []
    for belief in map(float, _BELIEFS):
        course = announce(posterior, announcing(spec, belief))
        scores = values(streaming_tally(streams, course))
        tried.append((scores["precision_120s"], scores["announced_120s"], belief))
    wide = [row for row in tried if row[1] >= ANNOUNCED]
    if wide and max(wide)[0] >= PRECISION:
        return max(wide)[2]
    precise = [row for row in tried if row[0] >= PRECISION]
    if precise:
        return max(precise, key=lambda row: row[1])[2]
    return max(tried)[2]


def best_temperature(logits: NDArray[np.float32], target: NDArray[np.float32]) -> float:
    """Temperature of least negative log-likelihood (Guo et al., ICML 2017); [windows, labels]."""
    truth = target.argmax(axis=1)

    def loss(temperature: float) -> float:
        log_p = log_softmax(logits.astype(np.float64) / temperature)
        return -float(log_p[np.arange(len(truth)), truth].mean())

    grid = np.geomspace(0.2, 5.0, 65)
    return round(float(grid[int(np.argmin([loss(t) for t in grid]))]), 4)


def best_threshold(presence: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Threshold of the largest geometric mean of sensitivity and specificity; arrays [windows].

    Kubat & Matwin, ICML 1997. Half-way between two neighbouring presences, so that rounding and
    another machine's last bit change nothing.
    """
    if truth.all() or not truth.any():
        return _DEFAULT_PRESENCE
    levels = np.unique(presence)
    candidates = (levels[:-1] + levels[1:]) / 2 if len(levels) > 1 else levels
    # Presences at or above each candidate, among the present and among the absent.
    sensitivity = 1 - np.searchsorted(np.sort(presence[truth]), candidates) / truth.sum()
    specificity = np.searchsorted(np.sort(presence[~truth]), candidates) / (~truth).sum()
    best = candidates[int(np.argmax(sensitivity * specificity))]
    return round(float(np.clip(best, 0.01, 0.99)), 4)
