"""training/: how much of what a different rig loses its calibration restores.

numpy only. Every fold's network is scored on the recordings that it was not trained on as another
board would send them (`hardware.simulator.other_rig.FIXED_RIG`), before and after the correction
that `calibration.transfer` fits on some of them; the training rig is known from the network's
own training recordings alone. Only recordings that were no references are scored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.correction import RigCorrection
from calibration.rig_reference import ResponseExcerpt
from calibration.transfer import METHODS, MIN_PAIRED, fit_transfer
from hardware.simulator.other_rig import FIXED_RIG
from models.softmax import log_softmax
from training.data.dataset import substance_folds
from training.evaluation.intervals import (
    DRAWS,
    NOTHING_KNOWN,
    Interval,
    percentile_interval,
    resample_counts,
)
from training.evaluation.network_outputs import measure_rig, run_network
from training.evaluation.scoring import substance_tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.rig_reference import RigReference
    from hardware.simulator.other_rig import OtherRig
    from models.bundle import Bundle
    from training.data.dataset import Dataset

REFERENCES = (2, 4, 8)
"""How many references, each of another label."""
SHORTER_S = (150, 300)
"""References are whole recordings of ten minutes; people hold a smell to a rig for less. So many
seconds from the start of the recording, with `SHORTER_REFERENCES`."""
SHORTER_REFERENCES = 4
CHOICES = 4
"""Choices of the reference labels, for each fold and number."""

KINDS = ("windows", "recordings")
"""What is counted, along the first axis of all arrays of shares: the share of a recording's
windows that are named right, and whether the mean log-probability names the recording right."""

_TaughtFrom = tuple[int, int | None]
"""How many references, and their seconds; None for whole recordings."""


def measure_calibration(
    bundles: Mapping[int, Bundle],
    data: Dataset,
    *,
    rig: OtherRig = FIXED_RIG,
    choices: int = CHOICES,
    references: Sequence[int] = REFERENCES,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    seed: int = 0,
) -> dict[str, Any]:
    """Calibrate the rig from 2, 4 and 8 references and score the corrected recordings.

    `bundles` holds the network that was trained without each fold; `progress` wraps the folds.

    Returns
    -------
    scores: `windows` and `recordings` right on the training rig ("unskewed"), as the rig sends
        them ("0") and corrected from so many references, on recordings that were no references.
    gap_closed, gap_closed_recordings: by number, the share of the gap between those that the
        correction closes.
    intervals: of `gap_closed` and `gap_closed_recordings`, over recordings and choices.
    shorter: by seconds of each of `SHORTER_REFERENCES`, the share of the gap closed.
    methods: by number of references and method, even if not the chosen one: windows right.
    chosen: by number of references, how often each method was chosen.
    """
    fold_of = substance_folds(data)
    folds = [
        _score_fold(bundles[fold], data, fold_of, fold, rig, references, choices, seed)
        for fold in progress(sorted(bundles))
    ]
    first = _Joined.of(folds, (references[0], None))
    scores = {"unskewed": first.mean(first.unskewed), "0": first.mean(first.before)}
    closed: tuple[dict[str, float], dict[str, float]] = {}, {}
    intervals: dict[str, list[float]] = {}
    for number in references:
        joined = _Joined.of(folds, (number, None))
        scores[str(number)] = joined.mean(joined.after)
        for kind, name in enumerate(("gap_closed", "gap_closed_recordings")):
            closed[kind][str(number)], interval = joined.gap_closed(kind, seed)
            intervals[f"{name}_{number}"] = list(interval)
    shorter = {s: _Joined.of(folds, (SHORTER_REFERENCES, s)).gap_closed(0, seed) for s in SHORTER_S}
    return {
        "rig": rig.name,
        "folds": sorted(bundles),
        "draws": choices,
        "recordings": int(first.tested.shape[1]),
        "scores": scores,
        "gap_closed": closed[0],
        "gap_closed_recordings": closed[1],
        "intervals": intervals,
        "shorter": {str(seconds): share for seconds, (share, _) in shorter.items()},
        "methods": {str(number): _by_method(folds, number) for number in references},
        "chosen": {str(number): _times_chosen(folds, number) for number in references},
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One choice of references: bool[recordings] of the others, the chosen method, and all methods.

    Each method with float64[2, recordings], see `KINDS`.
    """

    tested: NDArray[np.bool_]
    method: str
    right: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class _FoldScores:
    """One fold: float64[2, recordings] on the training rig and as the rig sends them; trials."""

    unskewed: NDArray[np.float64]
    before: NDArray[np.float64]
    trials: dict[_TaughtFrom, list[_Trial]]


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """All folds' recordings: float64[2, choices, recordings], and bool[choices, recordings]."""

    unskewed: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    tested: NDArray[np.bool_]

    @classmethod
    def of(cls, folds: Sequence[_FoldScores], taught_from: _TaughtFrom) -> _Joined:
        def stack(array: Callable[[_FoldScores, _Trial], NDArray[Any]]) -> NDArray[Any]:
            parts = [[array(fold, trial) for trial in fold.trials[taught_from]] for fold in folds]
            return np.concatenate([np.stack(part, axis=-2) for part in parts], axis=-1)

        return cls(
            stack(lambda fold, _trial: fold.unskewed),
            stack(lambda fold, _trial: fold.before),
            stack(lambda fold, trial: trial.right.get(trial.method, fold.before)),
            stack(lambda _fold, trial: trial.tested),
        )

    def mean(self, right: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean of each kind over the tested recordings."""
        means = (float(part[self.tested].mean()) for part in right)
        return {kind: round(mean, 4) for kind, mean in zip(KINDS, means, strict=True)}

    def gap_closed(self, kind: int, seed: int) -> tuple[float, Interval]:
        """Return the share of the rig's loss that the correction restores, and its interval.

        Recordings and choices of references are resampled, each as a whole. Where nothing was
        lost, nothing is closed.
        """
        gained = (self.after[kind] - self.before[kind]) * self.tested
        lost = (self.unskewed[kind] - self.before[kind]) * self.tested
        if not lost.sum():
            return 0.0, NOTHING_KNOWN
        choices, recordings = gained.shape
        by_choice = resample_counts(choices, seed=seed).astype(np.float64)
        by_recording = resample_counts(recordings, seed=seed + 1).astype(np.float64)
        sums = [
            np.einsum("bd,dr,br->b", by_choice, part, by_recording, optimize=True)
            for part in (gained, lost)
        ]
        # A resample in which nothing was lost has no share.
        shares = np.full(DRAWS, np.nan)
        np.divide(sums[0], sums[1], out=shares, where=sums[1] != 0)
        return round(float(gained.sum() / lost.sum()), 4), percentile_interval(shares)


def _score_fold(
    bundle: Bundle,
    data: Dataset,
    fold_of: NDArray[np.int64],
    fold: int,
    rig: OtherRig,
    references: Sequence[int],
    choices: int,
    seed: int,
) -> _FoldScores:
    held_out = data.subset(fold_of == fold)
    reference = measure_rig(data.subset(fold_of != fold))
    sent = _change_readings(held_out, rig.transform)
    taught_from_all: list[_TaughtFrom] = [(number, None) for number in references]
    taught_from_all += [(SHORTER_REFERENCES, seconds) for seconds in SHORTER_S]
    trials: dict[_TaughtFrom, list[_Trial]] = {}
    for number, seconds in taught_from_all:
        # The same choices of labels, however long the exposures.
        rng = np.random.default_rng([seed, fold, number])
        rows = [rng.choice(len(sent.samples), number, replace=False) for _ in range(choices)]
        trials[number, seconds] = [
            _try(bundle, sent, reference, chosen, seconds) for chosen in rows
        ]
    return _FoldScores(_share_right(bundle, held_out), _share_right(bundle, sent), trials)


def _try(
    bundle: Bundle,
    sent: Dataset,
    reference: RigReference,
    rows: NDArray[np.int64],
    seconds: int | None,
) -> _Trial:
    """Calibrate from some recordings, whole or their first `seconds`, and score the rest.

    Of whole recordings every method is scored, else only the chosen one.
    """
    exposures = []
    for row in rows:
        sample, label = sent.samples[row], sent.labels[int(sent.samples[row].target.argmax())]
        end = None if seconds is None else round(seconds * sample.rate_hz)
        exposures.append(ResponseExcerpt.from_readings(label, sample.values[:end], sample.rate_hz))
    fitted = fit_transfer(exposures, reference)
    right = {}
    for method, spec in fitted.specs.items():
        if method != "none" and (seconds is None or method == fitted.method):
            correction = RigCorrection("", spec)
            right[method] = _share_right(bundle, _correct(sent, correction))
    tested = ~np.isin(np.arange(len(sent.samples)), rows)
    return _Trial(tested, fitted.method, right)


def _correct(data: Dataset, correction: RigCorrection) -> Dataset:
    return _change_readings(data, lambda values, hz: correction.apply(values, 1.0 / hz))


def _change_readings(
    data: Dataset, change: Callable[[NDArray[np.float32], float], NDArray[np.float32]]
) -> Dataset:
    samples = tuple(
        dataclasses.replace(sample, values=change(sample.values, sample.rate_hz))
        for sample in data.samples
    )
    return dataclasses.replace(data, samples=samples)


def _share_right(bundle: Bundle, data: Dataset) -> NDArray[np.float64]:
    """Return float64[2, recordings], see `KINDS`."""
    outputs = run_network(bundle, data)
    log_p = log_softmax(outputs.require("logits"))
    tally = substance_tally(log_p, outputs.owner, data.targets.argmax(axis=1))
    windows = tally["top1"].gained / tally["top1"].possible
    return np.stack([windows, tally["recording_top1"].gained])


def _by_method(folds: Sequence[_FoldScores], number: int) -> dict[str, float]:
    """Return the share of windows right by method, over recordings that were no references."""
    trials = [trial for fold in folds for trial in fold.trials[number, None]]
    methods = [m for m in METHODS[1:] if m != "standardised" or number >= MIN_PAIRED]
    right = {m: np.concatenate([t.right[m][0][t.tested] for t in trials]) for m in methods}
    return {method: round(float(shares.mean()), 4) for method, shares in right.items()}


def _times_chosen(folds: Sequence[_FoldScores], number: int) -> dict[str, int]:
    chosen = [trial.method for fold in folds for trial in fold.trials[number, None]]
    return {method: chosen.count(method) for method in METHODS if method in chosen}
