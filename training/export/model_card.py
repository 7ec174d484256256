"""training/: a model card's figures and sentences, from the reports of its run folder.

Reads JSON and writes words; measures nothing, and takes no figure that no report has. Companion
reports (few-shot, baselines, audit) are taken only where they are of the same data.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLISHED_FIGURES = {
    "paper-50": "Published for this recipe: window Top-1 .562, with GC-MS .586 (SmellNet, arXiv "
    "2506.00239), on the published test split, which is another measurement than the grouped "
    "folds here: recordings held out differ, and so does what trains. Do not compare them number "
    "by number.",
}
"""What is published of a shipped recipe, with its source, to stand beside our own figures."""


def collect_figures(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the manifest's figures by protocol, and their intervals beside them.

    Parameters
    ----------
    report: of the cross-validation.
    folder: the run folder, where companions lie.
    """
    layer = "streaming" if report["task"] == "substance" else "presence"
    figures: dict[str, Any] = {"crossval": report["mean"]}
    spread: dict[str, Any] = {"crossval": report["intervals"]}
    if report["decision"]:
        figures[layer] = report["decision"]["scores"]
        spread[layer] = report["decision"]["intervals"]
    if described := report.get("descriptors"):
        figures["descriptors"] = {"macro_auroc": described["macro_auroc"]}
        spread["descriptors"] = {"macro_auroc": described["interval"]}
    if few := _companion(folder, "few_shot", report):
        for part, key in ((figures, "scores"), (spread, "intervals")):
            part["few_shot"] = {
                f"{method}_{name}": value
                for method, row in few["methods"].items()
                for name, value in row[key].items()
            }
    if opened := _companion(folder, "open_set", report):
        for name, scores, ends in _open_set(opened):
            figures[name], spread[name] = scores, ends
    if compare := _companion(folder, "compare", report):
        rows = compare["rows"]
        figures["baselines"] = {row["name"]: row["top1"] for row in rows}
        spread["baselines"] = {row["name"]: _span(row, "top1_low", "top1_high") for row in rows}
    if audit := _companion(folder, "audit", report):
        rows = audit["rows"]
        figures["audit"] = {row["control"]: row["top1"] for row in rows}
        spread["audit"] = {row["control"]: _span(row, "low", "high") for row in rows}
    return {**figures, "intervals": spread}


def figure_notes(report: dict[str, Any], folder: Path) -> list[str]:
    """Say in sentences what the card's figures mean."""
    said = [
        f"`crossval`: {report['protocol']}; int8, mean over {len(report['folds'])} folds. "
        "Intervals are 95 % bootstrap intervals over the recordings of all folds together. "
        "`robust_*`: the same recordings as in another session: per channel a gain of sigma 0.3 "
        "in log and an offset of 2 %, and one channel lost. `board_*`: the same, and per channel "
        "another sensitivity (exponent) of sigma 0.3 in log. Two draws of each."
    ]
    if published := PUBLISHED_FIGURES.get(report["model"]):
        said.append(published)
    if report["task"] == "mixture":
        said += [
            "`constant_*` is the best prediction that is always the same, chosen on the training "
            "folds: only what lies above it is skill. The presence F1 of `crossval` is at the "
            "neutral threshold 0.5.",
            "`presence`: at one threshold of the best geometric mean of sensitivity and "
            "specificity, fitted on the other folds. `interval_coverage`: share of published "
            "components whose interval of stated coverage 90 % holds the true proportion.",
        ]
    elif report["decision"]:
        said.append(
            "`streaming`: held-out recordings through their fold's network and the decision layer, "
            "from the recording's start: share whose likeliest label is right (accuracy), share "
            "announced, share of those that are right (precision), and mean belief minus accuracy "
            "(gap), by seconds. The decision layer's constants are fitted on the other folds; the "
            "bundle's own come from all."
        )
    if report.get("descriptors"):
        said.append(
            "`descriptors`: macro AUROC of the odour descriptors over held-out recordings; the "
            "interval is over substances."
        )
    if few := _companion(folder, "few_shot", report):
        said.append(
            f"`few_shot`: {few['protocol']}; by nearest class mean in the embedding, compared in "
            f"three ways; chance {1 / len(few['substances']):.2g}."
        )
    if opened := _companion(folder, "open_set", report):
        told = opened["unknown"]
        said += [
            f"`unknown`: {opened['protocol']}. AUROC of novelty by {told['best']}, and the share "
            "of unknown recordings taken for known at a bound that keeps 95 % of the known; over "
            "windows, after so many seconds of a recording, and over whole recordings.",
            f"`lessons`: the same networks taught those ten substances, "
            f"{opened['lessons']['lesson_s']:g} s an exposure, and tested on their other "
            "recordings; all_labels is the choice among the ten and the forty that they know.",
        ]
    if _companion(folder, "compare", report):
        said.append("`baselines`: window Top-1 of other kinds of model on the same folds.")
    if audit := _companion(folder, "audit", report):
        said.append(
            "`audit`: window Top-1 of controls that smell nothing, or not the odour, on the same "
            "folds; what they reach tells sessions apart and not smells."
        )
        said += [str(row["sentence"]) for row in audit["rows"] if row.get("sentence")]
    return said


def _open_set(
    report: dict[str, Any],
) -> Iterator[tuple[str, dict[str, float], dict[str, list[float]]]]:
    """Yield protocol, figures and intervals of the open-set networks' answers."""
    told = report["unknown"]
    places = told["scores"][told["best"]]
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


def _span(row: dict[str, Any], low: str, high: str) -> list[float]:
    return [float(row[low]), float(row[high])]
