"""training/: a report as one page that needs no other file: no script, no font, no network.

Computes nothing. Every text that comes from data is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    """A heading, a sentence on the contents, and the contents as HTML."""

    title: str
    text: str
    body: str


def html_page(title: str, lead: str, sections: Iterable[Section]) -> str:
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


def html_table(rows: Iterable[Mapping[str, Any]], columns: str) -> str:
    """Return a table of rows; numbers stand right, None stays empty.

    Parameters
    ----------
    rows: mappings; entries other than those of `columns` are left out.
    columns: "key=heading, key=heading", in order; without a heading it is the key, with spaces.
        A key "a.b" takes entry b of the mapping in entry a, and "a|b" the interval from a to b.
        A column that no row has is left out.
    """
    listed = list(rows)
    head, cells = [], []
    for column in columns.split(", "):
        key, _, heading = column.partition("=")
        values = [_entry(row, key) for row in listed]
        if any(value is not None for value in values):
            head.append(f"<th>{escape(heading or key.replace('_', ' '))}</th>")
            cells.append(map(_cell, values))
    lines = "".join(f"<tr>{''.join(line)}</tr>" for line in zip(*cells, strict=True))
    return (
        f'<div class="wide"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def html_figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """Return a plot with its caption; a wide one scrolls sideways on a small screen."""
    holder = f'<div class="wide">{svg}</div>' if wide else svg
    return f"<figure>{holder}<figcaption>{escape(caption)}</figcaption></figure>"


def interval_text(interval: Sequence[float]) -> str:
    """Return an interval in words, without a line break."""
    return "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}".join(map(_number, interval))


def nested_rows(nested: Mapping[str, Any], *names: str) -> Iterator[dict[str, Any]]:
    """Yield the innermost mappings of nested ones, with the keys that lead to each, in words.

    {"a": {"b": row}} with the names "x" and "y" gives {"x": "a", "y": "b", **row}.
    """
    for key, value in nested.items():
        inner = nested_rows(value, *names[1:]) if len(names) > 1 else [value]
        for row in inner:
            yield {names[0]: key.replace("_", " "), **row}


def score_rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield name, value and interval of each score of a mapping with `scores` and `intervals`."""
    for name, value in report["scores"].items():
        yield {"score": name, "value": value, "interval": report["intervals"].get(name)}


def descriptor_section(title: str, text: str, report: Mapping[str, Any]) -> Section:
    """Return the AUROC of the odour descriptors, the best first."""
    rows = [{"name": "all, mean", "auroc": report["macro_auroc"], "interval": report["interval"]}]
    ranked = sorted(report["auroc"].items(), key=lambda pair: -pair[1])
    rows += [{"name": name, "auroc": value} for name, value in ranked]
    return Section(title, text, html_table(rows, "name=descriptor, auroc=AUROC, interval=95 %"))


def _entry(row: Mapping[str, Any], key: str) -> Any:
    if "|" in key:
        ends = [row.get(name) for name in key.split("|")]
        return None if None in ends else ends
    found: Any = row
    for name in key.split("."):
        found = (found or {}).get(name)
    return found


def _number(value: float) -> str:
    """Return a share with three digits, and seconds with one."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"  # noqa: PLR2004 - digits shown


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, float):
        return f'<td class="number">{_number(value)}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, list | tuple):
        interval = len(value) == 2 and all(isinstance(end, float) for end in value)  # noqa: PLR2004
        value = interval_text(value) if interval else ", ".join(map(str, value))
    return f"<td>{escape(str(value))}</td>"
