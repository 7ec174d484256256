"""training/: the model card: its figures and sentences, from the reports of the run folder.

Reads JSON and writes text; measures nothing and adds no figure that no report has. Companion
reports (few-shot, baselines, audit) are used only where they are of the same data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hardware.counting import counted
from hardware.errors import UsageError
from models.manifest import TRAINING_FILES
from training.evaluation.storage import CROSSVAL_REPORT, SESSIONS_REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from models.manifest import Manifest

NOTES = "notes"
"""The entry of a manifest's metrics that holds the card's sentences."""
INTERVALS = "intervals"
"""The entry with the 95 % intervals of the others, by protocol and score."""

CONSTANTS_FROM = {
    "sessions": "The decision layer's constants were fitted on whole held-out sessions.",
    "both": "The decision layer's temperature, weight of evidence and prediction sets were fitted "
    "on whole held-out sessions, its announcing threshold on held-out recordings of sessions that "
    "were also trained on.",
    "recordings": "The decision layer's constants were fitted on held-out recordings of sessions "
    "that were also trained on: expect less on another day than they promise.",
    "none": "No recording was held out: no figure of this bundle is known, and its decision layer "
    "announces with caution by constants that were not fitted (temperature 2, a probability of 0.7 "
    "in three predictions in a row). Run `scent-train crossval --sessions` and export again.",
}
"""What a bundle says of its decision constants, by their source."""

PUBLISHED_FIGURES = {
    "paper-50": "Published for this recipe: window Top-1 .562, with GC-MS .586 (SmellNet, arXiv "
    "2506.00239), on the published test split, which is another measurement than the grouped "
    "folds here: recordings held out differ, and so does what trains. Do not compare them number "
    "by number.",
}
"""What is published of a shipped recipe, with its source, for comparison with our own figures."""


def render_model_card(description: str, manifest: Manifest) -> str:
    """Return the card of a bundle, written from the manifest's own figures."""
    spec, network, training = manifest.preprocessing, manifest.network, manifest.training
    dims = _describe_dims(network.dims)
    ends = manifest.metrics.get(INTERVALS, {})
    figures = [
        f"| {protocol} | {name} | {value:.4g} | {_interval(ends.get(protocol, {}).get(name))} |"
        for protocol, scores in manifest.metrics.items()
        if protocol not in (NOTES, INTERVALS)
        for name, value in scores.items()
        if isinstance(value, int | float)
    ]
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        description,
        "",
        f"- Task: {manifest.task}, {len(manifest.labels)} labels: {', '.join(manifest.labels)}.",
        f"- Inputs: {', '.join(spec.channels)} at {spec.rate_hz:g} Hz; {spec.linearise} readings, "
        f"differences over {', '.join(str(lag) for lag in spec.lags if lag)} samples, windows of "
        f"{spec.window}. {_levels_read(manifest)} No environment channel, no timestamp.",
        f"- Network: {network.architecture}, {network.parameters:,} parameters. {dims}.",
        f"- Trained by `{training['command']}` with seed {training['seed']} on "
        f"{training['recordings']} recordings (data hash {training['data_sha256'][:16]}), "
        f"{training['date']}; every file's hash is in {TRAINING_FILES}.",
        "",
        "## Figures",
        "",
        "| protocol | score | value | 95 % |",
        "|---|---|---|---|",
        *figures,
        "",
        *(f"- {note}" for note in manifest.metrics.get(NOTES, [])),
        "",
    ]
    return "\n".join(lines)


def _levels_read(manifest: Manifest) -> str:
    """Return what the network reads of the channels' levels, in one sentence."""
    if not manifest.preprocessing.n_levels:
        return "No absolute value."
    if manifest.task == "mixture" or "levels" not in manifest.training.get("settings", {}):
        return "The level of every channel."
    return "Levels count by their spread between days, and show whether the air is familiar."


def _describe_dims(dims: Mapping[str, Any]) -> str:
    """Return the shape of a network, or of every expert of a sum, in one sentence."""
    experts = {key: value for key, value in dims.items() if key.startswith("expert_")}
    if not experts:
        return ", ".join(f"{key} {value}" for key, value in dims.items())
    return "Sum of " + "; of ".join(
        f"{len(one['channels'])} channels (D {one['d_model']}, {one['layers']} layers)"
        for one in experts.values()
    )


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


@dataclass(frozen=True, slots=True)
class HeldOutReports:
    """The reports of `crossval` and of `crossval --sessions` on a bundle's data; None: not run."""

    recordings: dict[str, Any] | None = None
    sessions: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return self.recordings is not None or self.sessions is not None


def read_reports(folder: Path, name: str, data_sha256: str) -> HeldOutReports:
    """Read the reports of the cross-validations in a run folder.

    Raises
    ------
    UsageError: one is of another model or of other data.
    """
    return HeldOutReports(
        _read_report(folder / CROSSVAL_REPORT, name, data_sha256),
        _read_report(folder / SESSIONS_REPORT, name, data_sha256),
    )


def _read_report(path: Path, name: str, data_sha256: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    report: dict[str, Any] = json.loads(path.read_text())
    if report["model"] != name or report["data_sha256"] != data_sha256:
        raise UsageError(
            f"{path} is of model {report['model']} on other data. Run `scent-train crossval` "
            "again, or name the right --run folder."
        )
    return report


def collect_figures(reports: HeldOutReports, folder: Path) -> dict[str, Any]:
    """Return the manifest's figures by protocol, held-out sessions first, and their intervals.

    Parameters
    ----------
    reports: of the cross-validations.
    folder: the run folder, which may hold companion reports.
    """
    figures: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    if reports.sessions is not None:
        figures["sessions"] = reports.sessions["pooled"]
        intervals["sessions"] = reports.sessions["intervals"]
    if reports.recordings is not None:
        more, ends = _recording_figures(reports.recordings, folder)
        figures |= more
        intervals |= ends
    return {**figures, INTERVALS: intervals}


def _recording_figures(
    report: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return figures and intervals of a cross-validation over recordings, and of companions."""
    layer = "streaming" if report["task"] == "substance" else "presence"
    figures: dict[str, Any] = {"crossval": report["mean"]}
    intervals: dict[str, Any] = {"crossval": report["intervals"]}
    if report["decision"]:
        figures[layer] = report["decision"]["scores"]
        intervals[layer] = report["decision"]["intervals"]
    if described := report.get("descriptors"):
        figures["descriptors"] = {"macro_auroc": described["macro_auroc"]}
        intervals["descriptors"] = {"macro_auroc": described["interval"]}
    if few := _companion(folder, "few_shot", report):
        for part, key in ((figures, "scores"), (intervals, "intervals")):
            part["few_shot"] = {
                f"{method}_{name}": value
                for method, row in few["methods"].items()
                for name, value in row[key].items()
            }
    if opened := _companion(folder, "open_set", report):
        for name, scores, ends in _open_set_figures(opened):
            figures[name], intervals[name] = scores, ends
    for name, file, key, low, high in (
        ("baselines", "compare", "name", "top1_low", "top1_high"),
        ("audit", "audit", "control", "low", "high"),
    ):
        if companion := _companion(folder, file, report):
            rows = companion["rows"]
            figures[name] = {row[key]: row["top1"] for row in rows}
            intervals[name] = {row[key]: [float(row[low]), float(row[high])] for row in rows}
    return figures, intervals


def figure_notes(reports: HeldOutReports, folder: Path) -> list[str]:
    """Explain the card's figures in sentences."""
    notes = []
    if (report := reports.sessions) is not None and report["task"] == "mixture":
        notes.append(
            f"`sessions`: {report['protocol']}; int8, {report['sessions']} days, "
            f"{len(report['recordings'])} recordings; 95 % bootstrap intervals over the "
            f"{report['exposures']} exposures (one composition on one day). `strong_*`: whether at "
            "least one of the components that are announced as a group is there, by the mean over "
            "a recording; balanced is the mean of sensitivity and specificity. `constant_*` is the "
            "best prediction that is always the same, chosen on the training days: only what lies "
            "above it is skill."
        )
    elif report is not None:
        notes.append(
            f"`sessions`: {report['protocol']}; int8, {report['sessions']} sessions, "
            f"{len({row['recording'] for row in report['recordings']})} recordings; 95 % bootstrap "
            "intervals over recordings. `recording_topK`: the true label is among the first K by "
            "mean log-probability. The others: what was announced when each recording was replayed "
            "from its start, by constants fitted without its session."
        )
    if reports.recordings is not None:
        notes += _recording_notes(reports.recordings, folder)
    return notes


def _recording_notes(report: dict[str, Any], folder: Path) -> list[str]:
    """Explain the figures of a cross-validation over recordings, and of companions."""
    folds = counted(len(report["folds"]), "fold")
    notes = [
        f"`crossval`: {report['protocol']}; int8, mean over {folds}. "
        "Intervals are 95 % bootstrap intervals over the recordings of all folds together. "
        "`robust_*`: the same recordings as in another session: per channel a gain of sigma 0.3 "
        "in log and an offset of 2 %, and one channel lost. `board_*`: the same, and per channel "
        "another sensitivity (exponent) of sigma 0.3 in log. Two draws of each."
    ]
    if published := PUBLISHED_FIGURES.get(report["model"]):
        notes.append(published)
    if report["task"] == "mixture":
        notes += [
            "`constant_*` is the best prediction that is always the same, chosen on the training "
            "folds: only what lies above it is skill. The presence F1 of `crossval` is at the "
            "neutral threshold 0.5.",
            "`presence`: at one threshold of the best geometric mean of sensitivity and "
            "specificity, fitted on the other folds. `interval_coverage`: share of published "
            "components whose interval of stated coverage 90 % holds the true proportion.",
        ]
    elif report["decision"]:
        notes.append(
            "`streaming`: held-out recordings through their fold's network and the decision layer, "
            "from the recording's start: share whose likeliest label is right (accuracy), share "
            "announced, share of those that are right (precision), and mean belief minus accuracy "
            "(gap), by seconds. The decision layer's constants are fitted on the other folds; the "
            "bundle's own come from all."
        )
    if report.get("descriptors"):
        notes.append(
            "`descriptors`: macro AUROC of the odour descriptors over held-out recordings; the "
            "interval is over substances."
        )
    if few := _companion(folder, "few_shot", report):
        notes.append(
            f"`few_shot`: {few['protocol']}; by nearest class mean in the embedding, compared in "
            f"three ways; chance {1 / len(few['substances']):.2g}."
        )
    if opened := _companion(folder, "open_set", report):
        unknown = opened["unknown"]
        notes += [
            f"`unknown`: {opened['protocol']}. AUROC of novelty by {unknown['best']}, and the "
            "share of unknown recordings taken for known at a bound that keeps 95 % of the known; "
            "over windows, after so many seconds of a recording, and over whole recordings.",
            f"`lessons`: the same networks taught those ten substances, "
            f"{opened['lessons']['lesson_s']:g} s an exposure, and tested on their other "
            "recordings; all_labels is the choice among the ten and the forty that they know.",
        ]
    if _companion(folder, "compare", report):
        notes.append("`baselines`: window Top-1 of other kinds of model on the same folds.")
    if audit := _companion(folder, "audit", report):
        notes.append(
            "`audit`: window Top-1 of controls that smell nothing, or not the odour, on the same "
            "folds; what they reach tells sessions apart and not smells."
        )
        notes += [str(row["sentence"]) for row in audit["rows"] if row.get("sentence")]
    return notes


def _open_set_figures(
    report: dict[str, Any],
) -> Iterator[tuple[str, dict[str, float], dict[str, list[float]]]]:
    """Yield protocol, figures and intervals of the open-set networks' answers."""
    unknown = report["unknown"]
    places = unknown["scores"][unknown["best"]]
    yield (
        "unknown",
        {f"auroc_{place}": row["auroc"] for place, row in places.items()}
        | {f"false_accepts_{place}": row["false_accepts"] for place, row in places.items()},
        {f"auroc_{place}": row["interval"] for place, row in places.items()},
    )
    lessons = [
        (f"{exposures}_exposures_{choice.replace(' ', '_')}_{name}", value, row["intervals"][name])
        for exposures, choices in report["lessons"]["taught"].items()
        for choice, row in choices.items()
        for name, value in row["scores"].items()
    ]
    yield (
        "lessons",
        {name: value for name, value, _ in lessons},
        {name: ends for name, _, ends in lessons},
    )


def _companion(folder: Path, name: str, report: dict[str, Any]) -> dict[str, Any] | None:
    """Return another report of the run folder, if it is of the same data."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content if content.get("data_sha256") == report["data_sha256"] else None
