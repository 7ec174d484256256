"""training/: the report as one page that needs nothing else: no script, no font, no network.

Knows the findings and how to say them; loads nothing and computes nothing. Every text that
comes from data is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --ink: #1d2126; --muted: #6b737c;
  --line: #d9dde1; --first: #1f6fb2; --second: #c8690a; --third: #2f8a4c; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --ink: #e6e8ea; --muted: #98a1aa; --line: #343a41;
    --first: #62aee8; --second: #f0a04b; --third: #6cc489; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 1rem 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 44rem; }
.muted, caption, figcaption { color: var(--muted); font-size: .88rem; }
.wide { overflow-x: auto; }
.wide > svg { min-width: 44rem; }
figure { margin: .6rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); }
td.number { text-align: right; white-space: nowrap; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence on what is shown, and the thing itself as HTML."""

    title: str
    text: str
    body: str


def page(title: str, lead: str, sections: Iterable[Section]) -> str:
    """Return the whole page."""
    parts = [
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>"
        f"{section.body}</section>"
        for section in sections
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="muted">{escape(lead)}</p>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers stand right, None stays empty."""
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        f'<div class="wide"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """Return a plot with its caption; a wide one scrolls sideways on a small screen."""
    holder = f'<div class="wide">{svg}</div>' if wide else svg
    return f"<figure>{holder}<figcaption>{escape(caption)}</figcaption></figure>"


def span(interval: Sequence[float] | None) -> str:
    """Say an interval, unbroken."""
    if interval is None:
        return ""
    return "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}".join(map(_number, interval))


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a table of a report's rows, of those columns that any row has.

    Parameters
    ----------
    rows: mappings; what they hold beyond `columns` is left out.
    columns: heading by key, in order; a key "a|b" shows the interval from a to b.
    """
    there = {
        key: heading
        for key, heading in columns.items()
        if any(row.get(key.split("|")[0]) is not None for row in rows)
    }
    return table(list(there.values()), [[_value(row, key) for key in there] for row in rows])


def _value(row: Mapping[str, Any], key: str) -> object:
    names = key.split("|")
    found = [row.get(name) for name in names]
    if len(names) == 1:
        return found[0]
    low, high = found
    return "" if low is None or high is None else span((float(low), float(high)))


def _number(value: float) -> str:
    """Say a share with three digits, and seconds with one."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"  # noqa: PLR2004 - digits shown


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, float):
        return f'<td class="number">{_number(value)}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return f"<td>{escape(str(value))}</td>"
