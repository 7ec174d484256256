"""training/: whether stated probabilities and prediction sets keep their word.

numpy only. Scored on the cross-validation's held-out recordings, every fold with constants fitted
on the other folds' answers, at every prediction that the daemon would have made of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.decision_fit import fit_set
from training.evaluation.findings import reliability
from training.evaluation.intervals import intervals
from training.evaluation.scoring import Ratio, values
from training.evaluation.streaming import follow, posteriors, stage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec
    from training.evaluation.held_out import HeldOut
    from training.evaluation.streaming import DecisionTrace, Streams

STAGES_S = (60.0, 120.0, 180.0, 300.0)


def measure(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> dict[str, Any]:
    """Score announced probabilities and prediction sets of single substances.

    Parameters
    ----------
    held_out: with streams.
    specs: each fold's constants, fitted on the other folds.

    Returns
    -------
    announced: by place ("first", the moment of the first announcement; "60s" ... "300s"; "always",
        every prediction that announces): share of known recordings announced, share of those that
        are right, expected calibration error with its interval, and the reliability curve.
    sets: by method ("least_ambiguous", "adaptive") and place: coverage with its interval, and mean
        size, of the sets of stated coverage.
    """
    streams = held_out.streams
    if streams is None:
        raise ValueError("mixtures have no streams")
    courses = {
        fold: follow(streams.of(held_out.fold == fold), spec) for fold, spec in specs.items()
    }
    order = np.concatenate([np.flatnonzero(held_out.fold == fold) for fold in specs])
    groups = [held_out.groups[row] for row in order]
    truth = streams.truth[order]
    heard = streams.heard[order]
    course = _joined(list(courses.values()))
    spec = next(iter(specs.values()))
    return {
        "recordings": len(order),
        "set_coverage": spec.set_coverage,
        "announced": _announced(course, truth, heard, streams, groups),
        "sets": {
            "least_ambiguous": _covered(
                _least_ambiguous(streams, held_out, specs), truth, heard, streams, groups
            ),
            "adaptive": _covered(
                _adaptive(streams, held_out, specs), truth, heard, streams, groups
            ),
        },
    }


def _joined(courses: list[DecisionTrace]) -> DecisionTrace:
    return type(courses[0])(
        *(
            np.concatenate([getattr(course, name) for course in courses])
            for name in ("best", "belief", "named", "posterior", "strange")
        )
    )


def _announced(
    course: DecisionTrace,
    truth: NDArray[np.int64],
    heard: NDArray[np.bool_],
    streams: Streams,
    groups: list[str],
) -> dict[str, Any]:
    named = (course.named >= 0) & heard
    label = np.maximum(course.named, 0)
    stated = np.take_along_axis(course.posterior, label[:, :, None], axis=2)[:, :, 0]
    right = course.named == truth[:, None]
    first = named & (np.cumsum(named, axis=1) == 1)
    places = {"first": first}
    for seconds in STAGES_S:
        only = np.zeros_like(named)
        stage = stage_of(streams, seconds)
        only[:, stage] = named[:, stage]
        places[f"{seconds:.0f}s"] = only
    places["always"] = named
    found: dict[str, Any] = {}
    for place, chosen in places.items():
        rows, _ = np.nonzero(chosen)
        row: dict[str, Any] = {"announced": round(float(chosen.any(axis=1).mean()), 4)}
        if len(rows):
            curve = reliability(stated[chosen], right[chosen], rows, groups)
            row |= {
                "precision": round(float(right[chosen].mean()), 4),
                "calibration_error": round(curve.error, 4),
                "interval": list(curve.interval),
                "stated": [round(float(x), 4) for x in curve.stated],
                "hit": [round(float(x), 4) for x in curve.hit],
                "count": curve.count.tolist(),
            }
        found[place] = row
    return found


def _covered(
    member: NDArray[np.bool_],
    truth: NDArray[np.int64],
    heard: NDArray[np.bool_],
    streams: Streams,
    groups: list[str],
) -> dict[str, Any]:
    """Score sets bool[recordings, windows, labels]."""
    hit = np.take_along_axis(member, truth[:, None, None], axis=2)[:, :, 0] & heard
    size = np.where(heard, member.sum(axis=2), 0).astype(float)
    chosen = {
        f"{seconds:.0f}s": (np.arange(heard.shape[1]) == stage_of(streams, seconds)) & heard
        for seconds in STAGES_S
    }
    chosen["always"] = heard
    found = {}
    for place, there in chosen.items():
        counts = there.sum(axis=1).astype(float)
        tally = {
            "coverage": Ratio((hit & there).sum(axis=1).astype(float), counts),
            "size": Ratio((size * there).sum(axis=1), counts),
        }
        row = {name: round(value, 4) for name, value in values(tally).items()}
        spread = {name: list(pair) for name, pair in intervals(tally, groups).items()}
        found[place] = {**row, "intervals": spread}
    return found


def _least_ambiguous(
    streams: Streams, held_out: HeldOut, specs: Mapping[int, DecisionSpec]
) -> NDArray[np.bool_]:
    """Return the sets that `models.substance_decision` says: never without the likeliest label."""
    parts = []
    for fold, spec in specs.items():
        posterior = posteriors(streams.of(held_out.fold == fold), spec)
        bound = spec.set_threshold or fit_set(streams.of(held_out.fold != fold), spec)
        likeliest = posterior == posterior.max(axis=2, keepdims=True)
        parts.append((posterior >= bound) | likeliest)
    return np.concatenate(parts)


def _adaptive(
    streams: Streams, held_out: HeldOut, specs: Mapping[int, DecisionSpec]
) -> NDArray[np.bool_]:
    """Return adaptive sets: labels by falling posterior until their sum reaches a bound.

    Romano, Sesia & Candes, NeurIPS 2020, without randomising: what these would cost in size.
    """
    parts = []
    for fold, spec in specs.items():
        others = streams.of(held_out.fold != fold)
        before = _mass_before(posteriors(others, spec))
        of_truth = np.take_along_axis(before, others.truth[:, None, None], axis=2)[:, :, 0]
        level = min(1.0, np.ceil((len(of_truth) + 1) * spec.set_coverage) / len(of_truth))
        bound = np.nanquantile(of_truth, level)
        parts.append(_mass_before(posteriors(streams.of(held_out.fold == fold), spec)) <= bound)
    return np.concatenate(parts)


def _mass_before(posterior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float[recordings, windows, labels]: the posterior of all likelier labels together."""
    order = np.argsort(-posterior, axis=2, kind="stable")
    ranked = np.take_along_axis(posterior, order, axis=2)
    before = np.cumsum(ranked, axis=2) - ranked
    mass = np.empty_like(before)
    np.put_along_axis(mass, order, before, axis=2)
    return mass
