"""training/: how much of what a skewed rig loses its calibration gives back.

numpy only. Every fold's network hears the recordings that it was not trained on as another board
would have sent them (`hardware.simulator.other_rig.FIXED_RIG`), before and after the correction
that `calibration.transfer` fits on some of them; the training rig is known from the network's
own training recordings alone. What is judged are the recordings that were no references.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.correction import RigCorrection
from calibration.rig_reference import ResponseExcerpt, RigReference
from calibration.transfer import METHODS, MIN_PAIRED, fit_transfer
from hardware.simulator.other_rig import FIXED_RIG
from training.data.dataset import substance_folds
from training.evaluation.evaluate import ask
from training.evaluation.intervals import DRAWS as RESAMPLES
from training.evaluation.intervals import NOTHING_KNOWN, percentiles, resampled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.correction import CorrectionSpec
    from hardware.simulator.other_rig import OtherRig
    from models.bundle import Bundle
    from training.data.dataset import Dataset

REFERENCES = (2, 4, 8)
"""Of as many different labels; with 0 there is nothing to fit."""
SHORTER_S = (150, 300)
"""References are whole recordings, ten minutes; people hold a smell to a rig for less. So many
seconds from the start of the recording, with `SHORTER_REFERENCES`."""
SHORTER_REFERENCES = 4
DRAWS = 4
"""Choices of the reference labels, for each fold and number."""


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What a network got right, recording by recording.

    Attributes
    ----------
    windows: float64[recordings], share of the windows that it named rightly.
    whole: float64[recordings], 1 where the mean log-probability named the recording.
    """

    windows: NDArray[np.float64]
    whole: NDArray[np.float64]


def measure(
    bundles: Mapping[int, Bundle],
    data: Dataset,
    *,
    rig: OtherRig = FIXED_RIG,
    draws: int = DRAWS,
    references: Sequence[int] = REFERENCES,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    seed: int = 0,
) -> dict[str, Any]:
    """Calibrate the rig from 2, 4 and 8 references and score what comes of it.

    Parameters
    ----------
    bundles: by fold, the network that was trained without it.
    data: all recordings.
    rig: what they are heard through.
    draws: choices of references.
    references: how many.
    progress: wraps the list of folds.
    seed: of the choices.

    Returns
    -------
    scores: `windows` and `recordings` right on the training rig ("unskewed"), as the rig sends
        them ("0") and corrected from so many references, on recordings that were no references.
    gap_closed, gap_closed_recordings: by number, the share of the gap between those that the
        correction closes.
    intervals: of `gap_closed` and `gap_closed_recordings`, over recordings and choices.
    shorter: by seconds of each of `SHORTER_REFERENCES`, the share of the gap closed.
    methods: by number of references and method, whatever leaving one out says: windows right.
    chosen: by number of references, how often which method was chosen.
    """
    folds = substance_folds(data)
    parts = [
        _one_fold(bundles[fold], data, folds, fold, rig, references, draws, seed)
        for fold in progress(sorted(bundles))
    ]
    scores: dict[str, dict[str, float]] = {}
    closed: dict[str, float] = {}
    closed_whole: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    first = _joined(parts, references[0])
    for name, before in (("unskewed", "unskewed"), ("0", "before")):
        scores[name] = {
            "windows": _mean(first[before].windows, first["tested"]),
            "recordings": _mean(first[before].whole, first["tested"]),
        }
    for number in references:
        part = _joined(parts, number)
        after, tested = part["after"], part["tested"]
        scores[str(number)] = {
            "windows": _mean(after.windows, tested),
            "recordings": _mean(after.whole, tested),
        }
        for kind, into in (("windows", closed), ("whole", closed_whole)):
            share, bounds = _share(*_lost_and_gained(part, kind), seed)
            into[str(number)] = share
            name = "gap_closed" if kind == "windows" else "gap_closed_recordings"
            spread[f"{name}_{number}"] = list(bounds)
    return {
        "rig": rig.name,
        "folds": sorted(bundles),
        "draws": draws,
        "recordings": int(sum(len(part.names) for part in parts)),
        "scores": scores,
        "gap_closed": closed,
        "gap_closed_recordings": closed_whole,
        "intervals": spread,
        "shorter": {
            str(seconds): _share(
                *_lost_and_gained(_joined(parts, SHORTER_REFERENCES, seconds)), seed
            )[0]
            for seconds in SHORTER_S
        },
        "methods": {str(number): _methods(parts, number) for number in references},
        "chosen": {str(number): _chosen(parts, number) for number in references},
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One choice of references: what was chosen, what it gave, and what other methods gave."""

    is_reference: NDArray[np.bool_]
    method: str
    hits: dict[str, Hits]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One fold; its trials by number of references and, where shorter, their seconds."""

    names: tuple[str, ...]
    unskewed: Hits
    before: Hits
    trials: dict[tuple[int, int | None], list[_Trial]]


def rig_reference(data: Dataset) -> RigReference:
    """Measure the rig of a data set's recordings: what a bundle takes with it (`to_arrays`)."""
    truth = data.targets.argmax(axis=1)
    return RigReference.measure(
        {
            label: [data.samples[row].values for row in np.flatnonzero(truth == number)]
            for number, label in enumerate(data.labels)
        },
        data.samples[0].rate_hz,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """One fold's network with the recordings that it has not seen, as the rig sends them."""

    bundle: Bundle
    reference: RigReference
    skewed: Dataset
    truth: NDArray[np.int64]

    def trial(self, rows: NDArray[np.int64], seconds: int | None, *, every: bool) -> _Trial:
        """Calibrate from some recordings, whole or their first `seconds`, and score the rest.

        `every` scores every method, not just the chosen one.
        """
        exposures = [self._exposure(row, seconds) for row in rows]
        fitted = fit_transfer(exposures, self.reference)
        hits = {
            method: _hits(self.bundle, _corrected(self.skewed, spec), self.truth)
            for method, spec in fitted.specs.items()
            if method != "none" and (every or method == fitted.method)
        }
        is_reference = np.isin(np.arange(len(self.truth)), rows)
        return _Trial(is_reference, fitted.method, hits)

    def _exposure(self, row: int, seconds: int | None) -> ResponseExcerpt:
        sample, label = self.skewed.samples[row], self.skewed.labels[self.truth[row]]
        rows = None if seconds is None else round(seconds * sample.rate_hz)
        return ResponseExcerpt.from_readings(label, sample.values[:rows], sample.rate_hz)


def _one_fold(
    bundle: Bundle,
    data: Dataset,
    folds: NDArray[np.int64],
    fold: int,
    rig: OtherRig,
    references: Sequence[int],
    draws: int,
    seed: int,
) -> _Part:
    held_out = data.subset(folds == fold)
    skewed = _changed(held_out, rig.transform)
    truth = held_out.targets.argmax(axis=1)
    bench = _Bench(bundle, rig_reference(data.subset(folds != fold)), skewed, truth)
    lessons: list[tuple[int, int | None]] = [(number, None) for number in references]
    lessons += [(SHORTER_REFERENCES, seconds) for seconds in SHORTER_S]
    trials: dict[tuple[int, int | None], list[_Trial]] = {}
    for number, seconds in lessons:
        # The same choices of labels, however long the exposures.
        rng = np.random.default_rng([seed, fold, number])
        trials[number, seconds] = [
            bench.trial(
                rng.choice(len(truth), number, replace=False), seconds, every=seconds is None
            )
            for _ in range(draws)
        ]
    return _Part(
        tuple(sample.name for sample in held_out.samples),
        _hits(bundle, held_out, truth),
        _hits(bundle, skewed, truth),
        trials,
    )


def _corrected(data: Dataset, spec: CorrectionSpec) -> Dataset:
    correction = RigCorrection("", spec)
    return _changed(data, lambda values, rate_hz: correction.apply(values, 1.0 / rate_hz))


def _changed(
    data: Dataset, change: Callable[[NDArray[np.float32], float], NDArray[np.float32]]
) -> Dataset:
    samples = tuple(
        dataclasses.replace(sample, values=change(sample.values, sample.rate_hz))
        for sample in data.samples
    )
    return dataclasses.replace(data, samples=samples)


def _hits(bundle: Bundle, data: Dataset, truth: NDArray[np.int64]) -> Hits:
    answers = ask(bundle, data)
    if answers.logits is None:
        raise ValueError("a rig is scored by a model of substances")
    log_p = answers.logits - np.logaddexp.reduce(answers.logits, axis=1, keepdims=True)
    right = log_p.argmax(axis=1) == truth[answers.owner]
    windows, whole = np.empty(len(truth)), np.empty(len(truth))
    for row in range(len(truth)):
        own = answers.owner == row
        windows[row] = right[own].mean()
        whole[row] = log_p[own].mean(axis=0).argmax() == truth[row]
    return Hits(windows, whole)


def _joined(parts: Sequence[_Part], number: int, seconds: int | None = None) -> dict[str, Any]:
    """Put the folds side by side: Hits[draws, recordings] and which of those are judged."""

    def stacked(rows: Callable[[_Part, _Trial], Hits]) -> Hits:
        by_kind = [
            np.concatenate(
                [
                    np.stack(
                        [getattr(rows(part, trial), kind) for trial in part.trials[number, seconds]]
                    )
                    for part in parts
                ],
                axis=1,
            )
            for kind in ("windows", "whole")
        ]
        return Hits(*by_kind)

    return {
        "unskewed": stacked(lambda part, _trial: part.unskewed),
        "before": stacked(lambda part, _trial: part.before),
        "after": stacked(lambda part, trial: trial.hits.get(trial.method, part.before)),
        "tested": np.concatenate(
            [
                np.stack([~trial.is_reference for trial in part.trials[number, seconds]])
                for part in parts
            ],
            axis=1,
        ),
    }


def _lost_and_gained(
    part: dict[str, Any], kind: str = "windows"
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return what was gained and what could be, [draws, recordings], and which are judged."""
    before = getattr(part["before"], kind)
    gained = getattr(part["after"], kind) - before
    return gained, getattr(part["unskewed"], kind) - before, part["tested"]


def _mean(hits: NDArray[np.float64], tested: NDArray[np.bool_]) -> float:
    return round(float(hits[tested].mean()), 4)


def _share(
    gained: NDArray[np.float64],
    possible: NDArray[np.float64],
    tested: NDArray[np.bool_],
    seed: int,
) -> tuple[float, tuple[float, float]]:
    """Return sum(gained) / sum(possible) over [draws, recordings], and its 95 % interval.

    Recordings and choices of references are resampled, each as a whole. Where nothing was lost,
    nothing is closed.
    """
    gained, possible = gained * tested, possible * tested
    if not possible.sum():
        return 0.0, NOTHING_KNOWN
    draws, recordings = gained.shape
    by_choice = resampled(draws, None, seed=seed, draws=RESAMPLES).astype(np.float64)
    by_recording = resampled(recordings, None, seed=seed + 1, draws=RESAMPLES).astype(np.float64)
    sums = [
        np.einsum("bd,dr,br->b", by_choice, part, by_recording, optimize=True)
        for part in (gained, possible)
    ]
    # A resample in which nothing was lost has no share.
    shares = np.full(RESAMPLES, np.nan)
    np.divide(sums[0], sums[1], out=shares, where=sums[1] != 0)
    return round(float(gained.sum() / possible.sum()), 4), percentiles(shares)


def _methods(parts: Sequence[_Part], number: int) -> dict[str, float]:
    """Return the share of windows right by method, over recordings that were no references."""
    methods = [m for m in METHODS[1:] if m != "standardised" or number >= MIN_PAIRED]
    return {
        method: round(
            float(
                np.concatenate(
                    [
                        trial.hits[method].windows[~trial.is_reference]
                        for part in parts
                        for trial in part.trials[number, None]
                    ]
                ).mean()
            ),
            4,
        )
        for method in methods
    }


def _chosen(parts: Sequence[_Part], number: int) -> dict[str, int]:
    methods = [trial.method for part in parts for trial in part.trials[number, None]]
    return {method: methods.count(method) for method in METHODS if method in methods}
