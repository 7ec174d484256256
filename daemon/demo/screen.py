"""Demo: the live screen: two rigs side by side in 80 columns and 24 rows, drawn with rich.

Pure: rig states in, a renderable out; `daemon.demo.main` decides where and how often it is shown.
"""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.box import ROUNDED
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.demo.state import Verdict, clock, odour_text, score
from hardware.channels import CHANNEL_NAMES, CHANNELS, Part
from hardware.counting import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from daemon.demo.state import NamingResult, RigState

ROWS, WIDTH = 24, 80
"""The smallest terminal that shows everything."""

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR, _EMPTY_BAR = "━", "─"
_ROWS_OUTSIDE_PANELS = 6
_ROWS_BESIDE_CHANNELS = 12
"""Rows of a panel that are not sparklines: borders, headings, bars."""

_BARS = 4
_HEAD_WIDTH = 13
_NAME_WIDTH = 15
_VALUE_WIDTH = 6
_LEAST_SHARE = 0.1
_NOISE_SPAN = 6.0
_LEAST_SPANS: dict[str, float] = {
    **{channel.name: 12.0 for channel in CHANNELS if channel.part in (Part.GROVE, Part.MQ)},
    "Temperature": 5.0,
    "Pressure": 10.0,
    "Humidity": 20.0,
    "Altitude": 80.0,
}
"""A sparkline's height is at least this, in the channel's unit (twelve steps of a converter, and
what a room's air varies by in an hour), _LEAST_SHARE of the value, and _NOISE_SPAN mean steps
between neighbours, so that noise and single counts look small."""

_DIM, _HEAD, _ALARM = "bright_black", "bold", "bold red"
_MARKS = {
    Verdict.RIGHT: ("✔", "bold green"),
    Verdict.PARTLY: ("~", "bold yellow"),
    Verdict.WRONG: ("✘", _ALARM),
    Verdict.UNNAMED: ("·", _DIM),
}


def screen(
    rigs: Sequence[RigState], *, width: int, height: int, address: str, page: str, elapsed_s: float
) -> RenderableType:
    """Return the whole screen for a terminal of `width` columns and `height` rows.

    `address` is the broker's, for other subscribers, and `page` that of the web page; `elapsed_s`
    are real seconds since the start.
    """
    tallest = len(CHANNEL_NAMES) + _ROWS_BESIDE_CHANNELS
    panel_height = min(max(height, ROWS) - _ROWS_OUTSIDE_PANELS, tallest)
    inner_width = max(width, WIDTH) // len(rigs) - 4
    panels = Table.grid(expand=True)
    for _ in rigs:
        panels.add_column(ratio=1)
    panels.add_row(*(_panel(rig, panel_height, inner_width) for rig in rigs))
    return Group(
        _line(
            ("scentd demo ", _HEAD),
            (f"simulated rigs, taught on other days; MQTT at {address}", _DIM),
            (f"  {clock(elapsed_s)}", _HEAD),
        ),
        panels,
        *(_score_line(rig, max(width, WIDTH)) for rig in rigs),
        _line((" · ".join(_counters(rigs)), _DIM)),
        _line(
            ("Open ", _DIM), (page, _HEAD), (" to see and teach it. Ctrl-C ends the demo.", _DIM)
        ),
    )


def _panel(rig: RigState, height: int, width: int) -> Panel:
    setup = rig.setup
    channels = min(len(CHANNEL_NAMES), height - _ROWS_BESIDE_CHANNELS)
    return Panel(
        Group(
            *_played_and_announced(rig, width),
            *(_channel(rig, name, width) for name in CHANNEL_NAMES[:channels]),
            Text(),
            *_bars(rig, width),
        ),
        title=Text(setup.question, style=_HEAD),
        subtitle=Text(f"{setup.rate_hz:g} Hz board, sped up {setup.speed:g} times", style=_DIM),
        box=ROUNDED,
        height=height,
    )


def _played_and_announced(rig: RigState, width: int) -> list[Text]:
    """Return five rows: what is played, and what the service says about it."""
    episode, result = rig.episode, rig.present_result
    mark, style = "", "cyan"
    if result is not None and (rig.names or result.unrecognised):
        mark, style = _MARKS[result.verdict]
    since = f"for {clock(rig.board_s - episode.start_s)} (board's time)"
    played = odour_text(episode.odour) + ("" if episode.taught else ", never taught")
    return [
        *_rows("in the air", played, _HEAD, width, below=since),
        *_rows("scentd says", f"{mark} {rig.announcement}".lstrip(), style, width, rows=3),
    ]


def _rows(
    head: str, text: str, style: str, width: int, *, rows: int = 2, below: str = ""
) -> list[Text]:
    """Return `rows` rows of a text, broken between words; `below` stands in a free second row."""
    wrapped = textwrap.wrap(text, width - _HEAD_WIDTH, max_lines=rows, placeholder=" …")
    styled = [(row, style) for row in wrapped]
    styled += [(below, _DIM), *[("", _DIM)] * rows][: rows - len(styled)]
    heads = [head, *[""] * (rows - 1)]
    return [
        _line((f"{one:<{_HEAD_WIDTH}}", _DIM), row) for one, row in zip(heads, styled, strict=True)
    ]


def _channel(rig: RigState, name: str, width: int) -> Text:
    name_width = max(map(len, CHANNEL_NAMES)) + 1
    values = rig.history(name, width - name_width - _VALUE_WIDTH - 1)
    newest = values[-1] if values else None
    return _line(
        (f"{name:<{name_width}}", _DIM),
        (f"{'-' if newest is None else format(newest, '.4g'):>{_VALUE_WIDTH}} ", ""),
        (sparkline(values, _LEAST_SPANS.get(name, 0.0)), "blue"),
    )


def sparkline(values: Sequence[float | None], least_span: float = 0.0) -> str:
    """Return one character per value, between the smallest and the largest of them.

    Less than `least_span`, in the unit of the values, does not fill the height.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = [abs(after - before) for before, after in pairwise(known)]
    noise = sum(steps) / len(steps) if steps else 0.0
    span = max(high - low, least_span, _NOISE_SPAN * noise, _LEAST_SHARE * max(abs(high), 1.0))
    top = len(_LEVELS) - 1
    return "".join(
        " " if value is None else _LEVELS[round(top * (value - low) / span)] for value in values
    )


def _bars(rig: RigState, width: int) -> list[Text]:
    if rig.reason is not None:
        return [Text(rig.reason, style=_ALARM)]
    if not rig.bars:
        hint = (
            f"A name takes {rig.setup.named_after}, board's time, after an odour begins: "
            f"{rig.setup.speed:g} times less here."
        )
        return [_line((row, _DIM)) for row in textwrap.wrap(hint, width)]
    played = rig.episode.odour
    room = width - _NAME_WIDTH - 6
    lines = []
    for label, share in rig.bars[:_BARS]:
        filled = round(room * share)
        lines.append(
            _line(
                (f"{odour_text((label,))[:_NAME_WIDTH]:<{_NAME_WIDTH}} ", ""),
                (_BAR * filled, "green" if label in played else "yellow"),
                (_EMPTY_BAR * (room - filled), _DIM),
                (f"{share:5.0%}", ""),
            )
        )
    return lines


def _score_line(rig: RigState, width: int) -> Text:
    """Return the rig's score and its odours, the newest first, as many as fit."""
    results = [result for result in rig.results if result.finished]
    parts = [
        (f"{rig.setup.rig_id:<11}", _DIM),
        (f"{score(results)}  " if results else "no odour has passed yet", ""),
    ]
    for result in reversed(results):
        parts.append(_result(result))
        if sum(len(text) for text, _ in parts) > width:
            parts.pop()
            break
    return _line(*parts)


def _result(result: NamingResult) -> tuple[str, str]:
    mark, style = _MARKS[result.verdict]
    confused = result.verdict in {Verdict.PARTLY, Verdict.WRONG}
    instead = f" ({odour_text(result.names)}?)" if confused else ""
    unknown = "" if result.taught else " (never taught)"
    return f"{mark} {odour_text(result.odour)}{unknown}{instead}  ", style


def _counters(rigs: Sequence[RigState]) -> list[str]:
    health = [rig.health for rig in rigs if rig.health]
    inference_ms = [
        times["p50"]
        for item in health
        for times in item["inference_ms"].values()
        if times["p50"] is not None
    ]
    parts = [
        counted(sum(rig.readings for rig in rigs), "reading"),
        f"{sum(item['frames_lost'] for item in health)} lost",
        counted(sum(rig.messages for rig in rigs), "message"),
    ]
    parts += [f"inference {max(inference_ms):.1f} ms"] if inference_ms else []
    parts += [f"{max(item['rss_mb'] for item in health):.0f} MB a service"] if health else []
    return parts


def _line(*parts: tuple[str, str]) -> Text:
    """Return one row of styled texts, cut off where the terminal ends."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style=style)
    return line
