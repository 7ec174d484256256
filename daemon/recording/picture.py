"""Daemon: a replayed recording as a picture: channels above clean air, states and names over time.

Pure: steps of the nose in, one HTML page out, with the drawing in it as SVG. The page needs no
other file, no script and no network. Every text that comes from data is escaped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from models.decision_spec import State
from models.signals import GAS_NAMES, log_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from models.clean_air import CleanAir
    from models.results import Prediction, Step

_T = TypeVar("_T")

POINTS = 1000
"""Points of a channel's line: one for each pixel of its width."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 1000, 320, 52, 10, 12
STRIP = 26
"""Height of the strips of states and names."""

COLOURS = (
    "#1f6fb2", "#c8690a", "#2f8a4c", "#b2395b", "#7a57c2", "#8a7a1f", "#2d9aa5", "#777777",
)  # fmt: skip

STATE_COLOURS = {
    State.WARMING_UP: "#c9b458",
    State.AMBIENT: "#9fb8a3",
    State.SENSING: "#e0a55e",
    State.RECOGNISED: "#4f9d69",
    State.UNRECOGNISED: "#b06fa8",
    State.RECOVERING: "#8fb3d0",
    State.FAULT: "#c0504d",
    State.DISABLED: "#aaaaaa",
}

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --ink: #1d2126; --line: #d9dde1; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --ink: #e6e8ea; --line: #343a41; } }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
.grid { stroke: var(--line); } .key { display: inline-block; margin-right: 1rem; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em;
  margin-right: .35em; background: var(--c); }
"""


@dataclass(slots=True)
class Picture:
    """What is drawn of one recording.

    Parameters
    ----------
    title: name of the file.
    readings: how many there will be.
    task: of the predictions that are drawn, `substance` or `mixture`.
    """

    title: str
    readings: int
    task: str
    _sums: list[NDArray[np.float64]] = field(default_factory=list)
    _counts: list[NDArray[np.int64]] = field(default_factory=list)
    _times_s: list[float] = field(default_factory=list)
    _air: list[NDArray[np.float64] | None] = field(default_factory=list)
    _states: list[tuple[float, State]] = field(default_factory=list)
    _names: list[tuple[float, str | None]] = field(default_factory=list)
    _count: int = 0
    _last_s: float = 0.0

    def add_step(self, step: Step, clean_air: CleanAir | None) -> None:
        """Add a reading and the clean air that is known at it."""
        signals = log_signals(step.frame.values[None])[0]
        finite = np.isfinite(signals)
        if self._count % max(1, math.ceil(self.readings / POINTS)) == 0:
            self._sums.append(np.zeros(len(GAS_NAMES)))
            self._counts.append(np.zeros(len(GAS_NAMES), np.int64))
            self._times_s.append(step.t_ms / 1000.0)
            self._air.append(None)
        self._count += 1
        self._sums[-1] += np.where(finite, signals, 0.0)
        self._counts[-1] += finite
        self._air[-1] = None if clean_air is None else clean_air.signals
        self._last_s = step.t_ms / 1000.0

    def add_prediction(self, prediction: Prediction) -> None:
        """Add a prediction, if it says another state or name than the one before."""
        if prediction.task != self.task:
            return
        t_s = prediction.t_ms / 1000.0
        name = prediction.label or " + ".join(part.label for part in prediction.components) or None
        if not self._states or self._states[-1][1] is not prediction.state:
            self._states.append((t_s, prediction.state))
        if not self._names or self._names[-1][1] != name:
            self._names.append((t_s, name))

    @property
    def above_clean_air(self) -> bool:
        """Whether clean air is known anywhere; else the first readings stand in its place."""
        return any(air is not None for air in self._air)

    def svg(self) -> str:
        """Return the drawing."""
        return "".join(self._drawn())

    def _response(self) -> NDArray[np.float64]:
        """Return the log-conductances float64[points, 8] above clean air; NaN where unknown."""
        counts = np.array(self._counts)
        means = np.where(counts > 0, np.array(self._sums) / np.maximum(counts, 1), np.nan)
        first = next((air for air in self._air if air is not None), means[0])
        air = first
        rows = []
        for mean, known in zip(means, self._air, strict=True):
            air = air if known is None else known
            rows.append(mean - np.where(np.isfinite(air), air, first))
        return np.array(rows)

    def _drawn(self) -> Iterator[str]:
        total = HEIGHT + 2 * STRIP + 40
        yield (
            f'<svg viewBox="0 0 {WIDTH} {total}" role="img" '
            f'aria-label="{escape(self.title)}: channels, states and names over time">'
        )
        if self._times_s:
            yield from self._channels()
            yield from self._strip(HEIGHT + 4, "state", self._state_boxes())
            yield from self._strip(HEIGHT + STRIP + 8, "name", self._name_boxes())
            yield from self._time_axis(HEIGHT + 2 * STRIP + 24)
        yield "</svg>"

    def _channels(self) -> Iterator[str]:
        response = self._response()
        finite = response[np.isfinite(response)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        low, high = min(low, -0.1), max(high, 0.1)

        def up(value: float) -> float:
            return HEIGHT - (value - low) / (high - low) * (HEIGHT - TOP)

        step = _round_step((high - low) / 5)
        for number in range(math.ceil(low / step), math.floor(high / step) + 1):
            y, text = up(number * step), f"{number * step:.3g}"
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        for place, (name, colour) in enumerate(zip(GAS_NAMES, COLOURS, strict=True)):
            path = "".join(_path(self._places(), map(up, response[:, place].tolist())))
            if path:
                yield (
                    f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5">'
                    f"<title>{escape(name)}</title></path>"
                )

    def _places(self) -> Iterator[float]:
        return map(self._across, self._times_s)

    def _across(self, t_s: float) -> float:
        first_s = self._times_s[0]
        share = (t_s - first_s) / max(self._last_s - first_s, 1e-9)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def _state_boxes(self) -> Iterator[tuple[float, float, str, str]]:
        for start_s, end_s, state in _spans(self._states, self._last_s):
            yield start_s, end_s, STATE_COLOURS[state], str(state).replace("_", " ")

    def _name_boxes(self) -> Iterator[tuple[float, float, str, str]]:
        for start_s, end_s, name in _spans(self._names, self._last_s):
            if name is not None:
                yield start_s, end_s, STATE_COLOURS[State.RECOGNISED], name

    def _strip(
        self, y: float, what: str, boxes: Iterable[tuple[float, float, str, str]]
    ) -> Iterator[str]:
        yield f'<text x="{LEFT - 6}" y="{y + 17:.0f}" text-anchor="end">{what}</text>'
        for start_s, end_s, colour, text in boxes:
            x, end = self._across(start_s), self._across(end_s)
            fits = len(text) * 7 < end - x
            shown = f'<text x="{x + 4:.1f}" y="{y + 17:.0f}">{escape(text)}</text>' if fits else ""
            about = escape(f"{text}, {start_s:.0f} to {end_s:.0f} s")
            yield (
                f'<g><rect x="{x:.1f}" y="{y:.0f}" width="{max(end - x, 0.5):.1f}" '
                f'height="{STRIP - 4}" fill="{colour}" fill-opacity="0.55"/>{shown}'
                f"<title>{about}</title></g>"
            )

    def _time_axis(self, y: float) -> Iterator[str]:
        step = _round_step(max(self._last_s - self._times_s[0], 1.0) / 8)
        first = math.ceil(self._times_s[0] / step)
        for number in range(first, math.floor(self._last_s / step) + 1):
            x = self._across(number * step)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT}"/>'
            yield (
                f'<text x="{x:.1f}" y="{y:.0f}" text-anchor="middle">{number * step:.4g} s</text>'
            )


def picture_page(pictures: Sequence[Picture]) -> str:
    """Return the page with all recordings."""
    keys = "".join(
        f'<span class="key" style="--c: {colour}">{escape(name)}</span>'
        for name, colour in zip(GAS_NAMES, COLOURS, strict=True)
    )
    title = pictures[0].title if len(pictures) == 1 else f"{len(pictures)} recordings"
    parts = []
    for picture in pictures:
        where = "clean air" if picture.above_clean_air else "the first readings"
        parts.append(
            f"<section><h2>{escape(picture.title)}</h2><p>Log-conductance of each channel above "
            f"{where}; below it state and name.</p>{picture.svg()}</section>"
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{keys}</p>{''.join(parts)}</body></html>\n"
    )


def _spans(changes: Sequence[tuple[float, _T]], last_s: float) -> Iterator[tuple[float, float, _T]]:
    """Yield start, end and value of each change."""
    ends = [t_s for t_s, _ in changes[1:]] + [last_s]
    for (start_s, value), end_s in zip(changes, ends, strict=True):
        yield start_s, end_s, value


def _round_step(step: float) -> float:
    """Return the next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _path(across: Iterable[float], up: Iterable[float]) -> Iterator[str]:
    """Yield the commands of a line, which is broken where a value is not finite."""
    command = "M"
    for x, y in zip(across, up, strict=True):
        if math.isfinite(y):
            yield f"{command}{x:.1f} {y:.1f}"
            command = "L"
        else:
            command = "M"
