"""Demo: the live screen: two rigs side by side in 80 columns and 24 rows, drawn with rich.

Pure: a story in, a renderable out. The only module that knows rich's tables; which terminal
it goes to, and how often, is for `daemon.demo.performance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import ROUNDED
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.demo.words import clock, in_the_air, judged, named, opinion, score_line
from hardware.channels import CHANNEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from daemon.demo.story import RigStory, Verdict

ROWS, WIDTH = 24, 80
"""The smallest terminal that shows everything."""

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR, _NO_BAR = "━", "─"
_ROWS_OUTSIDE_PANELS = 6
_ROWS_BESIDE_CHANNELS = 12
"""Rows of a panel that are not sparklines: borders, headings, bars."""

_BARS = 5
_NAME_WIDTH = 14
_LEAST_SPAN = 0.04
"""A channel that moved by less, as a share of its reading, is drawn nearly flat: it is noise."""

_RIGHT, _WRONG, _DIM, _HEAD = "bold green", "bold red", "bright_black", "bold"
_MARKS = {"right": ("✔", _RIGHT), "wrong": ("✘", _WRONG), "no name": ("·", _DIM)}


def screen(
    stories: Sequence[RigStory], *, width: int, height: int, place: str, elapsed_s: float
) -> RenderableType:
    """Return the whole screen.

    Parameters
    ----------
    stories: one per rig.
    width, height: of the terminal.
    place: where the broker is, for people who want to listen too.
    elapsed_s: real seconds since the demo began.
    """
    panel_height = max(height, ROWS) - _ROWS_OUTSIDE_PANELS
    inner_width = max(width, WIDTH) // len(stories) - 4
    panels = Table.grid(expand=True)
    for _ in stories:
        panels.add_column(ratio=1)
    panels.add_row(*(_rig(story, panel_height, inner_width) for story in stories))
    return Group(
        _title(place, elapsed_s),
        panels,
        *(_score(story, max(width, WIDTH)) for story in stories),
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


def _rig(story: RigStory, height: int, width: int) -> Panel:
    rig = story.programme.rig
    channels = min(len(CHANNEL_NAMES), height - _ROWS_BESIDE_CHANNELS)
    rows = [
        *_played_and_said(story),
        Text(),
        *_sparklines(story, channels, width),
        Text(),
        *_bars(story, width),
    ]
    return Panel(
        Group(*rows),
        title=Text(rig.question, style=_HEAD),
        subtitle=Text(f"{rig.rate_hz:g} Hz board, {rig.speed:g} times as fast", style=_DIM),
        box=ROUNDED,
        height=height,
    )


def _played_and_said(story: RigStory) -> list[Text]:
    act = story.act
    lasts = clock(story.board_s - act.start_s)
    verdict = next((item for item in reversed(story.verdicts) if not item.over), None)
    mark, style = ("", "")
    if story.said and act.odour and verdict is not None:
        mark, style = _MARKS[judged(verdict)]
    return [
        _line(("in the air   ", _DIM), (in_the_air(act.odour), _HEAD), (f"  {lasts}", _DIM)),
        _line(("scentd says  ", _DIM), (opinion(story), style or "cyan"), (f"  {mark}", style)),
    ]


def _sparklines(story: RigStory, count: int, width: int) -> list[Text]:
    lines = []
    for name in CHANNEL_NAMES[:count]:
        values = story.history(name, width - _NAME_WIDTH - 7)
        newest = values[-1] if values else None
        lines.append(
            _line(
                (f"{name[:_NAME_WIDTH]:<{_NAME_WIDTH}}", _DIM),
                (f"{'-' if newest is None else format(newest, '.4g'):>6} ", ""),
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
    # Noise must not fill the height: a still channel is a low, flat line.
    span = max(high - low, _LEAST_SPAN * max(abs(high), 1.0))
    top = len(_LEVELS) - 1
    return "".join(
        " " if value is None else _LEVELS[round(top * (value - low) / span)] for value in values
    )


def _bars(story: RigStory, width: int) -> list[Text]:
    if story.reason is not None:
        return [Text(story.reason, style=_WRONG)]
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


def _score(story: RigStory, width: int) -> Text:
    """Say what became of the rig's odours, the newest first as far as there is room."""
    verdicts = [verdict for verdict in story.verdicts if verdict.over]
    line = _line((f"{score_line(verdicts)}: " if verdicts else "no odour has passed yet", ""))
    for verdict in reversed(verdicts):
        if len(line) + len(_told(verdict)) > width:
            break
        line.append(_told(verdict), style=_MARKS[judged(verdict)][1])
    return line


def _told(verdict: Verdict) -> str:
    word = judged(verdict)
    mark = _MARKS[word][0]
    instead = f", not {named(verdict.said)}" if word == "wrong" else ""
    return f"{mark} {named(verdict.played)}{instead}  "


def _counters(stories: Iterable[RigStory]) -> Text:
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
        f"{sum(sum(item['frames_bad'].values()) for item in health)} bad lines",
        f"{sum(story.heard for story in stories)} MQTT messages",
    ]
    parts += [f"inference {max(inference):.1f} ms"] if inference else []
    parts += [f"memory {'+'.join(format(item['rss_mb'], '.0f') for item in health)} MB"] * bool(
        health
    )
    return Text(" · ".join(parts), style=_DIM, no_wrap=True, overflow="ellipsis")


def _line(*parts: tuple[str, str]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style=style)
    return line
