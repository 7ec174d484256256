"""training/: whether announced probabilities and prediction sets are right as often as stated.

numpy only. Scored on the cross-validation's held-out recordings, every fold with constants fitted
on the other folds, at every prediction that the daemon would make of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.decision_fit import fit_set
from training.evaluation.findings import reliability
from training.evaluation.intervals import scores_with_intervals
from training.evaluation.scoring import Ratio
from training.evaluation.streaming import STAGES_S, of_truth, posteriors, trace_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec
    from training.evaluation.held_out import HeldOut
    from training.evaluation.streaming import DecisionTrace, Streams


def measure_prediction_sets(held_out: HeldOut, specs: Mapping[int, DecisionSpec]) -> dict[str, Any]:
    """Score announced probabilities and prediction sets of single substances.

    Parameters
    ----------
    held_out: with streams.
    specs: every fold's constants, fitted on the other folds.

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

    def per_fold(compute: Callable[[Streams, Streams, DecisionSpec], NDArray[Any]]) -> NDArray[Any]:
        """Compute an array per recording from a fold's streams, the other folds' and its spec."""
        parts = {
            fold: compute(
                streams.select(held_out.fold == fold), streams.select(held_out.fold != fold), spec
            )
            for fold, spec in specs.items()
        }
        first = next(iter(parts.values()))
        whole = np.zeros((len(held_out.fold), *first.shape[1:]), first.dtype)
        for fold, part in parts.items():
            whole[held_out.fold == fold] = part
        return whole

    trace = trace_folds(streams, held_out.fold, specs)
    return {
        "recordings": len(held_out.names),
        "set_coverage": next(iter(specs.values())).set_coverage,
        "announced": _score_announced(trace, streams, held_out.groups),
        "sets": {
            method: _score_sets(per_fold(sets), streams, held_out.groups)
            for method, sets in (("least_ambiguous", _least_ambiguous), ("adaptive", _adaptive))
        },
    }


def _windows_at_stages(streams: Streams) -> dict[str, NDArray[np.bool_]]:
    """Return by stage the bool[windows] that is true at its window alone."""
    windows = np.arange(len(streams.ends_s))
    return {f"{seconds:.0f}s": windows == streams.window_at(seconds) for seconds in STAGES_S}


def _score_announced(
    trace: DecisionTrace, streams: Streams, groups: Sequence[str]
) -> dict[str, Any]:
    announced = (trace.named >= 0) & streams.active
    label = np.maximum(trace.named, 0)
    stated = np.take_along_axis(trace.posterior, label[:, :, None], axis=2)[:, :, 0]
    right = trace.named == streams.truth[:, None]
    places = {"first": announced & (np.cumsum(announced, axis=1) == 1)}
    places |= {stage: announced & at for stage, at in _windows_at_stages(streams).items()}
    places["always"] = announced
    found: dict[str, Any] = {}
    for place, chosen in places.items():
        found[place] = {"announced": round(float(chosen.any(axis=1).mean()), 4)}
        if chosen.any():
            curve = reliability(stated[chosen], right[chosen], np.nonzero(chosen)[0], groups)
            found[place] |= {
                "precision": round(float(right[chosen].mean()), 4),
                "calibration_error": round(curve.error, 4),
                "interval": list(curve.interval),
                "stated": [round(float(x), 4) for x in curve.stated],
                "hit": [round(float(x), 4) for x in curve.hit],
                "count": curve.count.tolist(),
            }
    return found


def _score_sets(
    member: NDArray[np.bool_], streams: Streams, groups: Sequence[str]
) -> dict[str, Any]:
    """Score sets bool[recordings, windows, labels]."""
    active = streams.active
    hit = of_truth(member, streams.truth)
    size = member.sum(axis=2)
    places = {stage: active & at for stage, at in _windows_at_stages(streams).items()}
    found = {}
    for place, chosen in (places | {"always": active}).items():
        counts = chosen.sum(axis=1).astype(float)
        tally = {
            "coverage": Ratio((hit & chosen).sum(axis=1).astype(float), counts),
            "size": Ratio((size * chosen).sum(axis=1).astype(float), counts),
        }
        row = scores_with_intervals(tally, groups)
        found[place] = {**row["scores"], "intervals": row["intervals"]}
    return found


def _least_ambiguous(own: Streams, others: Streams, spec: DecisionSpec) -> NDArray[np.bool_]:
    """Return the sets of `models.substance_decision`: never without the likeliest label."""
    posterior = posteriors(own, spec)
    bound = spec.set_threshold or fit_set(others, spec)
    likeliest: NDArray[np.bool_] = posterior == posterior.max(axis=2, keepdims=True)
    return (posterior >= bound) | likeliest


def _adaptive(own: Streams, others: Streams, spec: DecisionSpec) -> NDArray[np.bool_]:
    """Return adaptive sets: labels by falling posterior until their sum reaches a bound.

    Romano, Sesia & Candes, NeurIPS 2020, without randomising, to compare their size.
    """
    before = of_truth(_mass_before(posteriors(others, spec)), others.truth)
    level = min(1.0, np.ceil((len(before) + 1) * spec.set_coverage) / len(before))
    bound = float(np.nanquantile(before, level))
    return _mass_before(posteriors(own, spec)) <= bound


def _mass_before(posterior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float[recordings, windows, labels]: the posterior of all likelier labels together."""
    order = np.argsort(-posterior, axis=2, kind="stable")
    ranked = np.take_along_axis(posterior, order, axis=2)
    before = np.cumsum(ranked, axis=2) - ranked
    mass = np.empty_like(before)
    np.put_along_axis(mass, order, before, axis=2)
    return mass
