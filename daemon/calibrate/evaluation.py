"""Daemon: scores of labelled recordings with and without a calibration.

The recordings are processed by the same `Nose` as the readings of a live board. Knows neither
ports nor brokers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.counting import counted
from hardware.errors import ScentdError, UsageError
from models.conformal import set_threshold
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.system.background import Data
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.decision_spec import DecisionSpec
    from models.nose import NoseSettings

SUBSTANCE = "substance"
ROUNDING = 1e-9
"""Subtracted before rounding up: 0.9 / (1 - 0.9) must give 9 and not, by rounding errors, 10."""


class ScoreError(ScentdError):
    """These recordings cannot be scored with these models."""


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """A model's predictions for one recording.

    Attributes
    ----------
    label: the most probable over the whole recording, None without a prediction.
    probability: its mean probability over all predictions.
    looks: number of predictions.
    right_looks: predictions whose most probable label was the right one.
    covered_looks: predictions whose set held the right label.
    truths: probability of the right label in every prediction; 0 where it was not listed.
    """

    label: str | None
    probability: float | None
    right_looks: int = 0
    looks: int = 0
    covered_looks: int = 0
    truths: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredRecording:
    """One recording, its right label, and its results without and with the correction, if any."""

    file: str
    label: str
    before: RecordingResult
    after: RecordingResult | None


def score_recording(
    bundle: Bundle,
    recording: Recording,
    label: str,
    settings: NoseSettings,
    correction: Correction | None,
) -> RecordingResult:
    """Score a model on a recording that lies within one exposure."""
    nose = Nose(
        [bundle],
        settings,
        rate_hz=recording.assumed_rate_hz,
        skip_warm_up=True,
        assume_exposed=True,
        correction=correction,
    )
    total: dict[str, float] = defaultdict(float)
    right_looks = covered_looks = 0
    truths: list[float] = []
    predictions = []
    for frame, arrival_ms in recording.arrivals():
        predictions += nose.process(frame, arrival_ms).predictions
    for prediction in predictions + nose.finish():
        # On a foreign board nothing is announced, but `top` shows what a calibration is judged by.
        if prediction.reason is not None and not prediction.foreign_board:
            raise ScoreError(
                f"{recording.path}: {bundle.manifest.name} is {prediction.state}: "
                f"{prediction.reason}."
            )
        if not prediction.top:
            continue
        right_looks += prediction.top[0][0] == label
        covered_looks += label in prediction.label_set
        truths.append(dict(prediction.top).get(label, 0.0))
        for name, probability in prediction.top:
            total[name] += probability
    if not truths:
        return RecordingResult(None, None)
    best = max(total, key=lambda name: total[name])
    mean = round(total[best] / len(truths), 4)
    return RecordingResult(best, mean, right_looks, len(truths), covered_looks, tuple(truths))


def score_recordings(
    bundle: Bundle,
    recordings: Sequence[tuple[str, Recording]],
    settings: NoseSettings,
    correction: Callable[[], Correction | None],
) -> list[ScoredRecording]:
    """Score a model of single substances on labelled recordings without and with a correction.

    Parameters
    ----------
    recordings: label and recording; each lies within one exposure to the labelled substance.
    correction: returns a new correction, or None if the rig has none.

    Raises
    ------
    UsageError: if the model does not have a label.
    """
    unknown = sorted({label for label, _ in recordings} - set(bundle.manifest.labels))
    if unknown:
        raise UsageError(
            f"{bundle.manifest.name} does not know {', '.join(unknown)}. A recording's label is "
            "the name of its folder unless --label says otherwise; scentd models list --labels "
            "names the labels."
        )
    scored = []
    for label, recording in recordings:
        before = score_recording(bundle, recording, label, settings, None)
        new_correction = correction()
        after = None
        if new_correction is not None:
            after = score_recording(bundle, recording, label, settings, new_correction)
        scored.append(ScoredRecording(recording.path.name, label, before, after))
    return scored


def score_report(scored: Sequence[ScoredRecording], spec: DecisionSpec) -> Data:
    """Return the scores as plain data."""

    def plain(result: RecordingResult | None) -> Data | None:
        if result is None:
            return None
        return {name: value for name, value in asdict(result).items() if name != "truths"}

    after = [(item.after, item.label) for item in scored if item.after is not None]
    return {
        "before": _shares([(item.before, item.label) for item in scored]),
        "after": _shares(after) if after else None,
        "sets": check_sets(scored, spec),
        "files": [
            {
                "file": item.file,
                "label": item.label,
                "before": plain(item.before),
                "after": plain(item.after),
            }
            for item in scored
        ],
    }


def _shares(results: Sequence[tuple[RecordingResult, str]]) -> dict[str, float | None]:
    """Return the shares of recordings and of predictions that are right."""
    looks = sum(result.looks for result, _ in results)
    right_looks = sum(result.right_looks for result, _ in results)
    right = sum(result.label == label for result, label in results)
    return {
        "recordings": round(right / len(results), 4) if results else None,
        "looks": round(right_looks / looks, 4) if looks else None,
    }


def check_sets(scored: Sequence[ScoredRecording], spec: DecisionSpec) -> Data | None:
    """Return how often the prediction sets hold the right label on this rig; None without sets.

    Returns
    -------
    coverage: the nominal share.
    covered: the measured share, with equal weight for every recording.
    set_threshold: gives the nominal share on these recordings; None if they are too few, or if too
        few predictions list the right label.
    """
    results = [item.after or item.before for item in scored]
    results = [result for result in results if result.looks]
    if spec.set_threshold is None or not results:
        return None
    truths = np.concatenate([result.truths for result in results])
    threshold = set_threshold(truths, spec.set_coverage, cases=len(results))
    covered = np.mean([result.covered_looks / result.looks for result in results])
    return {
        "coverage": spec.set_coverage,
        "covered": round(float(covered), 4),
        "set_threshold": round(threshold, 5) if threshold else None,
    }


def score_table(report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a before/after table of a `score_report`."""
    rows = [("label", "before", "after", "file")]
    rows += [
        (
            item["label"],
            _cell(item["before"], item["label"]),
            _cell(item["after"], item["label"]),
            item["file"],
        )
        for item in report["files"]
    ]
    before, after = (
        "-"
        if part is None
        else f"{part['recordings']:.0%} right, {part['looks'] or 0:.0%} of predictions"
        for part in (report["before"], report["after"])
    )
    rows.append((counted(len(report["files"]), "recording"), before, after, ""))
    return [f"{a:<18.18} {b:<31} {c:<31} {d}".rstrip() for a, b, c, d in rows]


def sets_summary(sets: Mapping[str, Any] | None) -> list[str]:
    """Return the lines about the prediction sets, from `check_sets`."""
    if sets is None:
        return []
    lines = [
        f"Prediction sets that should hold the right label in {sets['coverage']:.0%} of cases "
        f"hold it in {sets['covered']:.0%}."
    ]
    if sets["set_threshold"] is None:
        needed = math.ceil(sets["coverage"] / (1 - sets["coverage"]) - ROUNDING)
        lines.append(
            f"To correct this for the rig takes {counted(needed, 'recording')} or more, most of "
            "them with the right label among the five most probable."
        )
    else:
        lines.append(
            "To reach that on this rig, set in the configuration: "
            f"decision: {{set_threshold: {sets['set_threshold']:g}}}"
        )
    return lines


def _cell(result: Mapping[str, Any] | None, label: str) -> str:
    if result is None or result["label"] is None:
        return "-"
    mark = "right" if result["label"] == label else ""
    return f"{result['label']:<16.16} {result['probability']:4.2f} {mark}"
