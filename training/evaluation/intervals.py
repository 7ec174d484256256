"""training/: how far a score is to be trusted: bootstrap intervals over recordings.

numpy only. Windows of one recording resemble each other, so they are no independent
witnesses: what is resampled is recordings, or groups of recordings that were cut from one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.scoring import Ratio, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2000
"""Resamples: the ends of a 95 % interval then stand on 50 draws each."""

Interval = tuple[float, float]
NOTHING_KNOWN: Interval = (0.0, 1.0)
"""The interval of a share of nothing."""


def intervals(
    tally: Tally, groups: Sequence[str] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> dict[str, Interval]:
    """Return the 95 % percentile interval of every score (Efron & Tibshirani 1993, chapter 13).

    Parameters
    ----------
    tally: scores as sums over recordings.
    groups: per recording, what it is resampled with; None resamples each by itself.
    seed: of the resampling; the same for all scores, so that they can be compared.
    draws: number of resamples.
    """
    recordings = len(next(iter(tally.values())).gained)
    weights = resampled(recordings, groups, seed=seed, draws=draws).astype(np.float64)
    return {name: percentiles(ratio.of(weights)) for name, ratio in tally.items()}


def interval_of(
    statistic: Callable[[NDArray[np.int64]], float],
    recordings: int,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Return the interval of a statistic that is no ratio, a median say.

    `statistic` gets the indices of a resample's recordings; NaN says that it has none.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, recordings, size=(draws, recordings))
    return percentiles(np.array([statistic(row) for row in rows]))


def resampled(
    recordings: int, groups: Sequence[str] | None, *, seed: int, draws: int
) -> NDArray[np.int64]:
    """Return int[draws, recordings]: how often each recording is in each resample."""
    number = np.unique(list(groups), return_inverse=True)[1] if groups else np.arange(recordings)
    kinds = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(kinds, np.full(kinds, 1 / kinds), size=draws)
    chosen: NDArray[np.int64] = counts[:, number]
    return chosen


def percentiles(scores: NDArray[np.float64]) -> Interval:
    """Return the middle 95 % of bootstrapped scores, NaN left out."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return NOTHING_KNOWN
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return round(float(low), 4), round(float(high), 4)


def pooled(parts: Sequence[Tally]) -> Tally:
    """Put the tallies of several folds together: one row per recording of any of them."""

    def stacked(name: str) -> Ratio:
        ratios = [part[name] for part in parts]
        present = [ratio.present for ratio in ratios if ratio.present is not None]
        return Ratio(
            np.concatenate([ratio.gained for ratio in ratios]),
            np.concatenate([ratio.possible for ratio in ratios]),
            np.concatenate(present) if present else None,
        )

    return {name: stacked(name) for name in parts[0]}
