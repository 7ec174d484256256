"""training/: everything that a run folder holds, put together as one JSON and one page.

May import the rest of training/ but no torch: a report is made from the reports and the
held-out answers that `crossval` and its companions left, in seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError
from training.evaluation import findings
from training.evaluation.held_out import HELD_OUT, read_held_out
from training.reports import plots
from training.reports.html import Section, figure, page, rows_table, span, table

if TYPE_CHECKING:
    from pathlib import Path

    from models.decision_spec import DecisionSpec
    from training.evaluation.held_out import HeldOut

CROSSVAL = "crossval.json"
COMPANIONS = ("few_shot", "compare", "cross_modal", "audit")
"""Reports of other commands that are shown where the run folder holds them."""
REPORT, PAGE = "report.json", "report.html"

COMPARED = {
    "name": "model",
    "kind": "what it is",
    "inputs": "inputs",
    "folds": "folds",
    "top1": "window Top-1",
    "top1_low|top1_high": "95 %",
    "low|high": "95 %",
    "delta_top1": "against none",
    "recording_top1": "recording Top-1",
    "recording_low|recording_high": "95 %",
    "parameters": "parameters",
    "seconds": "s a fold",
}
AUDITED = {
    "control": "control",
    "top1": "window Top-1",
    "low|high": "95 %",
    "recording_top1": "recording Top-1",
    "chance": "chance",
    "verdict": "verdict",
    "sentence": "in words",
}


class ReportError(ScentdError):
    """There is nothing to report on."""


def write_report(run: Path, output: Path) -> tuple[Path, Path]:
    """Write the JSON and the page of a run folder; return their paths.

    Parameters
    ----------
    run: holds `crossval.json` and the held-out answers, and perhaps the companions' reports.
    output: folder to write to, made where missing.

    Raises
    ------
    ReportError: no cross-validation with intervals there.
    """
    crossval = _read(run / CROSSVAL)
    if crossval is None or "intervals" not in crossval:
        raise ReportError(
            f"Expected a cross-validation with intervals in {run / CROSSVAL}, found "
            f"{'an older one' if crossval else 'none'}. Run `scent-train crossval` with --run "
            f"{run}; folds that are trained are not trained again."
        )
    held_out = read_held_out(run / HELD_OUT)
    others = {name: _read(run / f"{name}.json") for name in COMPANIONS}
    specs = findings.fold_specs(crossval["decision"].get("constants", {}))
    if crossval["task"] == "substance":
        found, sections = _substances(crossval, held_out, specs)
    else:
        found, sections = _mixtures(crossval, held_out)
    content = {
        "crossval": crossval,
        **{name: report for name, report in others.items() if report},
        "findings": found,
    }
    output.mkdir(parents=True, exist_ok=True)
    paths = output / REPORT, output / PAGE
    paths[0].write_text(json.dumps(content, indent=2) + "\n")
    lead = (
        f"{crossval['protocol']}. Figures of the {crossval['precision']} networks; brackets are "
        "95 % bootstrap intervals over recordings."
    )
    whole = [_headline(crossval), *sections, *_companions(others), _folds(crossval)]
    paths[1].write_text(page(crossval["model"], lead, whole))
    return paths


def _substances(
    crossval: dict[str, Any], held_out: HeldOut, specs: dict[int, DecisionSpec]
) -> tuple[dict[str, Any], list[Section]]:
    labels = crossval["labels"]
    confusion = findings.confusion(held_out)
    groups = findings.categories(labels)
    order = [labels.index(label) for members in groups.values() for label in members]
    breaks = np.cumsum([len(members) for members in groups.values()])[:-1].tolist()
    shares = findings.by_category(held_out, labels)
    confused = findings.most_confused(confusion, labels)
    curves = {"windows": findings.window_reliability(held_out, specs)}
    belief = findings.belief_reliability(held_out, specs)
    if belief is not None:
        curves["belief after 120 s"] = belief
    course = findings.over_time(held_out, specs)
    sections = [_decision(crossval, course)]
    sections += [
        Section(
            "By category",
            "Share of windows named right, the choice being among all substances. In brackets: "
            "how many substances.",
            figure(plots.shares_plot(shares), "Whiskers: 95 % over recordings."),
        ),
        Section(
            "Can the probability be believed?",
            "Each dot is a bin of stated probabilities; on the dashed line a stated 70 % is right "
            "seven times in ten. "
            + "; ".join(
                f"{name}: expected calibration error {curve.error:.3f} ({span(curve.interval)})"
                for name, curve in curves.items()
            )
            + ".",
            figure(plots.reliability_plot(curves), "A dot's size is the number of answers."),
        ),
        Section(
            "What is taken for what",
            "Windows of each substance (down) by the answer (across), sorted by category.",
            figure(
                plots.confusion_plot(
                    confusion[np.ix_(order, order)], [labels[k] for k in order], breaks
                ),
                "Opacity is the square root of the share, so that a few per cent can be seen.",
                wide=True,
            )
            + table(["truth", "taken for", "share of its windows"], confused),
        ),
    ]
    if described := crossval.get("descriptors"):
        rows = [("all, mean", described["macro_auroc"], span(described["interval"]))]
        rows += [(name, value, "") for name, value in sorted(described["auroc"].items())]
        sections.append(
            Section(
                "What it smells like",
                "Area under the ROC curve of every odour descriptor, over held-out recordings of "
                "substances that were trained on; chance is 0.5, the interval is over substances.",
                table(["descriptor", "AUROC", "95 %"], rows),
            )
        )
    found = {
        "by_category": [asdict(share) for share in shares],
        "most_confused": confused,
        "calibration": {name: _curve(curve) for name, curve in curves.items()},
        "over_time": None
        if course is None
        else {name: _list(getattr(course, name)) for name in course.__slots__},
        "confusion": [_list(row) for row in confusion],
    }
    return found, sections


def _mixtures(crossval: dict[str, Any], held_out: HeldOut) -> tuple[dict[str, Any], list[Section]]:
    curve = findings.presence_reliability(held_out)
    sections = [
        _decision(crossval, None),
        Section(
            "Can the presence be believed?",
            "On the dashed line a component that is said to be present with 70 % is there seven "
            f"times in ten. Expected calibration error {curve.error:.3f} ({span(curve.interval)}).",
            figure(
                plots.reliability_plot({"presence": curve}),
                "A dot's size is the number of answers.",
            ),
        ),
    ]
    return {"calibration": {"presence": _curve(curve)}}, sections


def _headline(crossval: dict[str, Any]) -> Section:
    """Scores with their intervals, each beside what needs no nose."""
    mean, pooled, spread = crossval["mean"], crossval["pooled"], crossval["intervals"]
    floors = _floors(crossval)
    rows = [
        (name, mean[name], pooled[name], span(spread[name]), floors.get(name))
        for name in spread
        if name in mean and not name.startswith("constant_")
    ]
    return Section(
        "Figures",
        "The mean is over folds; pooled is over the windows of all folds together, which is what "
        "the interval is of; the floor is chance, or the best prediction that is always the same. "
        "robust_* is the same recordings as in another session: per channel another gain (sigma "
        "0.3 in log) and offset, and one channel lost; board_* has other sensitivities as well.",
        table(["score", "mean", "pooled", "95 %", "floor"], rows),
    )


def _floors(crossval: dict[str, Any]) -> dict[str, float]:
    if crossval["task"] == "substance":
        count = len(crossval["labels"])
        chance = 1 / count
        hits = {"top1": chance, "top5": min(1.0, 5 * chance), "recording_top1": chance}
        return hits | {
            f"{session}_{name}": hits[name]
            for session in ("robust", "board")
            for name in ("top1", "recording_top1")
        }
    return {
        name.removeprefix("constant_"): value
        for name, value in crossval["pooled"].items()
        if name.startswith("constant_")
    }


def _decision(crossval: dict[str, Any], course: findings.AccuracyOverTime | None) -> Section:
    layer = crossval["decision"]
    if not layer:
        return Section(
            "The decision layer", "One fold alone has nothing to fit the constants on.", ""
        )
    rows = [
        (name, value, span(layer["intervals"].get(name))) for name, value in layer["scores"].items()
    ]
    plot = "" if course is None else figure(plots.course_plot(course), "Held-out recordings.")
    return Section(
        "Live: what is announced, and when" if course else "Presence at the fitted thresholds",
        "Every fold with constants that were fitted on the other folds' held-out answers."
        + (
            " accuracy: the likeliest label is right, announced or not; precision: of the "
            "announced; gap: mean belief minus accuracy."
            if course
            else ""
        ),
        plot + table(["score", "value", "95 %"], rows),
    )


def _companions(others: dict[str, dict[str, Any] | None]) -> list[Section]:
    sections = []
    if few := others["few_shot"]:
        rows = [
            (method, name, value, span(row["intervals"][name]))
            for method, row in few["methods"].items()
            for name, value in row["scores"].items()
        ]
        sections.append(
            Section(
                "New smells from one recording each",
                f"{few['protocol']}. Chance is {1 / len(few['substances']):.3f}. Kept out: "
                f"{', '.join(few['substances'])}.",
                table(["nearest class mean by", "score", "value", "95 %"], rows),
            )
        )
    for name, title, text, columns in (
        ("compare", "Beside other kinds of model", "The same folds, the same scores.", COMPARED),
        (
            "cross_modal",
            "With a second modality in training",
            "Each switch with and without, on the same folds, seeds and steps.",
            COMPARED,
        ),
        (
            "audit",
            "How much is session and not smell",
            "Controls that smell nothing, or not the odour. What they score is fingerprint.",
            AUDITED,
        ),
    ):
        if (report := others[name]) and report.get("rows"):
            sections.append(Section(title, text, rows_table(report["rows"], columns)))
    return sections


def _folds(crossval: dict[str, Any]) -> Section:
    rows = crossval["folds"]
    names = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return Section(
        "Every fold",
        f"Seed {crossval['seed']}; data {crossval['data_sha256'][:16]}.",
        table(names, [[row.get(name) for name in names] for row in rows]),
    )


def _curve(curve: findings.Reliability) -> dict[str, Any]:
    return {
        "stated": _list(curve.stated),
        "hit": _list(curve.hit),
        "count": curve.count.tolist(),
        "expected_calibration_error": round(curve.error, 4),
        "interval": list(curve.interval),
    }


def _list(values: Any) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ReportError(
            f"{path} is not JSON ({error}). Run the command that wrote it again."
        ) from error
    return content
