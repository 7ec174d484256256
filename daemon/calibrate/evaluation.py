"""Daemon: what a calibration is worth on recordings: what the models say of them, with and without.

The recordings go through the same `Nose` as the readings of a live board. Knows neither ports nor
brokers; a correction is only something that the nose takes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError, UsageError
from models.conformal import set_threshold
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.decision_spec import DecisionSpec
    from models.nose import NoseSettings

SUBSTANCE = "substance"
ROUNDING = 1e-9
"""0.9 / (1 - 0.9) is nine, not ten for a rounding error."""


class ScoreError(ScentdError):
    """These recordings cannot be scored with these models."""


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """What a model made of one recording.

    Attributes
    ----------
    label: the likeliest over the whole recording, None where the model never looked.
    probability: its mean probability over all looks.
    right_looks, looks: at how many looks the likeliest label was the right one, of how many.
    covered_looks: at how many the right one was in the prediction set.
    truths: probability of the right one at every look; 0 where it was not among the likeliest.
    """

    label: str | None
    probability: float | None
    right_looks: int = 0
    looks: int = 0
    covered_looks: int = 0
    truths: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """One recording, before and after.

    Attributes
    ----------
    file: its name.
    label: what it truly is of.
    before: without the correction.
    after: with it; None where there is none.
    """

    file: str
    label: str
    before: RecordingResult
    after: RecordingResult | None


def recording_result(
    bundle: Bundle,
    recording: Recording,
    label: str,
    settings: NoseSettings,
    correction: Correction | None,
) -> RecordingResult:
    """Return what a model makes of a recording that lies within one exposure.

    Raises
    ------
    ScoreError
        If the recording cannot feed the model.
    """
    nose = Nose(
        [bundle],
        settings,
        rate_hz=None if recording.timestamp_ms is not None else recording.nominal_rate_hz,
        skip_warm_up=True,
        assume_exposed=True,
        correction=correction,
    )
    period_ms = 1000.0 / recording.nominal_rate_hz
    total: dict[str, float] = defaultdict(float)
    right_looks = covered_looks = 0
    truths: list[float] = []
    said = []
    for number, frame in enumerate(recording.frames()):
        said += nose.process(frame, number * period_ms).predictions
    for prediction in said + nose.finish():
        if prediction.reason is not None:
            raise ScoreError(f"{recording.path}: {bundle.manifest.name} says {prediction.reason}.")
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
    share = round(total[best] / len(truths), 4)
    return RecordingResult(best, share, right_looks, len(truths), covered_looks, tuple(truths))


def score(
    bundle: Bundle,
    recordings: Sequence[tuple[str, Recording]],
    settings: NoseSettings,
    correction: Callable[[], Correction | None],
) -> list[Scored]:
    """Judge labelled recordings with and without a correction.

    Parameters
    ----------
    bundle : Bundle
        A model of single substances.
    recordings : sequence of (label, Recording)
        Each of one exposure to what its label says.
    settings : NoseSettings
        The rig's.
    correction : callable
        Makes a fresh correction, or None where the rig has none.

    Raises
    ------
    UsageError
        If a label is none of the model's.
    """
    unknown = sorted({label for label, _ in recordings} - set(bundle.manifest.labels))
    if unknown:
        raise UsageError(
            f"{bundle.manifest.name} does not know {', '.join(unknown)}. A recording's label is "
            "the name of its folder unless --label says otherwise; scentd models list --json "
            "names the labels."
        )
    scored = []
    for label, recording in recordings:
        before = recording_result(bundle, recording, label, settings, None)
        made = correction()
        after = None if made is None else recording_result(bundle, recording, label, settings, made)
        scored.append(Scored(recording.path.name, label, before, after))
    return scored


def totals(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return the shares of recordings and of looks that were right, before and after."""

    def shares(
        verdicts: Sequence[RecordingResult], labels: Sequence[str]
    ) -> dict[str, float | None]:
        looks = sum(verdict.looks for verdict in verdicts)
        right = sum(v.label == label for v, label in zip(verdicts, labels, strict=True))
        return {
            "recordings": round(right / len(verdicts), 4) if verdicts else None,
            "looks": round(sum(v.right_looks for v in verdicts) / looks, 4) if looks else None,
        }

    after = [item for item in scored if item.after is not None]
    return {
        "before": shares([item.before for item in scored], [item.label for item in scored]),
        "after": shares([item.after for item in after if item.after], [i.label for i in after])
        if after
        else None,
    }


def sets_on_rig(scored: Sequence[Scored], spec: DecisionSpec) -> dict[str, Any] | None:
    """Return whether the prediction sets keep their word on this rig, and what would make them.

    Returns
    -------
    coverage: as stated; covered: share of looks whose set held the truth, each recording counting
    the same; set_threshold: the constant that these recordings ask for, None where they are too
    few to tell, or where the truth is too often not even among the likeliest. None in all of a
    model without sets.
    """
    verdicts = [item.after or item.before for item in scored]
    verdicts = [verdict for verdict in verdicts if verdict.looks]
    if spec.set_threshold is None or not verdicts:
        return None
    truths = np.concatenate([verdict.truths for verdict in verdicts])
    asked = set_threshold(truths, spec.set_coverage, cases=len(verdicts))
    covered = np.mean([verdict.covered_looks / verdict.looks for verdict in verdicts])
    return {
        "coverage": spec.set_coverage,
        "covered": round(float(covered), 4),
        "set_threshold": round(asked, 5) if asked else None,
    }


def report(scored: Sequence[Scored], spec: DecisionSpec) -> dict[str, Any]:
    """Return everything as plain data."""

    def plain(verdict: RecordingResult | None) -> dict[str, Any] | None:
        if verdict is None:
            return None
        return {name: value for name, value in asdict(verdict).items() if name != "truths"}

    files = [
        {**asdict(item), "before": plain(item.before), "after": plain(item.after)}
        for item in scored
    ]
    return {**totals(scored), "sets": sets_on_rig(scored, spec), "files": files}


def table(files: Sequence[Mapping[str, Any]], sums: Mapping[str, Any]) -> list[str]:
    """Return the lines of a before/after table of what `report` returned."""
    rows = [("label", "before", "after", "file")]
    rows += [
        (
            item["label"],
            _cell(item["before"], item["label"]),
            _cell(item["after"], item["label"]),
            item["file"],
        )
        for item in files
    ]
    before, after = (
        "-"
        if part is None
        else f"{part['recordings']:.0%} right, {part['looks'] or 0:.0%} of looks"
        for part in (sums["before"], sums["after"])
    )
    rows.append((f"{len(files)} recordings", before, after, ""))
    return [f"{a:<18.18} {b:<29} {c:<29} {d}".rstrip() for a, b, c, d in rows]


def sets_summary(sets: Mapping[str, Any] | None) -> list[str]:
    """Return the lines about the prediction sets of what `report` returned."""
    if sets is None:
        return []
    lines = [
        f"Prediction sets that should hold the truth in {sets['coverage']:.0%} of cases hold it in "
        f"{sets['covered']:.0%}."
    ]
    if sets["set_threshold"] is None:
        needed = math.ceil(sets["coverage"] / (1 - sets["coverage"]) - ROUNDING)
        lines.append(
            f"To set them right for this rig takes {needed} recordings or more, most of them "
            "with the truth among the five likeliest."
        )
    else:
        lines.append(
            "On this rig they would with this in the configuration: "
            f"decision: {{set_threshold: {sets['set_threshold']:g}}}"
        )
    return lines


def _cell(verdict: Mapping[str, Any] | None, label: str) -> str:
    if verdict is None or verdict["label"] is None:
        return "-"
    mark = "right" if verdict["label"] == label else ""
    return f"{verdict['label']:<16.16} {verdict['probability']:4.2f} {mark}"
