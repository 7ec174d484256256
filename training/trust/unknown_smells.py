"""training/: how well a model tells that a smell is none of those it learned.

numpy only. Every network is asked about recordings of substances that it knows and of ten that it
never met. Constants are fitted on the other networks' answers, and so on other hidden substances.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models import novelty
from models.decision_spec import DecisionSpec
from training.evaluation.decision_fit import KNOWN_RECALL, fit_substances, fit_unknown
from training.evaluation.intervals import DRAWS, percentiles
from training.evaluation.streaming import (
    NOVELTIES,
    as_of,
    faded,
    fading_novelty,
    follow,
    joined,
    stage_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.novelty import NoveltyName
    from training.evaluation.decision_fit import Unknown
    from training.evaluation.intervals import Interval
    from training.evaluation.open_set_answers import OpenFold
    from training.evaluation.streaming import Streams

STAGES_S = (60.0, 120.0, 180.0, 300.0)
"""When the decision layer is asked, in seconds since the recording's start."""
JUDGED = "300s"
"""The stage by which scores are compared: by then a window's worth of fresh rows came thrice."""
CURVE_POINTS = 101
NEIGHBOURS = "neighbours"
"""The score that is compared and cannot ship."""

_NEVER = -1e4
"""A logit that no softmax sees."""


def measure(folds: Sequence[OpenFold]) -> dict[str, Any]:
    """Compare the scores of novelty, and tell what the decision layer makes of the best.

    Returns
    -------
    scores: by score and by what is judged ("windows", "60s" ... "300s", "recording"): AUROC with
        its interval over substances, false accepts at 95 % known recall (each network's own
        threshold), and known recall and false accepts at the threshold of the other networks.
    best, auroc_300s: the score of largest AUROC after 300 s, and that.
    decision: by second, with score and constants chosen on the other networks: shares of known and
        of hidden recordings said to be unrecognised, given a name, or neither.
    curve: known against unknown recordings accepted, by the best score after 300 s.
    descriptors: AUROC of what hidden substances are told to smell like.
    """
    told = [tell(fold) for fold in folds]
    scores: dict[str, Any] = {}
    for name in told[0]:
        scores[name] = {
            place: _compared([fold[name][place] for fold in told], folds) for place in told[0][name]
        }
    best = best_score(scores)
    return {
        "networks": len(folds),
        "hidden": {str(fold.fold): list(fold.hidden) for fold in folds},
        "known_recall": KNOWN_RECALL,
        "scores": scores,
        "best": best,
        "auroc_300s": scores[best][JUDGED]["auroc"],
        "decision": _decided(folds),
        "curve": _curve([fold[best][JUDGED][1] for fold in told], folds),
        "descriptors": descriptor_areas(folds),
    }


def best_score(scores: dict[str, Any]) -> NoveltyName:
    """Return the score of largest AUROC after 300 s."""
    return max(NOVELTIES, key=lambda name: scores[name][JUDGED]["auroc"])


def tell(fold: OpenFold) -> dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]]:
    """Return by score and place: which recording, and its novelty there.

    Of the protocol's windows, of recordings after 60 to 300 s as the decision layer follows them,
    and of whole recordings, the mean of their windows.
    """
    everyone = np.arange(len(fold.names))
    count = np.bincount(fold.owner, minlength=len(everyone))
    found: dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
    for name, windows, streamed in _novelties(fold):
        means, _ = faded(streamed, fold.streams.shares, DecisionSpec())
        found[name] = {"windows": (fold.owner, windows)}
        for seconds in STAGES_S:
            found[name][f"{seconds:.0f}s"] = everyone, as_of(means, fold.streams, seconds)
        found[name]["recording"] = everyone, np.bincount(fold.owner, windows) / count
    return found


def _novelties(fold: OpenFold) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield score, novelty [windows] of the protocol and [recordings, windows] of the streams."""
    for name in NOVELTIES:
        windows = novelty.score(name, fold.space, fold.embedding, fold.logits)
        yield name, windows, fold.streams.novelty[name]
    heard = fold.streams.heard
    streamed = np.full(heard.shape, np.nan)
    if fold.streams.embedding is not None:
        streamed[heard] = novelty.neighbours(
            fold.space, fold.streams.embedding[heard], fold.exemplars
        )
    yield NEIGHBOURS, novelty.neighbours(fold.space, fold.embedding, fold.exemplars), streamed


def fold_specs(folds: Sequence[OpenFold]) -> dict[int, DecisionSpec]:
    """Return each network's decision constants, fitted on the other networks' answers.

    Which score of novelty they have is chosen on those as well.
    """
    return {fold.fold: _fitted([other for other in folds if other is not fold]) for fold in folds}


def fitted_unknown(folds: Sequence[OpenFold]) -> Unknown:
    """Fit when the evidence is for none on networks' answers about known and hidden substances.

    By the score that tells most on them after 300 s.
    """
    width = max(len(fold.labels) for fold in folds)
    known, hidden = (
        joined([_widened(fold, width).of(fold.known == kind) for fold in folds])
        for kind in (True, False)
    )
    return fit_unknown(known, hidden, _best_on(folds))


def _fitted(folds: Sequence[OpenFold]) -> DecisionSpec:
    width = max(len(fold.labels) for fold in folds)
    known = joined([_widened(fold, width).of(fold.known) for fold in folds])
    windows = [fold.known[fold.owner] for fold in folds]
    logits = np.concatenate(
        [_padded(fold.logits[rows], width) for fold, rows in zip(folds, windows, strict=True)]
    )
    truth = np.concatenate(
        [fold.truth[fold.owner[rows]] for fold, rows in zip(folds, windows, strict=True)]
    )
    target = np.eye(width, dtype=np.float32)[truth]
    return fit_substances(logits, target, known, fitted_unknown(folds))


def _widened(fold: OpenFold, width: int) -> Streams:
    """Return a network's streams with as many labels as the others have."""
    return replace(fold.streams, logits=_padded(fold.streams.logits, width))


def _padded(logits: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Add labels that are never likely; logits[..., labels]."""
    room = [(0, 0)] * (logits.ndim - 1) + [(0, width - logits.shape[-1])]
    return np.pad(logits, room, constant_values=_NEVER)


def _best_on(folds: Sequence[OpenFold]) -> NoveltyName:
    """Return the score of largest AUROC after 300 s, mean over the networks."""

    def mean_area(name: NoveltyName) -> float:
        areas = []
        for fold in folds:
            means, _ = fading_novelty(fold.streams, name, DecisionSpec())
            areas.append(area(as_of(means, fold.streams, STAGES_S[-1]), fold.known))
        return float(np.mean(areas))

    return max(NOVELTIES, key=mean_area)


def area(values: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of novelties [recordings] (Hanley & McNeil 1982)."""
    pairs = _pairs(np.arange(len(values)), values, known)
    return float(pairs[0].sum() / pairs[1].sum())


def descriptor_areas(folds: Sequence[OpenFold]) -> dict[str, Any]:
    """Score what hidden substances are told to smell like: AUROC of each odour descriptor.

    A recording says the mean of its windows; resampled are substances. Empty without the head.
    """
    told = [fold for fold in folds if fold.descriptors is not None]
    if not told:
        return {}
    from training.data.substance_tables import read_descriptors  # noqa: PLC0415 - scikit-learn
    from training.evaluation.auroc import column_areas, mean_area  # noqa: PLC0415

    spoken, substances = [], []
    for fold in told:
        hidden = np.flatnonzero(~fold.known)
        said = fold.descriptors
        if said is not None:
            spoken += [said[fold.owner == row].mean(axis=0) for row in hidden]
            substances += [fold.substance[row] for row in hidden]
    labels = tuple(sorted(set(substances)))
    truth = np.array([labels.index(name) for name in substances])
    table = read_descriptors(labels)
    areas = column_areas(np.stack(spoken), table.values.astype(bool)[truth], truth)
    macro = mean_area(list(areas.values()))
    return {
        "macro_auroc": round(macro.value, 4),
        "interval": list(macro.interval),
        "auroc": {table.names[column]: round(one.value, 4) for column, one in areas.items()},
    }


def _compared(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], folds: Sequence[OpenFold]
) -> dict[str, Any]:
    areas, own, recall, accepts = [], [], [], []
    for number, ((owner, values), fold) in enumerate(zip(parts, folds, strict=True)):
        known = fold.known[owner]
        areas.append(_pairs(owner, values, fold.known))
        own.append(float((values[~known] < _bound(values[known])).mean()))
        others = [
            part[1][other.known[part[0]]]
            for place, (part, other) in enumerate(zip(parts, folds, strict=True))
            if place != number
        ]
        if others:
            bound = _bound(np.concatenate(others))
            recall.append(float((values[known] < bound).mean()))
            accepts.append(float((values[~known] < bound).mean()))
    value, interval = _mean_area(areas, folds)
    row: dict[str, Any] = {
        "auroc": round(value, 4),
        "interval": list(interval),
        "false_accepts": round(float(np.mean(own)), 4),
    }
    if accepts:
        row["transferred"] = {
            "known_recall": round(float(np.mean(recall)), 4),
            "false_accepts": round(float(np.mean(accepts)), 4),
        }
    return row


def _bound(known: NDArray[np.float64]) -> float:
    return float(np.quantile(known, KNOWN_RECALL, method="higher"))


def _pairs(
    owner: NDArray[np.int64], values: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return float[known, hidden recordings]: pairs of windows rightly ordered, and all pairs."""
    order = np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    number, inside = place[owner], known[owner]
    low, high = values[inside], values[~inside]
    right = (high > low[:, None]) + 0.5 * (high == low[:, None])
    rows, columns = number[inside], number[~inside] - known.sum()
    by_row = np.zeros((int(known.sum()), len(high)))
    np.add.at(by_row, rows, right)
    both = np.zeros((len(by_row), int((~known).sum())))
    np.add.at(both.T, columns, by_row.T)
    count = np.outer(np.bincount(rows, minlength=len(both)), np.bincount(columns))
    return both, count.astype(np.float64)


def _mean_area(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], folds: Sequence[OpenFold]
) -> tuple[float, Interval]:
    """Return the mean over networks of the area, and its interval with substances resampled."""
    value = float(np.mean([right.sum() / count.sum() for right, count in pairs]))
    rng = np.random.default_rng(0)
    draws = np.zeros(DRAWS)
    for (right, count), fold in zip(pairs, folds, strict=True):
        low = _resampled([fold.substance[row] for row in np.flatnonzero(fold.known)], rng)
        high = _resampled([fold.substance[row] for row in np.flatnonzero(~fold.known)], rng)
        over = np.einsum("dk,kh,dh->d", low, count, high)
        draws += np.einsum("dk,kh,dh->d", low, right, high) / np.maximum(over, 1e-12)
    return value, percentiles(draws / len(folds))


def _resampled(groups: Sequence[str], rng: np.random.Generator) -> NDArray[np.float64]:
    number = np.unique(list(groups), return_inverse=True)[1]
    kinds = int(number.max()) + 1
    counts = rng.multinomial(kinds, np.full(kinds, 1 / kinds), size=DRAWS)
    return counts[:, number].astype(np.float64)


def _decided(folds: Sequence[OpenFold]) -> dict[str, Any]:
    """Return by second what known and hidden recordings are said to be, mean over networks."""
    if len(folds) < 2:  # noqa: PLR2004 - one to fit on, one to judge
        return {}
    specs = fold_specs(folds)
    rows = []
    for fold in folds:
        course = follow(fold.streams, specs[fold.fold])
        for kind, chosen in (("known", fold.known), ("hidden", ~fold.known)):
            for seconds in STAGES_S:
                stage = stage_of(fold.streams, seconds)
                strange = course.strange[chosen, stage]
                named = course.named[chosen, stage] >= 0
                rows.append((f"{seconds:.0f}s", kind, float(strange.mean()), float(named.mean())))
    table: dict[str, Any] = {}
    for place in dict.fromkeys(row[0] for row in rows):
        table[place] = {}
        for kind in ("known", "hidden"):
            unrecognised, named_ = np.mean(
                [row[2:] for row in rows if row[:2] == (place, kind)], axis=0
            )
            table[place][kind] = {
                "unrecognised": round(float(unrecognised), 4),
                "named": round(float(named_), 4),
                "neither": round(float(1 - unrecognised - named_), 4),
            }
    constants = {
        str(number): {
            "novelty": spec.novelty,
            "unknown_above": spec.unknown_above,
            "unknown_after": spec.unknown_after,
            "unknown_confirm": spec.unknown_confirm,
            "announce": spec.announce,
            "temperature": spec.temperature,
        }
        for number, spec in specs.items()
    }
    return {"by_second": table, "constants": constants}


def _curve(
    values: Sequence[NDArray[np.float64]], folds: Sequence[OpenFold]
) -> dict[str, list[float]]:
    """Return known recordings accepted by hidden ones accepted, mean over networks."""
    grid = np.linspace(0, 1, CURVE_POINTS)
    curves = []
    for novel, fold in zip(values, folds, strict=True):
        bounds = np.concatenate([[-np.inf], np.sort(novel)])
        known = (novel[fold.known] <= bounds[:, None]).mean(axis=1)
        hidden = (novel[~fold.known] <= bounds[:, None]).mean(axis=1)
        curves.append(np.interp(grid, hidden, known))
    return {
        "hidden_accepted": [round(float(x), 3) for x in grid],
        "known_accepted": [round(float(x), 4) for x in np.mean(curves, axis=0)],
    }
