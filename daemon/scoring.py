"""Daemon: what a calibration is worth on recordings: what the models say of them, with and without.

The recordings go through the pipeline that a live board goes through. Knows neither ports nor
brokers; a correction is only something that the nose takes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daemon.pipeline import Pipeline
from hardware.errors import ScentdError, UsageError
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.nose import Correction, NoseSettings

SUBSTANCE = "substance"


class ScoreError(ScentdError):
    """These recordings cannot be scored with these models."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model made of one recording.

    Attributes
    ----------
    label: the likeliest over the whole recording, None where the model never looked.
    probability: its mean probability over all looks.
    right_looks, looks: at how many looks the likeliest label was the right one, of how many.
    """

    label: str | None
    probability: float | None
    right_looks: int
    looks: int


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
    before: Verdict
    after: Verdict | None


def judged(
    bundle: Bundle,
    recording: Recording,
    label: str,
    settings: NoseSettings,
    correction: Correction | None,
) -> Verdict:
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
    pipeline = Pipeline(nose)
    period_ms = 1000.0 / recording.nominal_rate_hz
    total: dict[str, float] = defaultdict(float)
    looks = right_looks = 0
    said = []
    for number, frame in enumerate(recording.frames()):
        said += pipeline.take(frame, number * period_ms).predictions
    for prediction in said + pipeline.finish():
        if prediction.reason is not None:
            raise ScoreError(f"{recording.path}: {bundle.manifest.name} says {prediction.reason}.")
        if not prediction.top:
            continue
        looks += 1
        right_looks += prediction.top[0][0] == label
        for name, probability in prediction.top:
            total[name] += probability
    if not looks:
        return Verdict(None, None, 0, 0)
    best = max(total, key=lambda name: total[name])
    return Verdict(best, round(total[best] / looks, 4), right_looks, looks)


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
        before = judged(bundle, recording, label, settings, None)
        made = correction()
        after = None if made is None else judged(bundle, recording, label, settings, made)
        scored.append(Scored(recording.path.name, label, before, after))
    return scored


def totals(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return the shares of recordings and of looks that were right, before and after."""

    def shares(verdicts: Sequence[Verdict], labels: Sequence[str]) -> dict[str, float | None]:
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


def report(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {**totals(scored), "files": [asdict(item) for item in scored]}


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


def _cell(verdict: Mapping[str, Any] | None, label: str) -> str:
    if verdict is None or verdict["label"] is None:
        return "-"
    mark = "right" if verdict["label"] == label else ""
    return f"{verdict['label']:<16.16} {verdict['probability']:4.2f} {mark}"
