"""training/: bootstrap intervals of scores, over recordings or groups of them.

numpy only. Windows of one recording resemble each other and are not independent, so recordings
are resampled, or groups of recordings that were cut from one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.scoring import Ratio, Tally, total_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2000
"""Resamples: each end of a 95 % interval rests on 50 draws."""

Interval = tuple[float, float]
NOTHING_KNOWN: Interval = (0.0, 1.0)
"""The interval of a share of nothing."""


def score_intervals(
    tally: Tally, groups: Sequence[str] | None = None, *, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % percentile interval of every score (Efron & Tibshirani 1993, chapter 13).

    Recordings are resampled with their groups, or each by itself without `groups`; all scores by
    the same draws, so that they can be compared.
    """
    recordings = len(next(iter(tally.values())).gained)
    weights = resample_counts(recordings, groups, seed=seed).astype(np.float64)
    return {name: percentile_interval(ratio.weighted(weights)) for name, ratio in tally.items()}


def scores_with_intervals(tally: Tally, groups: Sequence[str] | None = None) -> dict[str, Any]:
    """Return `scores` and their `intervals` by name, rounded as reports have them."""
    return {
        "scores": {name: round(value, 4) for name, value in total_scores(tally).items()},
        "intervals": {name: list(pair) for name, pair in score_intervals(tally, groups).items()},
    }


def resample_counts(
    recordings: int,
    groups: Sequence[str] | None = None,
    *,
    seed: int | np.random.Generator = 0,
    draws: int = DRAWS,
) -> NDArray[np.int64]:
    """Return int[draws, recordings]: how often each recording is in each resample."""
    number = np.unique(list(groups), return_inverse=True)[1] if groups else np.arange(recordings)
    kinds = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(kinds, np.full(kinds, 1 / kinds), size=draws)
    chosen: NDArray[np.int64] = counts[:, number]
    return chosen


def percentile_interval(scores: NDArray[np.float64]) -> Interval:
    """Return the middle 95 % of bootstrapped scores, NaN left out."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return NOTHING_KNOWN
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return round(float(low), 4), round(float(high), 4)


def pool_tallies(parts: Sequence[Tally]) -> Tally:
    """Put the tallies of several folds together: one row per recording of any of them."""

    def stack(name: str) -> Ratio:
        ratios = [part[name] for part in parts]
        present = [ratio.present for ratio in ratios if ratio.present is not None]
        return Ratio(
            np.concatenate([ratio.gained for ratio in ratios]),
            np.concatenate([ratio.possible for ratio in ratios]),
            np.concatenate(present) if present else None,
        )

    return {name: stack(name) for name in parts[0]}
