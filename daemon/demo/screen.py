"""Demo: the live screen: two rigs side by side in 80 columns and 24 rows, drawn with rich.

Pure: a story in, a renderable out. The only module that knows rich's tables; which terminal
it goes to, and how often, is for `daemon.demo.main`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.box import ROUNDED
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.demo.wording import (
    PARTLY,
    RIGHT,
    UNNAMED,
    WRONG,
    clock,
    in_the_air,
    judged,
    named,
    opinion,
    score_line,
)
from hardware.channels import CHANNEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from daemon.demo.state import NamingResult, RigState

ROWS, WIDTH = 24, 80
"""The smallest terminal that shows everything."""

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR, _NO_BAR = "━", "─"
_ROWS_OUTSIDE_PANELS = 6
_ROWS_BESIDE_CHANNELS = 12
"""Rows of a panel that are not sparklines: borders, headings, bars."""

_BARS = 5
_NAME_WIDTH = 15
_VALUE_WIDTH = 6
_LEAST_SPAN = 0.02
_NOISE_SPAN = 6.0
"""The height of a sparkline is at least this share of the reading, and so many times the mean
step between neighbours: what only trembles, or flips between two counts, stays low."""

_DIM, _HEAD, _ALARM = "bright_black", "bold", "bold red"
_MARKS = {
    RIGHT: ("✔", "bold green"),
    PARTLY: ("~", "bold yellow"),
    WRONG: ("✘", _ALARM),
    UNNAMED: ("·", _DIM),
}


def screen(
    stories: Sequence[RigState], *, width: int, height: int, place: str, elapsed_s: float
) -> RenderableType:
    """Return the whole screen.

    Parameters
    ----------
    stories: one per rig.
    width, height: of the terminal.
    place: where the broker is, for people who want to listen too.
    elapsed_s: real seconds since the demo began.
    """
    tallest = len(CHANNEL_NAMES) + _ROWS_BESIDE_CHANNELS
    panel_height = min(max(height, ROWS) - _ROWS_OUTSIDE_PANELS, tallest)
    inner_width = max(width, WIDTH) // len(stories) - 4
    panels = Table.grid(expand=True)
    for _ in stories:
        panels.add_column(ratio=1)
    panels.add_row(*(_rig(story, panel_height, inner_width) for story in stories))
    return Group(
        _title(place, elapsed_s),
        panels,
        *(_score(story) for story in stories),
        _counters(stories),
        Text("Ctrl-C ends the demo.", style=_DIM),
    )


def _title(place: str, elapsed_s: float) -> Text:
    return Text.assemble(
        ("scentd demo ", _HEAD),
        (f"simulated boards, real services, MQTT at {place}", _DIM),
        (f"  {clock(elapsed_s)}", _HEAD),
        no_wrap=True,
        overflow="ellipsis",
    )


def _rig(story: RigState, height: int, width: int) -> Panel:
    rig = story.programme.rig
    channels = min(len(CHANNEL_NAMES), height - _ROWS_BESIDE_CHANNELS)
    rows = [
        *_played_and_said(story),
        *_sparklines(story, channels, width),
        Text(),
        *_bars(story, width),
    ]
    return Panel(
        Group(*rows),
        title=Text(rig.question, style=_HEAD),
        subtitle=Text(f"{rig.rate_hz:g} Hz board, sped up {rig.speed:g} times", style=_DIM),
        box=ROUNDED,
        height=height,
    )


def _played_and_said(story: RigState) -> list[Text]:
    act = story.act
    lasts = clock(story.board_s - act.start_s)
    verdict = next((item for item in reversed(story.verdicts) if not item.over), None)
    mark, style = "", ""
    if story.said and act.odour and verdict is not None:
        sign, style = _MARKS[judged(verdict)]
        mark = f"{sign} "
    return [
        _line(("in the air   ", _DIM), (in_the_air(act.odour), _HEAD)),
        _line((f"             for {lasts} (board's time)", _DIM)),
        _line(("scentd says  ", _DIM), (mark, style), (opinion(story), style or "cyan")),
    ]


def _sparklines(story: RigState, count: int, width: int) -> list[Text]:
    lines = []
    names = CHANNEL_NAMES[:count]
    name_width = max(map(len, names)) + 1
    for name in names:
        values = story.history(name, width - name_width - _VALUE_WIDTH - 1)
        newest = values[-1] if values else None
        lines.append(
            _line(
                (f"{name:<{name_width}}", _DIM),
                (f"{'-' if newest is None else format(newest, '.4g'):>{_VALUE_WIDTH}} ", ""),
                (sparkline(values), "blue"),
            )
        )
    return lines


def sparkline(values: Sequence[float | None]) -> str:
    """Return one character per value, between the smallest and the largest of them."""
    there = [value for value in values if value is not None]
    if not there:
        return ""
    low, high = min(there), max(there)
    steps = [abs(after - before) for before, after in pairwise(there)]
    trembling = sum(steps) / len(steps) if steps else 0.0
    span = max(high - low, _NOISE_SPAN * trembling, _LEAST_SPAN * max(abs(high), 1.0))
    top = len(_LEVELS) - 1
    return "".join(
        " " if value is None else _LEVELS[round(top * (value - low) / span)] for value in values
    )


def _bars(story: RigState, width: int) -> list[Text]:
    if story.reason is not None:
        return [Text(story.reason, style=_ALARM)]
    played = story.act.odour
    room = width - _NAME_WIDTH - 6
    lines = []
    for label, share in story.bars[:_BARS]:
        filled = round(room * share)
        lines.append(
            _line(
                (f"{named((label,))[:_NAME_WIDTH]:<{_NAME_WIDTH}} ", ""),
                (_BAR * filled, "green" if label in played else "yellow"),
                (_NO_BAR * (room - filled), _DIM),
                (f"{share:5.0%}", ""),
            )
        )
    return lines


def _score(story: RigState) -> Text:
    """Say what became of the rig's odours, the newest first as far as there is room."""
    verdicts = [verdict for verdict in story.verdicts if verdict.over]
    line = _line((f"{story.programme.rig.rig_id:<11}", _DIM), (f"{score_line(verdicts)}  ", ""))
    for verdict in reversed(verdicts):
        line.append(_told(verdict), style=_MARKS[judged(verdict)][1])
    return line


def _told(verdict: NamingResult) -> str:
    word = judged(verdict)
    mark = _MARKS[word][0]
    instead = f" ({named(verdict.said)}?)" if word in {PARTLY, WRONG} else ""
    return f"{mark} {named(verdict.played)}{instead}  "


def _counters(stories: Iterable[RigState]) -> Text:
    health = [story.health for story in stories if story.health]
    inference = [
        times["p50"]
        for item in health
        for times in item["inference_ms"].values()
        if times["p50"] is not None
    ]
    parts = [
        f"{sum(story.readings for story in stories)} readings",
        f"{sum(item['frames_lost'] for item in health)} lost",
        f"{sum(story.heard for story in stories)} messages",
    ]
    parts += [f"inference {max(inference):.1f} ms"] if inference else []
    parts += [f"{max(item['rss_mb'] for item in health):.0f} MB a service"] if health else []
    return Text(" · ".join(parts), style=_DIM, no_wrap=True, overflow="ellipsis")


def _line(*parts: tuple[str, str]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style=style)
    return line
