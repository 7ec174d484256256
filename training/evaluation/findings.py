"""training/: confusions, categories, calibration and accuracy over time, for the report.

numpy only. Computed from `HeldOut` without running a network, so that a report takes seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import yaml

from models.decision_spec import DecisionSpec
from models.softmax import log_softmax
from training.evaluation.intervals import (
    percentile_interval,
    resample_counts,
    score_intervals,
)
from training.evaluation.scoring import Ratio, sum_per_recording, total_scores
from training.evaluation.streaming import trace_folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.evaluation.held_out import HeldOut
    from training.evaluation.intervals import Interval

BINS = 10
"""Bins of equal width in a reliability diagram."""
JUDGED_S = 120.0
"""When the decision layer's belief is compared with the truth."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class ShareWithInterval:
    """A share of 1 with its 95 % interval, its name and how many items it is of."""

    name: str
    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Stated probabilities compared with how often they come true, in bins that are not empty.

    Attributes
    ----------
    stated, hit, count: [bins], mean probability, share right and number of predictions.
    error, interval: expected calibration error: the mean gap between the two, weighted by count
        (Naeini et al., AAAI 2015; Guo et al., ICML 2017).
    """

    stated: NDArray[np.float64]
    hit: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float
    interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyOverTime:
    """Shares of recordings float[times], at every 5 s of their length.

    `accuracy`: the likeliest label is right; `announced`: some label is announced; `right`: the
    right label is.
    """

    seconds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    announced: NDArray[np.float64]
    right: NDArray[np.float64]


def categories(labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the labels by category; those that no category lists are "other"."""
    text = (resources.files("training") / "categories.yaml").read_text()
    table: dict[str, list[str]] = yaml.safe_load(text)
    found = {name: [x for x in members if x in labels] for name, members in table.items()}
    listed = {label for members in table.values() for label in members}
    found[OTHER] = [label for label in labels if label not in listed]
    return {name: members for name, members in found.items() if members}


def confusion(held_out: HeldOut) -> NDArray[np.float64]:
    """Return float[truth, prediction]: of the windows of each substance, the share named so."""
    truth, named, _ = _window_labels(held_out)
    table = np.zeros((held_out.target.shape[1],) * 2)
    np.add.at(table, (truth, named), 1.0)
    shares: NDArray[np.float64] = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return shares


def most_confused(
    table: NDArray[np.float64], labels: Sequence[str], limit: int = 12
) -> list[tuple[str, str, float]]:
    """Return the largest entries (truth, prediction, share) off the diagonal of a confusion."""
    off = table * (1 - np.eye(len(table)))
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    return [
        (labels[row], labels[column], float(off[row, column]))
        for row, column in zip(*np.unravel_index(order, off.shape), strict=True)
        if off[row, column] > 0
    ]


def by_category(held_out: HeldOut, labels: Sequence[str]) -> list[ShareWithInterval]:
    """Return the window accuracy of each category; the choice is among all substances."""
    truth, named, owner = _window_labels(held_out)
    recordings = len(held_out.names)
    shares = []
    for name, members in categories(labels).items():
        inside = np.isin(truth, [labels.index(label) for label in members])
        if not inside.any():
            continue
        ratio = Ratio(
            sum_per_recording((truth == named) & inside, owner, recordings),
            sum_per_recording(inside, owner, recordings),
        )
        value = total_scores({name: ratio})[name]
        low, high = score_intervals({name: ratio}, held_out.groups)[name]
        shares.append(ShareWithInterval(name, value, low, high, len(members)))
    return shares


def window_reliability(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> Reliability:
    """Compare the probability of each window's likeliest label with the truth.

    `specs` gives each fold's temperature, fitted on the other folds.
    """
    truth, named, owner = _window_labels(held_out)
    logits = held_out.outputs.require("logits")
    default = DecisionSpec()
    temperature = np.array(
        [specs.get(int(fold), default).temperature for fold in held_out.fold[owner]]
    )
    stated = np.exp(log_softmax(logits, temperature[:, None]).max(axis=1))
    return reliability(stated, truth == named, owner, held_out.groups)


def belief_reliability(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> Reliability | None:
    """Compare the decision layer's belief after 120 s with the truth; None without streams."""
    streams = held_out.streams
    if streams is None or not specs or streams.ends_s[0] > JUDGED_S:
        return None
    trace, stage = trace_folds(streams, held_out.fold, specs), streams.window_at(JUDGED_S)
    stated, right = trace.belief[:, stage], trace.best[:, stage] == streams.truth
    known = np.isfinite(stated)
    if not known.any():
        return None
    return reliability(stated[known], right[known], np.flatnonzero(known), held_out.groups)


def over_time(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> AccuracyOverTime | None:
    """Return how accuracy and announcements grow with time; None without streams."""
    streams = held_out.streams
    if streams is None or not specs:
        return None
    trace, active = trace_folds(streams, held_out.fold, specs), streams.active
    truth, some = streams.truth[:, None], active.any(axis=0)
    accuracy, announced, right = (
        (hits & active).sum(axis=0)[some] / active.sum(axis=0)[some]
        for hits in (trace.best == truth, trace.named >= 0, trace.named == truth)
    )
    return AccuracyOverTime(streams.ends_s[some], accuracy, announced, right)


def presence_reliability(held_out: HeldOut) -> Reliability:
    """Compare the presence of every component in every window with the truth (mixtures)."""
    presence = held_out.outputs.require("presence")
    owner = np.repeat(held_out.outputs.owner, presence.shape[1])
    truly = (held_out.window_target > 0).reshape(-1)
    return reliability(presence.reshape(-1).astype(float), truly, owner, held_out.groups)


def read_fold_constants(constants: Mapping[str, Mapping[str, object]]) -> dict[int, DecisionSpec]:
    """Return the decision constants of each fold from a cross-validation's report."""
    names = {field.name for field in dataclasses.fields(DecisionSpec)}
    specs = {}
    for fold, values_ in constants.items():
        known = {name: value for name, value in values_.items() if name in names}
        thresholds = known.get("presence_thresholds")
        if isinstance(thresholds, list):
            known["presence_thresholds"] = tuple(thresholds)
        specs[int(fold)] = DecisionSpec(**known)  # type: ignore[arg-type]  # from JSON
    return specs


def _window_labels(
    held_out: HeldOut,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Return truth, predicted label and recording of every window."""
    logits = held_out.outputs.require("logits")
    return held_out.window_target.argmax(axis=1), logits.argmax(axis=1), held_out.outputs.owner


def reliability(
    stated: NDArray[np.float64],
    right: NDArray[np.bool_],
    owner: NDArray[np.int64],
    groups: Sequence[str],
) -> Reliability:
    """Compare stated probabilities with how often they come true.

    Parameters
    ----------
    stated: float[predictions], 0..1.
    right: bool[predictions].
    owner: int[predictions], the recording of each.
    groups: per recording, the group it is resampled with.
    """
    place = np.minimum((stated * BINS).astype(int), BINS - 1)
    recordings = len(groups)
    sums = np.zeros((3, recordings, BINS))
    for row, number in enumerate((np.ones(len(stated)), stated, right.astype(float))):
        np.add.at(sums[row], (owner, place), number)

    def error(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Error[draws] of totals[3, draws, bins]."""
        gap: NDArray[np.float64] = np.abs(totals[1] - totals[2]).sum(axis=1)
        mean: NDArray[np.float64] = gap / np.maximum(totals[0].sum(axis=1), 1)
        return mean

    weights = resample_counts(recordings, groups, draws=1000).astype(float)
    whole = sums.sum(axis=1)
    some = whole[0] > 0
    return Reliability(
        whole[1, some] / whole[0, some],
        whole[2, some] / whole[0, some],
        whole[0, some].astype(np.int64),
        float(error(whole[:, None])[0]),
        percentile_interval(error(np.stack([weights @ part for part in sums]))),
    )
