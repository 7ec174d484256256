"""training/: how well a model recognises that a smell is none of those it was trained on.

numpy only. Every open-set network is scored on recordings of substances that it knows and of ten
that it was trained without. Constants are fitted on the other networks' predictions, and so on
other hidden substances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models import novelty
from models.decision_spec import DecisionSpec
from training.evaluation.auroc import (
    descriptor_report,
    grouped_auroc,
    mean_auroc,
    stratified_weights,
)
from training.evaluation.decision_fit import KNOWN_RECALL, fit_open_set_constants
from training.evaluation.scoring import mean_per_recording
from training.evaluation.streaming import NOVELTIES, STAGES_S, fading_means, trace_decisions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.evaluation.open_set import OpenSetFold

JUDGED = "300s"
"""The stage by which scores are compared: it takes three windows' worth of readings."""
CURVE_POINTS = 101
NEIGHBOURS = "neighbours"
"""A score for comparison that needs the training embeddings, so that no bundle can use it."""

_UNKNOWN_CONSTANTS = ("novelty", "unknown_above", "unknown_after", "unknown_confirm")
_Values = tuple["NDArray[np.int64]", "NDArray[np.float64]"]


def measure_unknown_smells(folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    """Compare the scores of novelty, and the decisions that follow from the best.

    Returns
    -------
    scores: by score and by what is judged ("windows", "60s" ... "300s", "recording"): AUROC with
        its interval over substances, false accepts at 95 % known recall (each network's own
        threshold), and known recall and false accepts at the threshold of the other networks.
    best, auroc_300s: the score of largest AUROC after 300 s, and that AUROC.
    decision: by second, with score and constants chosen on the other networks: shares of known and
        of hidden recordings called unrecognised, given a name, or neither.
    curve: known against unknown recordings accepted, by the best score after 300 s.
    descriptors: AUROC of the odour descriptors predicted for hidden substances.
    """
    values = [novelty_values(fold) for fold in folds]
    scores: dict[str, Any] = {
        name: {
            place: _compare([fold[name][place] for fold in values], folds)
            for place in values[0][name]
        }
        for name in values[0]
    }
    best = max(NOVELTIES, key=lambda name: scores[name][JUDGED]["auroc"])
    return {
        "networks": len(folds),
        "hidden": {str(fold.fold): list(fold.hidden) for fold in folds},
        "known_recall": KNOWN_RECALL,
        "scores": scores,
        "best": best,
        "auroc_300s": scores[best][JUDGED]["auroc"],
        "decision": _decisions(folds),
        "curve": _curve([fold[best][JUDGED][1] for fold in values], folds),
        "descriptors": hidden_descriptor_report(folds),
    }


def novelty_values(fold: OpenSetFold) -> dict[str, dict[str, _Values]]:
    """Return by score and place: the recordings int[values], and their novelty there.

    Of the protocol's windows, of recordings after 60 to 300 s as the decision layer follows them,
    and of whole recordings, the mean of their windows.
    """
    everyone, owner = np.arange(len(fold.names)), fold.outputs.owner
    found: dict[str, dict[str, _Values]] = {}
    for name, windows, streamed in _novelties(fold):
        means, _ = fading_means(streamed, fold.streams.shares, DecisionSpec())
        found[name] = {"windows": (owner, windows)}
        for seconds in STAGES_S:
            found[name][f"{seconds:.0f}s"] = everyone, fold.streams.values_at(means, seconds)
        found[name]["recording"] = everyone, mean_per_recording(windows, owner, len(everyone))
    return found


def _novelties(
    fold: OpenSetFold,
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield score, novelty [windows] of the protocol and [recordings, windows] of the streams."""
    embedding, streams = fold.outputs.embedding, fold.streams
    for name in NOVELTIES:
        windows = novelty.score(name, fold.space, embedding, fold.outputs.require("logits"))
        yield name, windows, streams.novelty[name]
    active = streams.active
    streamed = np.full(active.shape, np.nan)
    streamed[active] = novelty.neighbours(fold.space, fold.stream_embedding[active], fold.exemplars)
    yield NEIGHBOURS, novelty.neighbours(fold.space, embedding, fold.exemplars), streamed


def hidden_descriptor_report(folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    """Score the odour descriptors predicted for hidden substances; empty without that head.

    A recording's prediction is the mean of its windows.
    """
    predicted, substances = [], []
    for fold in folds:
        if fold.outputs.descriptors is not None:
            means = mean_per_recording(
                fold.outputs.descriptors, fold.outputs.owner, len(fold.names)
            )
            predicted.append(means[~fold.known])
            substances += [fold.substance[row] for row in np.flatnonzero(~fold.known)]
    if not predicted:
        return {}
    labels, truth = np.unique(substances, return_inverse=True)
    return descriptor_report(np.concatenate(predicted), truth, tuple(labels.tolist()))


def _compare(parts: Sequence[_Values], folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    known = [fold.known[owner] for (owner, _), fold in zip(parts, folds, strict=True)]
    rng = np.random.default_rng(0)
    areas, own, recall, accepts = [], [], [], []
    for number, ((owner, values), fold) in enumerate(zip(parts, folds, strict=True)):
        hidden, substance = ~known[number], np.array(fold.substance)[owner]
        weights = stratified_weights(hidden, substance, rng)
        areas.append(grouped_auroc(values, hidden, substance, weights))
        own.append(float((values[hidden] < _known_bound([values[~hidden]])).mean()))
        others = [part[1][known[place]] for place, part in enumerate(parts) if place != number]
        if others:
            bound = _known_bound(others)
            recall.append(float((values[~hidden] < bound).mean()))
            accepts.append(float((values[hidden] < bound).mean()))
    area = mean_auroc(areas)
    row: dict[str, Any] = {
        "auroc": round(area.value, 4),
        "interval": list(area.interval),
        "false_accepts": round(float(np.mean(own)), 4),
    }
    if accepts:
        row["transferred"] = {
            "known_recall": round(float(np.mean(recall)), 4),
            "false_accepts": round(float(np.mean(accepts)), 4),
        }
    return row


def _known_bound(known: Sequence[NDArray[np.float64]]) -> float:
    return float(np.quantile(np.concatenate(known), KNOWN_RECALL, method="higher"))


def _decisions(folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    """Return by second the decisions about known and hidden recordings, mean over networks."""
    if len(folds) < 2:  # noqa: PLR2004 - one to fit on, one to judge
        return {}
    specs = fit_open_set_constants(folds)
    traces = [trace_decisions(fold.streams, specs[fold.fold]) for fold in folds]
    by_second: dict[str, Any] = {f"{seconds:.0f}s": {} for seconds in STAGES_S}
    for seconds in STAGES_S:
        for kind in ("known", "hidden"):
            shares = []
            for fold, trace in zip(folds, traces, strict=True):
                chosen = fold.known == (kind == "known")
                window = fold.streams.window_at(seconds)
                unrecognised = trace.unrecognised[chosen, window].mean()
                shares.append((unrecognised, (trace.named[chosen, window] >= 0).mean()))
            unrecognised, named = np.mean(shares, axis=0).tolist()
            by_second[f"{seconds:.0f}s"][kind] = {
                "unrecognised": round(unrecognised, 4),
                "named": round(named, 4),
                "neither": round(1 - unrecognised - named, 4),
            }
    constants = {
        str(number): {
            name: getattr(spec, name) for name in (*_UNKNOWN_CONSTANTS, "announce", "temperature")
        }
        for number, spec in specs.items()
    }
    return {"by_second": by_second, "constants": constants}


def _curve(
    values: Sequence[NDArray[np.float64]], folds: Sequence[OpenSetFold]
) -> dict[str, list[float]]:
    """Return known recordings accepted by hidden ones accepted, mean over networks."""
    grid = np.linspace(0, 1, CURVE_POINTS)
    curves = []
    for novel, fold in zip(values, folds, strict=True):
        bounds = np.concatenate([[-np.inf], np.sort(novel)])
        accepted = [
            (novel[chosen] <= bounds[:, None]).mean(axis=1) for chosen in (~fold.known, fold.known)
        ]
        curves.append(np.interp(grid, *accepted))
    return {
        "hidden_accepted": [round(float(x), 3) for x in grid],
        "known_accepted": [round(float(x), 4) for x in np.mean(curves, axis=0)],
    }
