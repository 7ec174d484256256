"""training/: all reports of a run folder, put together as one JSON and one page.

May import the rest of training/ but no torch: a report is made in seconds from the reports and
the held-out outputs of `crossval` and of the other commands.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError
from training.evaluation import findings
from training.evaluation.held_out import HELD_OUT, read_held_out
from training.evaluation.storage import CROSSVAL_REPORT, SESSIONS_REPORT, write_json
from training.progress import read_courses
from training.reports import plots
from training.reports.courses import courses_section
from training.reports.html_page import (
    Section,
    descriptor_section,
    html_figure,
    html_page,
    html_table,
    interval_text,
    score_rows,
)
from training.reports.sessions import SESSIONS_LEAD, sessions_section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.decision_spec import DecisionSpec
    from training.evaluation.held_out import HeldOut

COMPANIONS = ("few_shot", "compare", "cross_modal", "audit")
"""Reports of other commands that are included if the run folder has them."""
RUN_REPORT, RUN_PAGE = "report.json", "report.html"

_COMPARED = (
    "name=model, kind=what it is, inputs, folds, top1=window Top-1, top1_low|top1_high=95 %, "
    "low|high=95 %, delta_top1=against none, recording_top1=recording Top-1, "
    "recording_low|recording_high=95 %, parameters, seconds=s a fold"
)
_AUDITED = (
    "control, top1=window Top-1, low|high=95 %, recording_top1=recording Top-1, chance, verdict, "
    "sentence=in words"
)
_TABLES = (
    ("compare", "Other kinds of model", "The same folds, the same scores.", _COMPARED),
    (
        "cross_modal",
        "With a second modality in training",
        "Each switch with and without, on the same folds, seeds and steps.",
        _COMPARED,
    ),
    (
        "audit",
        "How much is session and not smell",
        "Controls that hold no smell, or not the odour. Their scores come from the session.",
        _AUDITED,
    ),
)
"""Companion, title, text and columns of the tables of rows."""
_SCORES = "score, value, interval=95 %"


class ReportError(ScentdError):
    """There is nothing to report on."""


def write_run_report(run: Path, output: Path) -> tuple[Path, Path]:
    """Write the JSON and the page of a run folder into `output`; return their paths.

    Held-out sessions come first, where `crossval --sessions` was run.

    Raises
    ------
    ReportError: no cross-validation with intervals there.
    """
    crossval = _read(run / CROSSVAL_REPORT)
    sessions = _read(run / SESSIONS_REPORT)
    if crossval is None and sessions is not None:
        path = write_json(output / RUN_REPORT, {"sessions": sessions})
        sections = [sessions_section(sessions), *courses_section(run)]
        page = html_page(sessions["model"], SESSIONS_LEAD, sections)
        (output / RUN_PAGE).write_text(page)
        return path, output / RUN_PAGE
    trained = courses_section(run)
    if crossval is None and trained:
        path = write_json(output / RUN_REPORT, {"trained": sorted(read_courses(run))})
        page = html_page(run.name, "Trained, and not judged yet.", trained)
        (output / RUN_PAGE).write_text(page)
        return path, output / RUN_PAGE
    if crossval is None or "intervals" not in crossval:
        raise ReportError(
            f"Expected a cross-validation with intervals in {run / CROSSVAL_REPORT}, found "
            f"{'an older one' if crossval else 'none'}. Run `scent-train crossval` with --run "
            f"{run}, or `scent-train crossval --sessions`; folds that are trained are not trained "
            "again."
        )
    held_out = read_held_out(run / HELD_OUT)
    others = {name: _read(run / f"{name}.json") for name in COMPANIONS}
    if crossval["task"] == "substance":
        specs = findings.read_fold_constants(crossval["decision"].get("constants", {}))
        found, sections = _substances(crossval, held_out, specs)
    else:
        found, sections = _mixtures(crossval, held_out)
    companions = {name: report for name, report in others.items() if report}
    first = {} if sessions is None else {"sessions": sessions}
    content = {**first, "crossval": crossval, **companions, "findings": found}
    path = write_json(output / RUN_REPORT, content)
    lead = (
        f"{crossval['protocol']}. Figures of the {crossval['precision']} networks; brackets are "
        "95 % bootstrap intervals over recordings."
    )
    head = [] if sessions is None else [sessions_section(sessions)]
    sections = [*head, _scores(crossval), *sections, *_companions(companions), _folds(crossval)]
    sections += trained
    (output / RUN_PAGE).write_text(html_page(crossval["model"], lead, sections))
    return path, output / RUN_PAGE


def _substances(
    crossval: dict[str, Any], held_out: HeldOut, specs: dict[int, DecisionSpec]
) -> tuple[dict[str, Any], list[Section]]:
    labels = crossval["labels"]
    confusion = findings.confusion(held_out)
    shares = findings.by_category(held_out, labels)
    confused = findings.most_confused(confusion, labels)
    curves = {"windows": findings.window_reliability(held_out, specs)}
    if (belief := findings.belief_reliability(held_out, specs)) is not None:
        curves["belief after 120 s"] = belief
    course = findings.over_time(held_out, specs)
    errors = "; ".join(
        f"{name}: expected calibration error {curve.error:.3f} ({interval_text(curve.interval)})"
        for name, curve in curves.items()
    )
    sections = [
        _decision(crossval, course),
        Section(
            "By category",
            "Share of windows named right, the choice being among all substances. In brackets: "
            "how many substances.",
            html_figure(plots.shares_plot(shares), "Whiskers: 95 % over recordings."),
        ),
        _reliability_section(
            "Stated and observed probability",
            "Each dot is a bin of stated probabilities; on the dashed line a stated 70 % is right "
            f"seven times in ten. {errors}.",
            curves,
        ),
        _confusion_section(confusion, labels, confused),
    ]
    if descriptors := crossval.get("descriptors"):
        sections.append(
            descriptor_section(
                "Predicted odour descriptors",
                "Area under the ROC curve of every odour descriptor, over held-out recordings of "
                "substances that were trained on; chance is 0.5, the interval is over substances.",
                descriptors,
            )
        )
    over_time = None
    if course is not None:
        over_time = {name: _rounded(getattr(course, name)) for name in course.__slots__}
    found = {
        "by_category": [asdict(share) for share in shares],
        "most_confused": confused,
        "calibration": {name: _curve(curve) for name, curve in curves.items()},
        "over_time": over_time,
        "confusion": [_rounded(row) for row in confusion],
    }
    return found, sections


def _mixtures(crossval: dict[str, Any], held_out: HeldOut) -> tuple[dict[str, Any], list[Section]]:
    curve = findings.presence_reliability(held_out)
    reliability = _reliability_section(
        "Stated and observed presence",
        "On the dashed line a component with a stated presence of 70 % is there seven times in "
        f"ten. Expected calibration error {curve.error:.3f} ({interval_text(curve.interval)}).",
        {"presence": curve},
    )
    return {"calibration": {"presence": _curve(curve)}}, [_decision(crossval, None), reliability]


def _reliability_section(title: str, text: str, curves: dict[str, findings.Reliability]) -> Section:
    plot = plots.reliability_plot(curves)
    return Section(title, text, html_figure(plot, "A dot's size is the number of predictions."))


def _confusion_section(
    confusion: Any, labels: list[str], confused: list[tuple[str, str, float]]
) -> Section:
    groups = findings.categories(labels)
    order = [labels.index(label) for members in groups.values() for label in members]
    breaks = np.cumsum([len(members) for members in groups.values()])[:-1].tolist()
    sorted_labels = [labels[k] for k in order]
    plot = html_figure(
        plots.confusion_plot(confusion[np.ix_(order, order)], sorted_labels, breaks),
        "Opacity is the square root of the share, so that a few per cent can be seen.",
        wide=True,
    )
    rows = (dict(zip(("truth", "named", "share"), row, strict=True)) for row in confused)
    return Section(
        "Confusions",
        "Windows of each substance (down) by the predicted one (across), sorted by category.",
        plot + html_table(rows, "truth, named=taken for, share=share of its windows"),
    )


def _scores(crossval: dict[str, Any]) -> Section:
    """Scores with their intervals and with those of chance or of a constant prediction."""
    mean = crossval["mean"]
    floors = _floors(crossval)
    rows = (
        {
            "score": name,
            "mean": mean[name],
            "pooled": crossval["pooled"][name],
            "interval": interval,
            "floor": floors.get(name),
        }
        for name, interval in crossval["intervals"].items()
        if name in mean and not name.startswith("constant_")
    )
    return Section(
        "Figures",
        "The mean is over folds; pooled is over the windows of all folds together, as is the "
        "interval; the floor is chance, or the best constant prediction. robust_* is the same "
        "recordings as in another session: per channel another gain (sigma 0.3 in log) and "
        "offset, and one channel lost; board_* has other sensitivities as well.",
        html_table(rows, "score, mean, pooled, interval=95 %, floor"),
    )


def _floors(crossval: dict[str, Any]) -> dict[str, float]:
    if crossval["task"] == "substance":
        chance = 1 / len(crossval["labels"])
        floors = {"top5": min(1.0, 5 * chance)}
        for prefix in ("", "robust_", "board_"):
            floors |= {f"{prefix}top1": chance, f"{prefix}recording_top1": chance}
        return floors
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
    title, plot = "Presence at the fitted thresholds", ""
    text = "Every fold with constants that were fitted on the other folds' held-out predictions."
    if course:
        title = "Live: what is announced, and when"
        text += (
            " accuracy: the likeliest label is right, announced or not; precision: of the "
            "announced; gap: mean belief minus accuracy."
        )
        plot = html_figure(plots.course_plot(course), "Held-out recordings.")
    return Section(title, text, plot + html_table(score_rows(layer), _SCORES))


def _companions(others: Mapping[str, dict[str, Any]]) -> list[Section]:
    sections = []
    if few := others.get("few_shot"):
        rows = (
            {"method": method, **row}
            for method, report in few["methods"].items()
            for row in score_rows(report)
        )
        sections.append(
            Section(
                "New smells from one recording each",
                f"{few['protocol']}. Chance is {1 / len(few['substances']):.3f}. Kept out: "
                f"{', '.join(few['substances'])}.",
                html_table(rows, f"method=nearest class mean by, {_SCORES}"),
            )
        )
    for name, title, text, columns in _TABLES:
        if rows_ := others.get(name, {}).get("rows"):
            sections.append(Section(title, text, html_table(rows_, columns)))
    return sections


def _folds(crossval: dict[str, Any]) -> Section:
    names = [name for name, value in crossval["folds"][0].items() if isinstance(value, int | float)]
    return Section(
        "Every fold",
        f"Seed {crossval['seed']}; data {crossval['data_sha256'][:16]}.",
        html_table(crossval["folds"], ", ".join(f"{name}={name}" for name in names)),
    )


def _curve(curve: findings.Reliability) -> dict[str, Any]:
    return {
        "stated": _rounded(curve.stated),
        "hit": _rounded(curve.hit),
        "count": curve.count.tolist(),
        "expected_calibration_error": round(curve.error, 4),
        "interval": list(curve.interval),
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


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
