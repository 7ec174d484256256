"""training/: the evidence of trust, put together as one JSON, a table of targets and one page.

The measurements are those of `training.trust`; here they are only presented. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.findings import Reliability
from training.reports import plots
from training.reports.html_page import (
    Section,
    descriptor_section,
    html_figure,
    html_page,
    html_table,
    nested_rows,
    score_rows,
)
from training.trust.enrolment import measure_enrolment
from training.trust.unknown_smells import JUDGED, measure_unknown_smells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from training.evaluation.open_set import OpenSetFold

OPEN_SET = "open_set.json"
TRUST, TRUST_PAGE = "trust.json", "trust.html"
OPEN_SET_PROTOCOL = (
    "five networks, each trained without ten of fifty substances and without one recording of "
    "every other; tested on those recordings and on all of the ten substances"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, its dotted path in the report, and the bounds it must and should keep to."""

    name: str
    path: str
    must: tuple[float, float]
    reach: tuple[float, float]

    def row(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return name, value (None where it was not measured), bounds and verdict."""
        found: Any = report
        for name in self.path.split("."):
            found = (found or {}).get(name)
        value = None if found is None else float(found)
        verdict = "not measured"
        if value is not None:
            verdict = "MISSED"
            for word, (low, high) in (("met", self.must), ("reached", self.reach)):
                verdict = word if low <= value <= high else verdict
        bounds = {"must": _bounds_text(*self.must), "reach": _bounds_text(*self.reach)}
        return {"name": self.name, "value": value, **bounds, "verdict": verdict}


_INF = float("inf")
_SETS = "probabilities.sets.least_ambiguous.always"
_ANNOUNCED = "probabilities.announced"
TARGETS = (
    Target(
        "skewed rig: share of the gap closed by 4 references",
        "rig.gap_closed.4", (0.5, _INF), (0.85, _INF),
    ),
    Target(
        "unknown substances: AUROC after 300 s", "unknown.auroc_300s", (0.75, _INF), (0.9, _INF)
    ),
    Target(
        "announced probabilities: calibration error",
        f"{_ANNOUNCED}.always.calibration_error", (-_INF, 0.08), (-_INF, 0.03),
    ),
    Target(
        "the same, after 120 s alone",
        f"{_ANNOUNCED}.120s.calibration_error", (-_INF, 0.08), (-_INF, 0.03),
    ),
    Target(
        "known exposures announced after 120 s",
        f"{_ANNOUNCED}.120s.announced", (0.8, _INF), (0.8, _INF),
    ),
    Target("90 % sets: coverage", f"{_SETS}.coverage", (0.87, 0.93), (0.87, 0.93)),
    Target("90 % sets: mean size", f"{_SETS}.size", (-_INF, _INF), (-_INF, 3.0)),
    Target(
        "false alarms per hour of clean air, upper 95 %",
        "air.clean_air.simulated.upper_95", (-_INF, 1.0), (-_INF, 0.1),
    ),
    Target(
        "ten ways, one exposure of two minutes: accuracy after 120 s",
        "lessons.taught.1.10 ways.scores.accuracy_120s", (0.6, _INF), (0.8, _INF),
    ),
)  # fmt: skip


def open_set_report(model: str, data_sha256: str, folds: Sequence[OpenSetFold]) -> dict[str, Any]:
    """Return all measurements on the outputs of the open-set networks."""
    return {
        "model": model,
        "protocol": OPEN_SET_PROTOCOL,
        "data_sha256": data_sha256,
        "unknown": measure_unknown_smells(folds),
        "lessons": measure_enrolment(folds),
    }


def target_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the targets as aligned lines."""
    width = max(len(target.name) for target in TARGETS)
    for row in (target.row(report) for target in TARGETS):
        number = "" if row["value"] is None else f"{row['value']:.3f}"
        yield f"{row['name']:<{width}}  {number:<6}  must {row['must']:<12}  {row['verdict']}"


def trust_page(report: Mapping[str, Any]) -> str:
    """Return the page; it needs no other file."""
    parts: dict[str, Callable[[Any], Iterator[Section]]] = {
        "unknown": _unknown,
        "probabilities": _probabilities,
        "lessons": _lessons,
        "air": _clean_air,
        "rig": _other_rig,
    }
    rows = (target.row(report) for target in TARGETS)
    targets = html_table(rows, "name=figure, value, must, reach=reach for, verdict")
    sections = [Section("Targets", "Required and measured figures.", targets)]
    for name, present in parts.items():
        if report.get(name):
            sections += present(report[name])
    return html_page(
        f"How far {report['model']} can be trusted",
        "Every constant was fitted on other folds than it is scored on. Brackets and bars are 95 % "
        "bootstrap intervals over substances or recordings.",
        sections,
    )


def _unknown(part: Mapping[str, Any]) -> Iterator[Section]:
    best, curve = part["best"], part["curve"]
    plot = html_figure(
        plots.lines_plot(
            {best: (np.array(curve["hidden_accepted"]), np.array(curve["known_accepted"]))},
            "unknown accepted as known",
            "known accepted",
            diagonal=True,
        ),
        f"Recordings after 300 s, by {best}; mean over networks. The dashed line is chance.",
    )
    rows = (
        row
        for row in nested_rows(part["scores"], "score", "judged")
        if row["score"] == best or row["judged"] in ("windows", JUDGED, "recording")
    )
    yield Section(
        "Smells that the model was not trained on",
        f"{part['networks']} networks, each tested on ten substances that it was trained without "
        "and on new recordings of those that it knows. False accepts: unknown ones taken for "
        "known, at a bound that keeps 95 % of the known; on the right at the other networks' "
        "bound, with the share of the known that this bound keeps.",
        plot
        + html_table(
            rows,
            "score, judged, auroc=AUROC, interval=95 %, false_accepts, transferred.known_recall="
            "known kept, transferred.false_accepts=false accepts",
        ),
    )
    if decided := part["decision"]:
        yield Section(
            "The decisions about them",
            "The whole decision layer with constants fitted on the other networks: shares of "
            "recordings called unrecognised, given a name, or still being sensed.",
            html_table(
                nested_rows(decided["by_second"], "after", "substance"),
                "after, substance, unrecognised, named, neither",
            ),
        )
    if descriptors := part.get("descriptors"):
        yield descriptor_section(
            "Their predicted odour descriptors",
            "Area under the ROC curve of every odour descriptor over recordings of substances that "
            "the network was trained without; chance is 0.5, the interval is over substances.",
            descriptors,
        )


def _probabilities(part: Mapping[str, Any]) -> Iterator[Section]:
    announced = part["announced"]
    curves = {
        name: Reliability(
            np.array(announced[place]["stated"]),
            np.array(announced[place]["hit"]),
            np.array(announced[place]["count"]),
            announced[place]["calibration_error"],
            tuple(announced[place]["interval"]),
        )
        for place, name in (("120s", "announced after 120 s"), ("always", "all announced"))
        if "stated" in announced[place]
    }
    plot = html_figure(
        plots.reliability_plot(curves), "A dot's size is the number of announcements."
    ) if curves else ""  # fmt: skip
    yield Section(
        "Announced probabilities",
        "Held-out recordings of known substances: how many are announced, how many of those are "
        "right, and the gap between the stated probability and the share right.",
        plot
        + html_table(
            nested_rows(announced, "when"),
            "when, announced, precision=right of those, calibration_error, interval=95 %",
        ),
    )
    yield Section(
        "Prediction sets",
        f"Prediction sets of stated coverage {part['set_coverage']:g}; the daemon publishes the "
        "least ambiguous ones, adaptive ones are for comparison.",
        html_table(
            nested_rows(part["sets"], "sets", "when"),
            "sets, when, coverage, intervals.coverage=95 %, size=mean size",
        ),
    )


def _lessons(part: Mapping[str, Any]) -> Iterator[Section]:
    taught = part["taught"]
    count = np.array([int(number) for number in taught])
    curves = {
        choice: (
            count,
            np.array([row[choice]["scores"]["accuracy_120s"] for row in taught.values()]),
        )
        for choice in next(iter(taught.values()), {})
    }
    rows = (
        {**score, "exposures": int(row["exposures"]), "choice": row["choice"],
         "after": score["score"].removeprefix("accuracy_")}
        for row in nested_rows(taught, "exposures", "choice")
        for score in score_rows(row)
    )  # fmt: skip
    yield Section(
        "Smells taught on the rig",
        f"Each network is taught the ten substances that it was trained without, "
        f"{part['lesson_s']:g} s an exposure, and tested on their other recordings. All labels: "
        "the choice is among the ten and the forty that it knows.",
        html_figure(
            plots.lines_plot(curves, "exposures of each smell", "accuracy after 120 s", (0, 1)),
            "Accuracy on other recordings.",
        )
        + html_table(rows, "exposures, choice, after, value=accuracy, interval=95 %"),
    )
    if part["known"]:
        yield Section(
            "The cost of teaching",
            "Held-out recordings of known substances with no taught smell, and with ten smells "
            "taught from one exposure each.",
            html_table(score_rows(part["known"]), "score=accuracy, value, interval=95 %"),
        )


def _clean_air(part: Mapping[str, Any]) -> Iterator[Section]:
    quiet = part["quiet_recordings"]
    air = part["clean_air"] | ({"real quiet stretches": quiet} if quiet else {})
    yield Section(
        "False alarms",
        'The onset detector in air without an odour: "simulated" is the board itself with its '
        "weather and drift, the others are rigs whose baseline wanders far more than that. The "
        "last column is the upper end of the rate's one-sided 95 % interval.",
        html_table(
            nested_rows(air, "air"), "air, hours, alarms, per_hour=an hour, upper_95=at most"
        ),
    )
    said = (
        {"board": row["board"], "hours": row["hours"], **event}
        for row in nested_rows(part["nose"], "board")
        for event in nested_rows(row["said"], "said")
    )
    yield Section(
        "Events of the whole nose in clean air",
        "Both shipped models behind the real pipeline, on either simulated board in clean air.",
        html_table(said, "board, hours, said=event, times, per_hour=an hour, upper_95=at most"),
    )
    rows = []
    for row in nested_rows(part["episodes"], "concentration"):
        times = {name: row[name] for name in ("onset_s", "end_s", "clean_s") if row[name]}
        texts = {name: f"{median:g} ({late:g})" for name, (median, late) in times.items()}
        rows.append({**row, "concentration": float(row["concentration"]), **texts})
    yield Section(
        "Time to detect and to recover",
        "Every substance once, with simulated clean air before and after; seconds are medians, in "
        "brackets the 90th percentile. Concentration 1 is that of the recordings.",
        html_table(
            rows,
            "concentration, episodes, onset_found, end_found, onset_s=s to onset, end_s=s to end, "
            "clean_s=s to clean air",
        ),
    )


def _other_rig(part: Mapping[str, Any]) -> Iterator[Section]:
    numbers = [number for number in part["scores"] if number.isdigit()]
    count = np.array([int(number) for number in numbers])
    curves = {
        kind: (count, np.array([part["scores"][number][kind] for number in numbers]))
        for kind in ("windows", "recordings")
    }
    rows = []
    for row in nested_rows(part["scores"], "number"):
        number = row["number"]
        name = "the training rig" if number == "unskewed" else f"{number} references"
        rows.append({**row, "name": name})
        for gap in ("gap_closed", "gap_closed_recordings"):
            rows[-1][gap] = part[gap].get(number)
            rows[-1][f"{gap}_interval"] = part["intervals"].get(f"{gap}_{number}")
    plot = plots.lines_plot(curves, "references", "share named rightly")
    yield Section(
        "Another board",
        f'Held-out recordings as the rig "{part["rig"]}" would send them, as they are and '
        "corrected by a calibration from references of so many labels; scored are recordings that "
        "were no references. The gap is the rig's loss against the training rig.",
        html_figure(plot, "0: as the rig sends them.")
        + html_table(
            rows,
            "name=recorded on, windows, recordings, gap_closed, gap_closed_interval=95 %, "
            "gap_closed_recordings=of recordings, gap_closed_recordings_interval=95 %",
        ),
    )


def _bounds_text(low: float, high: float) -> str:
    if np.isfinite(low):
        return f"{low:g} to {high:g}" if np.isfinite(high) else f">= {low:g}"
    return f"<= {high:g}" if np.isfinite(high) else ""
