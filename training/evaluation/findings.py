"""training/: what the held-out answers show beyond one number, for the report.

numpy only. Confusions, categories, calibration and the course of time, each from
`HeldOut` and never from a network, so that a report costs seconds.
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
from training.evaluation.intervals import intervals, percentiles, resampled
from training.evaluation.scoring import Ratio, values
from training.evaluation.streaming import follow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.evaluation.held_out import HeldOut
    from training.evaluation.intervals import Interval

BINS = 10
"""Bins of equal width in a reliability diagram."""
JUDGED_S = 120.0
"""When the decision layer's belief is held against the truth."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class ShareWithInterval:
    """A share of 1 with its 95 % interval and what it is of."""

    name: str
    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How far a stated probability can be taken at its word.

    Attributes
    ----------
    stated, hit: float[bins], mean probability and share right, of the bins that have any.
    count: int[bins].
    error: expected calibration error: the mean gap between the two, weighted by count
        (Naeini et al., AAAI 2015; Guo et al., ICML 2017).
    interval: of the error.
    """

    stated: NDArray[np.float64]
    hit: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float
    interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyOverTime:
    """The course of a recording: shares of recordings, every 5 s.

    Attributes
    ----------
    seconds: float[times].
    accuracy: share whose likeliest label is right.
    announced: share with an announced label.
    right: share with the right label announced.
    """

    seconds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    announced: NDArray[np.float64]
    right: NDArray[np.float64]


def categories(labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the labels by their category; those that no category lists are "other"."""
    text = (resources.files("training") / "categories.yaml").read_text()
    table: dict[str, list[str]] = yaml.safe_load(text)
    found = {name: [x for x in members if x in labels] for name, members in table.items()}
    listed = {label for members in table.values() for label in members}
    found[OTHER] = [label for label in labels if label not in listed]
    return {name: members for name, members in found.items() if members}


def confusion(held_out: HeldOut) -> NDArray[np.float64]:
    """Return float[truth, answer]: of the windows of each substance, the share named so."""
    truth, named, _ = _window_answers(held_out)
    count = held_out.target.shape[1]
    table = np.zeros((count, count))
    np.add.at(table, (truth, named), 1.0)
    shares: NDArray[np.float64] = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return shares


def most_confused(
    table: NDArray[np.float64], labels: Sequence[str], limit: int = 12
) -> list[tuple[str, str, float]]:
    """Return the largest entries (truth, answer, share) of a confusion off its diagonal."""
    off = table * (1 - np.eye(len(table)))
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    return [
        (labels[row], labels[column], float(off[row, column]))
        for row, column in zip(*np.unravel_index(order, off.shape), strict=True)
        if off[row, column] > 0
    ]


def by_category(held_out: HeldOut, labels: Sequence[str]) -> list[ShareWithInterval]:
    """Return the window accuracy within each category of substances (choice among all labels)."""
    truth, named, owner = _window_answers(held_out)
    recordings = len(held_out.names)
    shares = []
    for name, members in categories(labels).items():
        inside = np.isin(truth, [labels.index(label) for label in members])
        if not inside.any():
            continue
        ratio = Ratio(
            np.bincount(owner, (truth == named) & inside, recordings).astype(np.float64),
            np.bincount(owner, inside, recordings).astype(np.float64),
        )
        low, high = intervals({name: ratio}, held_out.groups)[name]
        shares.append(ShareWithInterval(name, values({name: ratio})[name], low, high, len(members)))
    return shares


def window_reliability(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> Reliability:
    """Hold the probability of each window's likeliest label against the truth.

    `specs` gives each fold's temperature, fitted on the other folds.
    """
    truth, named, owner = _window_answers(held_out)
    logits = held_out.answers.logits
    if logits is None:
        raise ValueError("mixtures have no window probabilities")
    default = DecisionSpec()
    temperature = np.array(
        [specs.get(int(fold), default).temperature for fold in held_out.fold[owner]]
    )
    stated = np.exp(log_softmax(logits.astype(np.float64) / temperature[:, None]).max(axis=1))
    return reliability(stated, truth == named, owner, held_out.groups)


def belief_reliability(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> Reliability | None:
    """Hold the decision layer's belief after 120 s against the truth; None without streams."""
    if held_out.streams is None:
        return None
    stage = int(np.searchsorted(held_out.streams.ends_s, JUDGED_S, side="right")) - 1
    stated = np.full(len(held_out.names), np.nan)
    right = np.zeros(len(held_out.names), dtype=bool)
    for fold, spec in specs.items():
        rows = held_out.fold == fold
        streams = held_out.streams.of(rows)
        course = follow(streams, spec)
        stated[rows] = course.belief[:, stage]
        right[rows] = course.best[:, stage] == streams.truth
    there = np.isfinite(stated)
    if stage < 0 or not there.any():
        return None
    return reliability(stated[there], right[there], np.flatnonzero(there), held_out.groups)


def over_time(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> AccuracyOverTime | None:
    """Return how accuracy and announcements grow with time; None without streams."""
    if held_out.streams is None or not specs:
        return None
    streams = held_out.streams
    sums = np.zeros((4, len(streams.ends_s)))
    for fold, spec in specs.items():
        part = streams.of(held_out.fold == fold)
        course, heard = follow(part, spec), part.heard
        truth = part.truth[:, None]
        for row, hits in enumerate(
            (heard, course.best == truth, course.named >= 0, course.named == truth)
        ):
            sums[row] += (hits & heard).sum(axis=0)
    some = sums[0] > 0
    accuracy, announced, right = sums[1:, some] / sums[0, some]
    return AccuracyOverTime(streams.ends_s[some], accuracy, announced, right)


def presence_reliability(held_out: HeldOut) -> Reliability:
    """Hold the presence of every component in every window against the truth (mixtures)."""
    presence = held_out.answers.presence
    if presence is None:
        raise ValueError("substances have no presences")
    owner = np.repeat(held_out.answers.owner, presence.shape[1])
    truly = (held_out.window_target > 0).reshape(-1)
    return reliability(presence.reshape(-1).astype(float), truly, owner, held_out.groups)


def fold_specs(constants: Mapping[str, Mapping[str, object]]) -> dict[int, DecisionSpec]:
    """Return the decision constants of each fold, as a cross-validation's report has them."""
    names = {field.name for field in dataclasses.fields(DecisionSpec)}
    specs = {}
    for fold, values_ in constants.items():
        known = {name: value for name, value in values_.items() if name in names}
        thresholds = known.get("presence_thresholds")
        if isinstance(thresholds, list):
            known["presence_thresholds"] = tuple(thresholds)
        specs[int(fold)] = DecisionSpec(**known)  # type: ignore[arg-type]  # from JSON
    return specs


def _window_answers(
    held_out: HeldOut,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Return truth, answer and recording of every window."""
    logits = held_out.answers.logits
    if logits is None:
        raise ValueError("mixtures have no one label")
    return held_out.window_target.argmax(axis=1), logits.argmax(axis=1), held_out.answers.owner


def reliability(
    stated: NDArray[np.float64],
    right: NDArray[np.bool_],
    owner: NDArray[np.int64],
    groups: Sequence[str],
) -> Reliability:
    """Hold stated probabilities against what came true.

    Parameters
    ----------
    stated: float[answers], 0..1.
    right: bool[answers].
    owner: int[answers], the recording of each.
    groups: per recording, what it is resampled with.
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

    weights = resampled(recordings, groups, seed=0, draws=1000).astype(float)
    whole = sums.sum(axis=1)
    some = whole[0] > 0
    return Reliability(
        whole[1, some] / whole[0, some],
        whole[2, some] / whole[0, some],
        whole[0, some].astype(np.int64),
        float(error(whole[:, None])[0]),
        percentiles(error(np.stack([weights @ part for part in sums]))),
    )
