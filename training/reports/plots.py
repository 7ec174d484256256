"""training/: the plots of a report, as SVG to be embedded in a page.

The colours are variables of the page, so that the same plot suits a light and a dark page.
matplotlib is imported inside the functions: it takes a second.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from training.evaluation.findings import AccuracyOverTime, Reliability, ShareWithInterval

INK, MUTED, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505"
"""Colours for matplotlib to draw with, which are then replaced by the page's variables."""
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
_FEW = 8
"""Up to so many points each have a marker."""
_HEAT = (31, 111, 178)
"""Colour of a confusion, in 0..255; a share is its opacity, so that the page shows through."""


def course_plot(course: AccuracyOverTime) -> str:
    """Accuracy and announcements over the seconds of a recording."""
    curves = {
        "likeliest label is right": course.accuracy,
        "something announced": course.announced,
        "the right label announced": course.right,
    }
    return lines_plot(
        {name: (course.seconds, shares) for name, shares in curves.items()},
        "seconds of a recording",
        "share of recordings",
    )


def reliability_plot(curves: dict[str, Reliability]) -> str:
    """Stated probability against hit rate; on the diagonal they agree."""
    figure, axes = _figure(4.4, 4.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    for (name, curve), colour in zip(curves.items(), (FIRST, SECOND, THIRD), strict=False):
        axes.plot(curve.stated, curve.hit, color=colour, label=name, linewidth=1)
        sizes = 10 + 90 * curve.count / curve.count.max()
        axes.scatter(curve.stated, curve.hit, s=sizes, color=colour, linewidth=0)
    axes.set(xlabel="probability stated", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    _legend(axes)
    return _svg(figure)


def lines_plot(
    curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    across: str,
    up: str,
    bounds: tuple[float, float] | None = None,
    *,
    diagonal: bool = False,
) -> str:
    """Curves (x, y) by name, up to three; `diagonal` shows chance."""
    figure, axes = _figure(4.4, 3.6)
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    for (name, (x, y)), colour in zip(curves.items(), (FIRST, SECOND, THIRD), strict=False):
        few = len(x) <= _FEW
        axes.plot(x, y, color=colour, label=name, marker="o" if few else None, markersize=4)
        if few:
            axes.set_xticks(x)
    axes.set(xlabel=across, ylabel=up, ylim=bounds or (0, 1))
    _legend(axes)
    return _svg(figure)


def shares_plot(shares: Sequence[ShareWithInterval]) -> str:
    """Bars with intervals."""
    figure, axes = _figure(4.8, 0.5 + 0.36 * len(shares))
    rows = np.arange(len(shares))[::-1]
    middle = np.array([share.value for share in shares])
    ends = np.array([(share.low, share.high) for share in shares]).T
    axes.barh(rows, middle, color=FIRST, height=0.6, alpha=0.75)
    axes.errorbar(
        middle, rows, xerr=np.abs(ends - middle), fmt="none", ecolor=INK, elinewidth=1, capsize=3
    )
    axes.set_yticks(rows, [f"{share.name} ({share.count})" for share in shares])
    axes.set(xlim=(0, 1))
    axes.grid(visible=False, axis="y")
    return _svg(figure)


def confusion_plot(table: NDArray[np.float64], labels: Sequence[str], breaks: list[int]) -> str:
    """Truth down, prediction across; lines where a category ends.

    Parameters
    ----------
    table: float[truth, prediction], rows summing to 1, in the order of `labels`.
    labels: names of both axes.
    breaks: indices before which a category begins.
    """
    size = max(4.0, 1.8 + 0.155 * len(labels))
    figure, axes = _figure(size, size)
    pixels = np.zeros((*table.shape, 4))
    pixels[..., :3] = np.array(_HEAT) / 255
    pixels[..., 3] = np.sqrt(table)  # a root, so that a few per cent are visible
    axes.imshow(pixels, interpolation="nearest", aspect="equal")
    names = [label.replace("_", " ") for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), names, fontsize=7)
    axes.grid(visible=False)
    for place in breaks:
        axes.axhline(place - 0.5, color=MUTED, linewidth=0.5)
        axes.axvline(place - 0.5, color=MUTED, linewidth=0.5)
    axes.set(xlabel="predicted", ylabel="truth")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(
        {
            "font.size": 9,
            "font.family": "sans-serif",
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "axes.grid": True,
            "grid.color": MUTED,
            "grid.alpha": 0.25,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _svg(figure: Figure) -> str:
    """Return the figure as an element with the page's width and colours."""
    import matplotlib as mpl  # noqa: PLC0415

    stream = io.StringIO()
    # Text stays text, and the same figure gives the same ids and bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scentd"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    width = re.search(r'width="([\d.]+)pt"', text)
    limit = f"max-width:{float(width[1]) * 4 / 3:.0f}px" if width else ""
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"([^>]*?)>',
        rf'\1 style="width:100%;height:auto;{limit}"\2>',
        text,
        count=1,
    )
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
