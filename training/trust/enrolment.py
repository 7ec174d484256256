"""training/: how well a network learns smells that it never met, from one to three exposures.

numpy only. Each network is taught the ten substances that were hidden from it, from the first two
minutes of one, two or three of their recordings, as a rig is (`calibration.enrolment`,
`models.taught_head`), and tested on their other recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.enrolment import fit_smell
from models.decision_spec import DecisionSpec
from models.softmax import log_softmax
from models.taught_head import TaughtHead
from training.evaluation.intervals import intervals, pooled
from training.evaluation.scoring import Ratio, values
from training.evaluation.streaming import as_of, faded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.taught_head import TaughtSmell
    from training.evaluation.open_set_answers import OpenFold
    from training.evaluation.scoring import Tally

EXPOSURES = (1, 2, 3)
LESSON_S = 120.0
"""How long each exposure is."""
STAGES_S = (120.0, 300.0)
"""How long a test recording is listened to."""
HEAD_TEMPERATURES = tuple(float(x) for x in np.round(np.geomspace(1, 1024, 21), 1))


def measure(folds: Sequence[OpenFold]) -> dict[str, Any]:
    """Teach the hidden substances and test them.

    Returns
    -------
    taught: by exposures and choice ("10 ways", among all hidden substances; "5 ways", among every
        other one; "all labels", ten taught beside the forty known): accuracy on other recordings
        after 120 and 300 s, with intervals over recordings. "all labels" has the head temperature
        of the other networks. Exposures that leave no recording to test are left out.
    known: accuracy on held-out recordings of known substances beside none and ten taught smells:
        what teaching costs.
    head_temperature: each network's, fitted on the other networks.
    """
    warmth = head_temperatures(folds)
    rows: dict[str, Any] = {}
    for exposures in EXPOSURES:
        row: dict[str, list[tuple[Tally, list[str]]]] = {}
        for fold in folds:
            for name, tally, names in _lessons(fold, exposures, warmth.get(fold.fold)):
                row.setdefault(name, []).append((tally, names))
        if row:
            rows[str(exposures)] = {name: _summed(parts) for name, parts in row.items()}
    known = [_cost(fold, warmth[fold.fold]) for fold in folds if fold.fold in warmth]
    return {
        "networks": len(folds),
        "lesson_s": LESSON_S,
        "taught": rows,
        "known": _summed(known) if known else {},
        "head_temperature": {str(fold): value for fold, value in warmth.items()},
    }


def head_temperatures(folds: Sequence[OpenFold]) -> dict[int, float]:
    """Return each network's head temperature, fitted on the others; empty with fewer than two."""
    if len(folds) < 2:  # noqa: PLR2004 - one to fit on, one to judge
        return {}
    losses = {fold.fold: _losses(fold) for fold in folds}
    return {
        fold.fold: _coolest([losses[other.fold] for other in folds if other is not fold])
        for fold in folds
    }


def fit_head_temperature(folds: Sequence[OpenFold]) -> float:
    """Return the head temperature of least negative log-likelihood, for one exposure a smell.

    Over held-out recordings of known and of taught substances together, every window alike.
    """
    return _coolest([_losses(fold) for fold in folds])


def _coolest(losses: Sequence[NDArray[np.float64]]) -> float:
    return HEAD_TEMPERATURES[int(np.argmin(np.mean(losses, axis=0)))]


def _losses(fold: OpenFold) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood by head temperature, over all choices of lessons."""
    rows, names = _until(fold, max(STAGES_S))
    total = np.zeros(len(HEAD_TEMPERATURES))
    lessons = list(_teachings(fold, 1))
    for smells, teaches in lessons:
        head = TaughtHead(smells)
        truth = _truth(fold, head)
        tested = ~np.isin(names, np.flatnonzero(teaches)) & (truth[names] >= 0)
        for number, warmth in enumerate(HEAD_TEMPERATURES):
            log_p = _told(fold, head, rows, tested, warmth)
            total[number] -= log_p[np.arange(len(log_p)), truth[names[tested]]].mean()
    return total / max(len(lessons), 1)


def _until(fold: OpenFold, seconds: float) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which streamed windows end by then, bool[recordings, windows], and of which each is.

    Every fourth one: neighbours say the same.
    """
    chosen = fold.streams.heard & (fold.streams.ends_s <= seconds)
    chosen &= np.arange(chosen.shape[1]) % 4 == 0
    return chosen, np.nonzero(chosen)[0]


def _told(
    fold: OpenFold,
    head: TaughtHead,
    rows: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    warmth: float,
) -> NDArray[np.float64]:
    streams = fold.streams
    if streams.embedding is None:
        raise ValueError("lessons need the embeddings of the streams")
    return head.log_probabilities(
        fold.space,
        streams.logits[rows][tested],
        streams.embedding[rows][tested],
        DecisionSpec().temperature,
        warmth,
    )


def _teachings(
    fold: OpenFold, exposures: int
) -> Iterator[tuple[tuple[TaughtSmell, ...], NDArray[np.bool_]]]:
    """Yield smells taught from `exposures` recordings each, and bool[recordings] which those are.

    As many choices as there are recordings of a substance: the k-th takes recordings k, k + 1, ...
    of each, so that every one teaches equally often.
    """
    streams = fold.streams
    if streams.embedding is None:
        raise ValueError("lessons need the embeddings of the streams")
    inside = streams.ends_s <= LESSON_S
    by_smell = [np.flatnonzero(fold.of_hidden == number) for number in range(len(fold.hidden))]
    for first in range(min(map(len, by_smell))):
        smells = []
        teaches = np.zeros(len(fold.names), dtype=bool)
        for label, recordings in zip(fold.hidden, by_smell, strict=True):
            chosen = recordings[(first + np.arange(exposures)) % len(recordings)]
            teaches[chosen] = True
            heard = [streams.embedding[row, inside & streams.heard[row]] for row in chosen]
            smells.append(fit_smell(label, heard, fold.space))
        yield tuple(smells), teaches


def _truth(fold: OpenFold, head: TaughtHead) -> NDArray[np.int64]:
    """Return int[recordings], the place of each true label among the head's, -1 where not there."""
    place = {label: number for number, label in enumerate(head.labels(fold.labels))}
    return np.array([place.get(name, -1) for name in fold.substance])


def _lessons(
    fold: OpenFold, exposures: int, warmth: float | None
) -> Iterator[tuple[str, Tally, list[str]]]:
    """Yield choice, scores and the names of the tested recordings of every way to teach."""
    for smells, teaches in _teachings(fold, exposures):
        tested = ~fold.known & ~teaches
        if not tested.any():
            continue
        for part in (smells, smells[0::2], smells[1::2]):
            if len(part) > 1:
                number = _number(fold, part)
                scores = _tested(fold, _among(fold, part), number, tested & (number >= 0))
                yield f"{len(part)} ways", *scores
        if warmth is not None:
            head = TaughtHead(smells)
            beside = _beside(fold, head, warmth)
            yield "all labels", *_tested(fold, beside, _truth(fold, head), tested)


def _number(fold: OpenFold, smells: Sequence[TaughtSmell]) -> NDArray[np.int64]:
    place = {smell.label: number for number, smell in enumerate(smells)}
    return np.array([place.get(name, -1) for name in fold.substance])


def _among(fold: OpenFold, smells: Sequence[TaughtSmell]) -> NDArray[np.float64]:
    """Return log-probabilities [recordings, windows, taught], the choice being among those."""
    streams = fold.streams
    if streams.embedding is None:
        raise ValueError("lessons need the embeddings of the streams")
    means = np.stack([smell.mean for smell in smells])
    variance = np.array([smell.variance for smell in smells])
    flat = streams.embedding.reshape(-1, streams.embedding.shape[2])
    distance = fold.space.squared_distances(fold.space.whiten(flat), means) / (2 * variance)
    return log_softmax(-distance).reshape(*streams.embedding.shape[:2], -1)


def _beside(fold: OpenFold, head: TaughtHead, warmth: float) -> NDArray[np.float64]:
    """Return log-probabilities [recordings, windows, known + taught], as the daemon has them."""
    streams = fold.streams
    everything = np.ones(streams.heard.sum(), dtype=bool)
    told = _told(fold, head, streams.heard, everything, warmth)
    whole = np.full((*streams.heard.shape, told.shape[1]), np.nan)
    whole[streams.heard] = told
    return whole


def _tested(
    fold: OpenFold,
    log_p: NDArray[np.float64],
    truth: NDArray[np.int64],
    tested: NDArray[np.bool_],
) -> tuple[Tally, list[str]]:
    """Score the tested recordings by the evidence of their windows."""
    means, _ = faded(log_p[tested], fold.streams.shares, DecisionSpec())
    streams = fold.streams.of(tested)
    tally = {}
    for seconds in STAGES_S:
        best = as_of(means, streams, seconds).argmax(axis=1)
        right = (best == truth[tested]).astype(float)
        tally[f"accuracy_{seconds:.0f}s"] = Ratio(right, np.ones_like(right))
    return tally, [fold.names[row] for row in np.flatnonzero(tested)]


def _cost(fold: OpenFold, warmth: float) -> tuple[Tally, list[str]]:
    """Score known recordings without any lesson, and beside ten smells taught once."""
    alone, names = _tested(fold, _beside(fold, TaughtHead(), warmth), fold.truth, fold.known)
    smells, _ = next(iter(_teachings(fold, 1)))
    beside, _ = _tested(fold, _beside(fold, TaughtHead(smells), warmth), fold.truth, fold.known)
    both = {f"alone_{name}": ratio for name, ratio in alone.items()}
    return both | {f"beside_ten_{name}": ratio for name, ratio in beside.items()}, names


def _summed(parts: Sequence[tuple[Tally, list[str]]]) -> dict[str, Any]:
    whole = pooled([tally for tally, _ in parts])
    names = [name for _, group in parts for name in group]
    return {
        "scores": {name: round(value, 4) for name, value in values(whole).items()},
        "intervals": {name: list(pair) for name, pair in intervals(whole, names).items()},
        "tests": len(names),
    }
