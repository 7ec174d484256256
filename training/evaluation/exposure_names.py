"""training/: when a name is announced and taken back, fitted on exposures with their onsets.

numpy only. Where recordings begin in clean air, the evidence begins where the nose notices the
smell, and the seconds since its arrival are known. A name is to come soon, to be right and to stay:
the constants are chosen by all three.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from training.evaluation.streaming import (
    late_windows,
    novelty_masks,
    posteriors,
    trace_announcements,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec
    from training.evaluation.streaming import DecisionTrace, Streams

EXPOSURE_MEMORY_S = 1800.0
"""Memory of the evidence where exposures are streamed from their onset: another odour begins with
an onset of its own, and the levels of a long exposure drift. On fruits5 with a day held out, fewer
names were replaced after a quarter of an hour than with 180 or 600 s."""
SOON_S = 60.0
"""A name is to be announced within this time of the smell's arrival."""
FAULT_COST = 3.0
"""A first name that is wrong, or does not stay, costs as much as so many names that come soon and
are right in the end: silence is better than a doubtful name."""

_FLOORS = (0.3, 0.55, 0.8, 1.0)
_FACTORS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
_BELIEFS = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98)
_CONFIRM = (1, 2, 3, 4, 6, 8)
_WITHDRAW = 0.05
"""Share of the announcing belief below which a name is withdrawn: it stays until another one is
sure, because a doubt in the middle of an exposure mostly passes."""


class NameCounts(NamedTuple):
    """How the names of some exposures do, as shares of the exposures.

    Attributes
    ----------
    soon: named within `SOON_S` of the smell's arrival.
    faulty: the first name was wrong, or was withdrawn or replaced.
    right: the last name is right.
    """

    soon: float
    faulty: float
    right: float


def fit_names(streams: Streams, spec: DecisionSpec) -> DecisionSpec:
    """Return `spec` with the evidence, `announce`, `withdraw` and `confirm` of the best names.

    Those of the largest sum of the shares of exposures that are named soon and that are named
    rightly in the end, less the share of faulty ones at its cost; of equals the most cautious. How
    fast evidence grows is chosen too: while a smell rises, window after window is sure of the same
    wrong name, and a likelihood averaged over an exposure does not show it.
    """
    masks = *novelty_masks(streams, spec), late_windows(streams, spec)
    tried = []
    for floor, factor in itertools.product(_FLOORS, _FACTORS):
        weighed = dataclasses.replace(spec, evidence_floor=floor, evidence_factor=factor)
        posterior = posteriors(streams, weighed)
        for constants in _constants(weighed):
            counts = count_names(streams, trace_announcements(posterior, constants, *masks))
            worth = counts.soon + counts.right - FAULT_COST * counts.faulty
            rank = (round(worth, 6), constants.announce, constants.confirm)
            tried.append((rank, constants))
    return max(tried, key=lambda one: one[0])[1]


def _constants(spec: DecisionSpec) -> Iterable[DecisionSpec]:
    for belief, confirm in itertools.product(_BELIEFS, _CONFIRM):
        yield dataclasses.replace(
            spec, announce=belief, withdraw=round(_WITHDRAW * belief, 3), confirm=confirm
        )


def count_names(streams: Streams, trace: DecisionTrace) -> NameCounts:
    """Count soon, faulty and right names of streamed exposures."""
    active = streams.active
    named = np.where(active, trace.named, -1)
    has_name = named >= 0
    first = has_name.argmax(axis=1)
    rows = np.arange(len(named))
    first_name = named[rows, first]
    ever = has_name.any(axis=1)
    later = active & (np.arange(named.shape[1]) > first[:, None])
    changed = (later & (named != first_name[:, None])).any(axis=1)
    delay_s: NDArray[np.float64] | float = 0.0 if streams.delay_s is None else streams.delay_s
    last = named[rows, np.maximum(active.sum(axis=1) - 1, 0)]
    soon = ever & (streams.ends_s[first] + delay_s <= SOON_S)
    faulty = ever & (changed | (first_name != streams.truth))
    right = last == streams.truth
    return NameCounts(*(float(part.mean()) for part in (soon, faulty, right)))
