"""training/: how well a network learns smells it was not trained on, from one to three exposures.

numpy only. Each open-set network is taught the ten substances that were hidden from it, from the
first two minutes of one, two or three of their recordings, and tested on their other recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.decision_spec import DecisionSpec
from models.softmax import log_softmax
from models.taught_head import TaughtHead
from training.evaluation.decision_fit import fit_fold_head_temperatures
from training.evaluation.intervals import pool_tallies, scores_with_intervals
from training.evaluation.open_set import label_indices
from training.evaluation.scoring import Ratio
from training.evaluation.streaming import fading_means
from training.evaluation.taught_smells import LESSON_S, taught_log_probabilities, teach_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.taught_head import TaughtSmell
    from training.evaluation.open_set import OpenSetFold
    from training.evaluation.scoring import Tally

    _Scored = tuple[Tally, list[str]]
    """Scores, and the names of the tested recordings."""

EXPOSURES = (1, 2, 3)
TESTED_S = (120.0, 300.0)
"""How much of a test recording is used."""


def measure_enrolment(folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    """Teach the hidden substances and test them.

    Returns
    -------
    taught: by exposures and choice ("10 ways", among all hidden substances; "5 ways", among every
        other one; "all labels", ten taught ones and the forty known): accuracy on other recordings
        after 120 and 300 s, with intervals over recordings. "all labels" has the head temperature
        of the other networks. Exposures that leave no recording to test are left out.
    known: accuracy on held-out recordings of known substances with none and with ten taught
        smells: the cost of teaching.
    head_temperature: each network's, fitted on the other networks.
    """
    temperatures = fit_fold_head_temperatures(folds)
    rows: dict[str, Any] = {}
    for exposures in EXPOSURES:
        row: dict[str, list[_Scored]] = {}
        for fold in folds:
            for choice, scored in _lessons(fold, exposures, temperatures.get(fold.fold)):
                row.setdefault(choice, []).append(scored)
        if row:
            rows[str(exposures)] = {choice: _pool(parts) for choice, parts in row.items()}
    known = [_cost(fold, temperatures[fold.fold]) for fold in folds if fold.fold in temperatures]
    return {
        "networks": len(folds),
        "lesson_s": LESSON_S,
        "taught": rows,
        "known": _pool(known) if known else {},
        "head_temperature": {str(fold): value for fold, value in temperatures.items()},
    }


def _lessons(
    fold: OpenSetFold, exposures: int, head_temperature: float | None
) -> Iterator[tuple[str, _Scored]]:
    """Yield choice and scores of every way to teach."""
    for smells, teaches in teach_hidden(fold, exposures):
        tested = ~fold.known & ~teaches
        if not tested.any():
            continue
        for part in (smells, smells[0::2], smells[1::2]):
            if len(part) > 1:
                truth = label_indices(fold.substance, [smell.label for smell in part])
                log_p = _taught_alone(fold, part)
                yield f"{len(part)} ways", _score(fold, log_p, truth, tested & (truth >= 0))
        if head_temperature is not None:
            head = TaughtHead(smells)
            truth = label_indices(fold.substance, head.labels(fold.labels))
            log_p = _all_labels(fold, head, head_temperature)
            yield "all labels", _score(fold, log_p, truth, tested)


def _taught_alone(fold: OpenSetFold, smells: Sequence[TaughtSmell]) -> NDArray[np.float64]:
    """Return log-probabilities [recordings, windows, taught] of a choice among those smells."""
    embedding = fold.stream_embedding
    means = np.stack([smell.mean for smell in smells])
    variance = np.array([smell.variance for smell in smells])
    flat = fold.space.whiten(embedding.reshape(-1, embedding.shape[2]))
    distance = fold.space.squared_distances(flat, means) / (2 * variance)
    return log_softmax(-distance).reshape(*embedding.shape[:2], -1)


def _all_labels(
    fold: OpenSetFold, head: TaughtHead, head_temperature: float
) -> NDArray[np.float64]:
    """Return log-probabilities [recordings, windows, known + taught], NaN after a recording."""
    active = fold.streams.active
    log_p = taught_log_probabilities(fold, head, active, head_temperature)
    whole = np.full((*active.shape, log_p.shape[1]), np.nan)
    whole[active] = log_p
    return whole


def _score(
    fold: OpenSetFold,
    log_p: NDArray[np.float64],
    truth: NDArray[np.int64],
    tested: NDArray[np.bool_],
) -> _Scored:
    """Score the tested recordings by the evidence of their windows."""
    means, _ = fading_means(log_p[tested], fold.streams.shares, DecisionSpec())
    streams = fold.streams.select(tested)
    tally = {}
    for seconds in TESTED_S:
        best = streams.values_at(means, seconds).argmax(axis=1)
        right = (best == truth[tested]).astype(float)
        tally[f"accuracy_{seconds:.0f}s"] = Ratio(right, np.ones_like(right))
    return tally, [fold.names[row] for row in np.flatnonzero(tested)]


def _cost(fold: OpenSetFold, head_temperature: float) -> _Scored:
    """Score known recordings with no taught smell, and with ten that are taught once."""
    smells, _ = next(iter(teach_hidden(fold, 1)))
    tally: Tally = {}
    for prefix, head in (("alone", TaughtHead()), ("beside_ten", TaughtHead(smells))):
        log_p = _all_labels(fold, head, head_temperature)
        scores, names = _score(fold, log_p, fold.streams.truth, fold.known)
        tally |= {f"{prefix}_{name}": ratio for name, ratio in scores.items()}
    return tally, names


def _pool(parts: Sequence[_Scored]) -> dict[str, Any]:
    names = [name for _, tested in parts for name in tested]
    pooled = pool_tallies([tally for tally, _ in parts])
    return {**scores_with_intervals(pooled, names), "tests": len(names)}
