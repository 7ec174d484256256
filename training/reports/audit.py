"""training/: the audit as a file for machines, a table for readers, and a plot.

matplotlib is loaded when a plot is drawn.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from training.evaluation.storage import write_json
from training.experiments.audit.verdicts import CLEAN, LEAKS, REFERENCE
from training.experiments.runner import render_markdown_table

if TYPE_CHECKING:
    from pathlib import Path

    from training.experiments.audit.verdicts import Audit, AuditRow

JSON, PAGE, PLOT = "audit.json", "audit.md", "audit.svg"

_COLOURS = {LEAKS: "#c0392b", CLEAN: "#2e7d5b", REFERENCE: "#34607f"}
_UNDECIDED = "#8a8a8a"


def write_audit(folder: Path, result: Audit, data_sha256: str) -> tuple[Path, ...]:
    """Write audit.json, audit.md and audit.svg; return their paths."""
    report = {
        "protocol": "grouped folds, one recording of every label held out; w=100, stride 50",
        "data_sha256": data_sha256,
        **dataclasses.asdict(result),
    }
    write_json(folder / JSON, report)
    (folder / PAGE).write_text(audit_page(result))
    draw_audit(result, folder / PLOT)
    return folder / JSON, folder / PAGE, folder / PLOT


def audit_page(result: Audit) -> str:
    """Return the whole audit as Markdown."""
    lines = [
        "# Audit: how much of a score is session, not smell",
        "",
        f"{result.recordings} recordings of {result.labels} labels. Each row is a classifier "
        "(extremely randomised trees) that had only the named inputs, on the folds of the "
        "cross-validation. A control leaks if its whole 95 % interval over recordings lies "
        "above chance.",
        "",
        audit_table(result),
        "",
        f"![Share of windows named right, by control]({PLOT})",
        "",
        *(f"- {line}" for line in result.summary),
        "",
        "## Control by control",
        "",
        *(f"- **{_name(row)}** ({row.verdict}). {row.sentence}" for row in result.rows),
        "",
    ]
    return "\n".join(lines)


def audit_table(result: Audit) -> str:
    """Return the Markdown table of all rows, references first."""
    lines = []
    for row in (*result.references, *result.rows):
        interval = f" ({row.low:.3f} to {row.high:.3f})" if row.high > row.low else ""
        skill = "" if row.share_of_skill is None else f"{100 * row.share_of_skill:.0f} %"
        lines.append(
            f"{_name(row)}: {row.inputs} | {row.top1:.3f}{interval} | {row.recording_top1:.3f} | "
            f"{skill} | {row.verdict}"
        )
    return render_markdown_table(
        "what is seen | window Top-1 (95 %) | recording Top-1 | of the skill | verdict",
        [*lines, f"chance | {result.rows[0].chance:.3f} | | |"],
    )


def draw_audit(result: Audit, path: Path) -> None:
    """Draw the share of windows that each row names right, with its interval, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and of the train extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = [*result.references, *result.rows]
    # Text stays text, and the same audit gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "audit"}):
        figure = Figure(figsize=(7.5, 0.45 * len(rows) + 1.1), layout="constrained")
        axes = figure.subplots()
        shares = [row.top1 for row in rows]
        reach = [
            [max(0.0, row.top1 - row.low) for row in rows],
            [max(0.0, row.high - row.top1) for row in rows],
        ]
        colours = [_COLOURS.get(row.verdict, _UNDECIDED) for row in rows]
        axes.barh([*map(_name, rows)], shares, xerr=reach, color=colours, height=0.6, capsize=3)
        for place, row in enumerate(rows):
            axes.text(row.high + 0.015, place, f"{row.top1:.2f} {row.verdict}", va="center")
        chance = rows[-1].chance
        axes.axvline(chance, color="black", linestyle="--", linewidth=1)
        axes.text(chance, -0.75, " chance", va="bottom", fontsize="small")
        axes.set_xlim(0, 1.2)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axes.invert_yaxis()
        axes.set_xlabel("share of windows named right, with its 95 % interval over recordings")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})


def _name(row: AuditRow) -> str:
    return row.control.replace("_", " ")
