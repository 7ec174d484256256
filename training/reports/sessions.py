"""training/: the report of held-out sessions as lines of text and as a section of a page.

Reads the report of `training.experiments.held_out_sessions` and measures nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware.counting import counted
from training.reports.html_page import Section, html_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCORES = {
    "recording_top1": "the likeliest label is right",
    "recording_top3": "the right label is among the first three",
    "recording_top5": "the right label is among the first five",
    "announced": "given a name",
    "announced_right": "of these, the last name is right",
    "right_in_the_end": "the last name is right",
    "wrong_in_the_end": "the last name is wrong",
    "another_name_first": "another name came first",
    "announced_60s": "given a name within 60 s of the onset",
    "taken_back": "a name was withdrawn or replaced before the exposure ended",
    "right_240s": "240 s after the onset, the last name is right",
    "wrong_240s": "240 s after the onset, the last name is wrong",
}
"""Scores over recordings and what each says."""

SOURCES = {
    "sessions": "fitted on the other sessions",
    "both": "fitted on held-out recordings and on the other sessions",
    "recordings": "fitted on held-out recordings of the same sessions",
    "none": "the cautious ones, for lack of recordings to fit on",
}
"""Where a fold's decision constants come from."""

_COLUMNS = ("recording_top1", "recording_top3", "recording_top5", "announced", "announced_right")


SESSIONS_LEAD = (
    "Whole sessions held out: what to expect on another day. Figures of the int8 networks; "
    "brackets are 95 % bootstrap intervals over recordings."
)
_HEADS = (
    "sessions=held out, recordings, recording_top1=Top-1, recording_top3=Top-3, "
    "recording_top5=Top-5, announced, announced_right=of these right, seconds=s"
)


def sessions_section(report: Mapping[str, Any]) -> Section:
    """Return the section of the run's page: pooled scores, then a row per held-out session."""
    pooled = (
        {"score": text, "value": report["pooled"][name], "interval": report["intervals"][name]}
        for name, text in SCORES.items()
    )
    return Section(
        "On another day: whole sessions held out",
        f"{_count(report)}; {report['protocol']}. Shares of recordings; names are those "
        f"announced when a recording is replayed. {' '.join(_notes(report))}",
        html_table(pooled, "score=share of recordings, value, interval=95 %")
        + html_table(report["folds"], _HEADS),
    )


def session_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines that `crossval --sessions` prints: per session, then pooled."""
    pooled, ends = report["pooled"], report["intervals"]
    width = max(len(SCORES[name]) for name in SCORES)
    return [
        f"{report['model']}, {report['protocol']}; int8.",
        *_table(report),
        "",
        f"All held-out recordings together, {_count(report)} [95 % over recordings]:",
        *(
            f"  {text:<{width}}  {pooled[name]:.3f}  [{ends[name][0]:.3f}, {ends[name][1]:.3f}]"
            for name, text in SCORES.items()
        ),
        *_notes(report),
    ]


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    rows = [(fold["sessions"], fold["recordings"], fold) for fold in report["folds"]]
    rows += [
        (f"--also, without {fold['sessions']}", report["also"], fold["also"])
        for fold in report["folds"]
        if "also" in fold
    ]
    width = max(len("held out"), *(len(name) for name, _, _ in rows))
    yield f"  {'held out':<{width}}  recordings  top-1  top-3  top-5  announced  of these right"
    for name, count, scores in rows:
        top1, top3, top5, announced, right = (scores[column] for column in _COLUMNS)
        yield (
            f"  {name:<{width}}  {count:10}  {top1:5.2f}  {top3:5.2f}  {top5:5.2f}  "
            f"{announced:9.2f}  {right:14.2f}"
        )


def _count(report: Mapping[str, Any]) -> str:
    count = len({row["recording"] for row in report["recordings"]})
    also = f" (of these {report['also']} of --also)" if report["also"] else ""
    return f"{count}{also} of {counted(report['sessions'], 'session')}"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    for fold in report["folds"]:
        if fold["not_judged"]:
            yield (
                f"Not judged with {fold['sessions']} held out, for lack of another session: "
                f"{', '.join(fold['not_judged'])}. Record these on another day."
            )
    if report["always_trained"]:
        yield (
            f"{counted(report['always_trained'], 'recording')} without a session trained in every "
            "fold; their labels are only alternatives here."
        )
    for source in dict.fromkeys(fold["constants_from"] for fold in report["folds"]):
        chosen = [fold["sessions"] for fold in report["folds"] if fold["constants_from"] == source]
        yield f"Decision constants with {'; '.join(chosen)} held out: {SOURCES[source]}."
