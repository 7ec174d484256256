"""training/: the evidence of trust, put together as one JSON, a table of targets and one page.

Knows what each part measured and how to say it; measures nothing. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.findings import Reliability
from training.reports import plots
from training.reports.html import Section, figure, page, span, table
from training.trust import enrolment, unknown_smells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from training.evaluation.intervals import Interval
    from training.evaluation.open_set_answers import OpenFold

OPEN_SET = "open_set.json"
TRUST, PAGE = "trust.json", "trust.html"
OPEN_SET_PROTOCOL = (
    "five networks, each trained without ten of fifty substances and without one recording of "
    "every other; asked about those recordings and about all of the ten substances"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for.

    Attributes
    ----------
    name: of the figure.
    path: where a report has it.
    must, reach: bounds between which it must lie, and should.
    """

    name: str
    path: tuple[str, ...]
    must: Interval
    reach: Interval

    def value(self, report: Mapping[str, Any]) -> float | None:
        """Return the figure; None where it was not measured."""
        found: Any = report
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    def verdict(self, report: Mapping[str, Any]) -> str:
        """Say whether the figure lies between the bounds."""
        value = self.value(report)
        if value is None:
            return "not measured"
        for word, (low, high) in (("reached", self.reach), ("met", self.must)):
            if low <= value <= high:
                return word
        return "MISSED"


_SETS = ("probabilities", "sets", "least_ambiguous", "always")
_ANNOUNCED = ("probabilities", "announced")
TARGETS = (
    Target(
        "skewed rig: share of the gap closed by 4 references",
        ("rig", "gap_closed", "4"),
        (0.5, np.inf),
        (0.85, np.inf),
    ),
    Target(
        "unknown substances: AUROC after 300 s",
        ("unknown", "auroc_300s"),
        (0.75, np.inf),
        (0.9, np.inf),
    ),
    Target(
        "announced probabilities: calibration error",
        (*_ANNOUNCED, "always", "calibration_error"),
        (-np.inf, 0.08),
        (-np.inf, 0.03),
    ),
    Target(
        "the same, after 120 s alone",
        (*_ANNOUNCED, "120s", "calibration_error"),
        (-np.inf, 0.08),
        (-np.inf, 0.03),
    ),
    Target(
        "known exposures announced after 120 s",
        (*_ANNOUNCED, "120s", "announced"),
        (0.8, np.inf),
        (0.8, np.inf),
    ),
    Target("90 % sets: coverage", (*_SETS, "coverage"), (0.87, 0.93), (0.87, 0.93)),
    Target("90 % sets: mean size", (*_SETS, "size"), (-np.inf, np.inf), (-np.inf, 3.0)),
    Target(
        "false alarms per hour of clean air, upper 95 %",
        ("air", "clean_air", "simulated", "upper_95"),
        (-np.inf, 1.0),
        (-np.inf, 0.1),
    ),
    Target(
        "ten ways, one exposure of two minutes: accuracy after 120 s",
        ("lessons", "taught", "1", "10 ways", "scores", "accuracy_120s"),
        (0.6, np.inf),
        (0.8, np.inf),
    ),
)


def open_set_report(model: str, data_sha256: str, folds: Sequence[OpenFold]) -> dict[str, Any]:
    """Return everything that the open-set networks' answers tell."""
    return {
        "model": model,
        "protocol": OPEN_SET_PROTOCOL,
        "data_sha256": data_sha256,
        "unknown": unknown_smells.measure(folds),
        "lessons": enrolment.measure(folds),
    }


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the targets as aligned lines."""
    width = max(len(target.name) for target in TARGETS)
    for target in TARGETS:
        value = target.value(report)
        number = "" if value is None else f"{value:.3f}"
        yield (
            f"{target.name:<{width}}  {number:<6}  must {_bounds(target.must):<12}  "
            f"{target.verdict(report)}"
        )


def trust_page(report: Mapping[str, Any]) -> str:
    """Return the page; it needs no other file."""
    parts: dict[str, Callable[[Any], Iterator[Section]]] = {
        "unknown": _unknown,
        "probabilities": _probabilities,
        "lessons": _lessons,
        "air": _air,
        "rig": _rig,
    }
    sections = [_headline(report)]
    for name, say in parts.items():
        if report.get(name):
            sections += list(say(report[name]))
    return page(
        f"How far {report['model']} is to be trusted",
        "Every constant was fitted on other folds than it is scored on. Brackets and bars are 95 % "
        "bootstrap intervals over substances or recordings.",
        sections,
    )


def _headline(report: Mapping[str, Any]) -> Section:
    rows = [
        (
            target.name,
            target.value(report),
            _bounds(target.must),
            _bounds(target.reach),
            target.verdict(report),
        )
        for target in TARGETS
    ]
    return Section(
        "Targets",
        "What was asked for, and what came.",
        table(["figure", "value", "must", "reach for", ""], rows),
    )


def _unknown(part: Mapping[str, Any]) -> Iterator[Section]:
    best = part["best"]
    curve = part["curve"]
    rows = [
        (
            name,
            place,
            row["auroc"],
            span(row["interval"]),
            row["false_accepts"],
            row.get("transferred", {}).get("known_recall"),
            row.get("transferred", {}).get("false_accepts"),
        )
        for name, places in part["scores"].items()
        for place, row in places.items()
        if name == best or place in ("windows", unknown_smells.JUDGED, "recording")
    ]
    plot = figure(
        plots.lines_plot(
            {best: (np.array(curve["hidden_accepted"]), np.array(curve["known_accepted"]))},
            "unknown accepted as known",
            "known accepted",
            diagonal=True,
        ),
        f"Recordings after 300 s, by {best}; mean over networks. The dashed line is chance.",
    )
    yield Section(
        "Smells that the model never met",
        f"{part['networks']} networks, each asked about ten substances that it never met and about "
        "new recordings of those that it knows. False accepts: unknown ones taken for known, at a "
        "bound that keeps 95 % of the known; on the right at the other networks' bound, with what "
        "that bound keeps.",
        plot
        + table(
            ["score", "judged", "AUROC", "95 %", "false accepts", "known kept", "false accepts"],
            rows,
        ),
    )
    if decided := part["decision"]:
        rows_ = [
            (place, kind, row["unrecognised"], row["named"], row["neither"])
            for place, kinds in decided["by_second"].items()
            for kind, row in kinds.items()
        ]
        yield Section(
            "What the rig says of them",
            "The whole decision layer with constants fitted on the other networks: shares of "
            "recordings called unrecognised, given a name, or still being sensed.",
            table(["after", "substance", "unrecognised", "named", "neither"], rows_),
        )
    if described := part.get("descriptors"):
        areas = sorted(described["auroc"].items(), key=lambda pair: -pair[1])
        yield Section(
            "What they are said to smell like",
            "Area under the ROC curve of every odour descriptor over recordings of substances that "
            "the network never met; chance is 0.5, the interval is over substances.",
            table(
                ["descriptor", "AUROC", "95 %"],
                [("all, mean", described["macro_auroc"], span(described["interval"]))]
                + [(name, value, "") for name, value in areas],
            ),
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
    rows = [
        (
            place,
            row["announced"],
            row.get("precision"),
            row.get("calibration_error"),
            span(row.get("interval")),
        )
        for place, row in announced.items()
    ]
    plot = (
        figure(plots.reliability_plot(curves), "A dot's size is the number of announcements.")
        if curves
        else ""
    )
    yield Section(
        "Can an announced probability be believed?",
        "Held-out recordings of known substances: how many are announced, how many of those are "
        "right, and the gap between the stated probability and the share right.",
        plot + table(["when", "announced", "right of those", "calibration error", "95 %"], rows),
    )
    rows = [
        (
            method.replace("_", " "),
            place,
            row["coverage"],
            span(row["intervals"]["coverage"]),
            row["size"],
        )
        for method, places in part["sets"].items()
        for place, row in places.items()
    ]
    yield Section(
        "Does the set hold the truth?",
        f"Prediction sets of stated coverage {part['set_coverage']:g}; the daemon publishes the "
        "least ambiguous ones, adaptive ones are there to compare.",
        table(["sets", "when", "coverage", "95 %", "mean size"], rows),
    )


def _lessons(part: Mapping[str, Any]) -> Iterator[Section]:
    taught = part["taught"]
    count = np.array([int(number) for number in taught])
    shown = {
        choice: (
            count,
            np.array([row[choice]["scores"]["accuracy_120s"] for row in taught.values()]),
        )
        for choice in next(iter(taught.values()), {})
    }
    rows = [
        (
            int(number),
            choice,
            name.removeprefix("accuracy_"),
            value,
            span(row["intervals"][name]),
        )
        for number, choices_ in taught.items()
        for choice, row in choices_.items()
        for name, value in row["scores"].items()
    ]
    yield Section(
        "Smells taught on the spot",
        f"Each network is taught the ten substances that it never met, {part['lesson_s']:g} s an "
        "exposure, and tested on their other recordings. All labels: the ten beside the forty "
        "that it knows.",
        figure(
            plots.lines_plot(shown, "exposures of each smell", "accuracy after 120 s", (0, 1)),
            "Accuracy on other recordings.",
        )
        + table(["exposures", "choice", "after", "accuracy", "95 %"], rows),
    )
    if known := part["known"]:
        yield Section(
            "What teaching costs",
            "Held-out recordings of known substances without any lesson, and beside ten smells "
            "taught from one exposure each.",
            table(
                ["accuracy", "value", "95 %"],
                [
                    (name.replace("_", " "), value, span(known["intervals"][name]))
                    for name, value in known["scores"].items()
                ],
            ),
        )


def _air(part: Mapping[str, Any]) -> Iterator[Section]:
    quiet = part["quiet_recordings"]
    watched = part["clean_air"] | ({"real quiet stretches": quiet} if quiet else {})
    rows = [
        (name.replace("_", " "), *(row[key] for key in ("hours", "alarms", "per_hour", "upper_95")))
        for name, row in watched.items()
    ]
    yield Section(
        "False alarms",
        'The onset detector in air without an odour: "simulated" is the board itself with its '
        "weather and drift, the others are rigs whose baseline wanders far more than that. The "
        "last column is the upper end of the rate's one-sided 95 % interval.",
        table(["air", "hours", "alarms", "an hour", "at most"], rows),
    )
    rows = [
        (name, row["hours"], kind, said["times"], said["per_hour"], said["upper_95"])
        for name, row in part["nose"].items()
        for kind, said in row["said"].items()
    ]
    yield Section(
        "What the whole nose says of clean air",
        "The shipped models behind the real pipeline, in simulated clean air.",
        table(["model", "hours", "said", "times", "an hour", "at most"], rows),
    )
    rows = [
        (
            float(strength),
            row["episodes"],
            row["onset_found"],
            row["end_found"],
            *(
                f"{times[0]:g} ({times[1]:g})" if (times := row[key]) else None
                for key in ("onset_s", "end_s", "clean_s")
            ),
        )
        for strength, row in part["episodes"].items()
    ]
    yield Section(
        "Time to detect and to recover",
        "Every substance out of simulated clean air and back, once; seconds are medians, in "
        "brackets the 90th percentile. Concentration 1 is that of the recordings.",
        table(
            [
                "concentration",
                "episodes",
                "onset found",
                "end found",
                "s to onset",
                "s to end",
                "s to clean air",
            ],
            rows,
        ),
    )


def _rig(part: Mapping[str, Any]) -> Iterator[Section]:
    numbers = [number for number in part["scores"] if number.isdigit()]
    count = np.array([int(number) for number in numbers])
    curves = {
        kind: (count, np.array([part["scores"][number][kind] for number in numbers]))
        for kind in ("windows", "recordings")
    }
    rows = [
        (
            "the training rig" if number == "unskewed" else f"{number} references",
            row["windows"],
            row["recordings"],
            part["gap_closed"].get(number),
            span(part["intervals"].get(f"gap_closed_{number}")),
            part["gap_closed_recordings"].get(number),
            span(part["intervals"].get(f"gap_closed_recordings_{number}")),
        )
        for number, row in part["scores"].items()
    ]
    yield Section(
        "Another board",
        f'Held-out recordings as the rig "{part["rig"]}" would have sent them, as they are and '
        "corrected by a calibration from references of so many labels; judged are recordings that "
        "were no references. The gap is what the rig loses against the training rig.",
        figure(
            plots.lines_plot(curves, "references", "share named rightly"),
            "0: as the rig sends them.",
        )
        + table(
            ["heard from", "windows", "recordings", "gap closed", "95 %", "of recordings", "95 %"],
            rows,
        ),
    )


def _bounds(bounds: Interval) -> str:
    low, high = bounds
    if np.isfinite(low):
        return f"{low:g} to {high:g}" if np.isfinite(high) else f">= {low:g}"
    return f"<= {high:g}" if np.isfinite(high) else ""
