"""Ground floor: the text of one cell of a table, as a number.

May import the parsing of numbers and the units' spelling. Pure. Written for the exceptions: a row
of plain numbers never comes here.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from enum import Enum

from hardware.readings import parse_number
from hardware.units import normalised

MISSING = frozenset(
    [
        *("", "-", "--", "---", ".", "?", "na", "n/a", "n.a.", "<na>", "#n/a", "null", "#null!"),
        *("nil", "none", "nan", "nat", "missing", "undefined", "\\n", "#div/0!", "#value!"),
        *("#ref!", "#num!", "#name?", "inf/nan"),
    ]
)
"""What spreadsheets, databases and programs write where there is no value, in lower case."""

_NUMBER_AND_UNIT = re.compile(
    r"([+-]?(?:[0-9][0-9.,']*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([^0-9\s].*)?"
)
_GROUPED_BY_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?")
_GROUPED_BY_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+(,[0-9]+)?")
_GROUPED_BY_BLANK = re.compile("(?<=[0-9])[\u00a0\u202f\u2009](?=[0-9]{3}(?![0-9]))")
"""A plain blank between digits may be two numbers; these are written between thousands only."""
_GROUPED_BY_APOSTROPHE = re.compile(r"[+-]?[1-9][0-9]{0,2}('[0-9]{3})+([.,][0-9]+)?")
_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?([0-9]+,[0-9]*|,[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, NaN where it is missing, and the text behind it, which may be its unit."""

    number: float
    unit: str = ""


class Comma(Enum):
    """What a comma inside a number means in a table."""

    UNKNOWN = "unknown"
    """Commas separate the fields: a quoted "1,022" may be 1.022 or 1022, and is no number."""
    LIKELY = "likely"
    """Another character separates the fields, so that commas are free to mark decimals."""
    DECIMAL = "decimal"
    """A cell such as "25,5" proved it; "1.022" is 1022 then."""
    THOUSANDS = "thousands"
    """A cell such as "1,022.84" proved it."""


def parse_cell(field: bytes, comma: Comma) -> Cell | None:
    """Return a cell's number, None where it holds none.

    Parameters
    ----------
    field: UTF-8, or Latin-1 where it is no UTF-8; quotes around it are ignored.
    comma: what commas mean in this table.
    """
    text = cell_text(field)
    if text.casefold() in MISSING:
        return Cell(math.nan)
    if "_" in text:
        return None  # Python reads '1_000', which only a damaged line contains
    grouped = comma is Comma.DECIMAL and _GROUPED_BY_POINT.fullmatch(text)
    if text.isascii() and not grouped and (plain := parse_number(text.encode())) is not None:
        return Cell(plain)
    match = _NUMBER_AND_UNIT.fullmatch(text)
    number = None if match is None else _number(match[1], comma)
    return None if match is None or number is None else Cell(number, (match[2] or "").strip())


def cell_text(field: bytes) -> str:
    """Return a cell's text without quotes, invisible characters and typographic minus signs."""
    try:
        text = field.decode()
    except UnicodeDecodeError:
        text = field.decode("latin-1")
    if not text.isascii():
        text = _GROUPED_BY_BLANK.sub("", text).replace("\u2212", "-").replace("\u2019", "'")
    return normalised(text).strip('"').strip().lstrip("'")


def _number(text: str, comma: Comma) -> float | None:
    plain = _in_plain_decimals(text, comma)
    return None if plain is None or _PLAIN.fullmatch(plain) is None else float(plain)


def _in_plain_decimals(text: str, comma: Comma) -> str | None:
    """Return a number without grouping, its decimals behind a point; None where it is ambiguous."""
    if _GROUPED_BY_APOSTROPHE.fullmatch(text):
        return text.replace("'", "").replace(",", ".")
    if _GROUPED_BY_POINT.fullmatch(text) and (comma is Comma.DECIMAL or not _PLAIN.fullmatch(text)):
        return text.replace(".", "").replace(",", ".")
    if not _GROUPED_BY_COMMA.fullmatch(text):
        return text if "." in text else text.replace(",", ".", 1)
    lone = text.count(",") == 1 and "." not in text
    if lone and comma is Comma.UNKNOWN:
        return None
    decimal = lone and comma in {Comma.LIKELY, Comma.DECIMAL}
    return text.replace(",", "." if decimal else "")


def proved_comma(field: bytes) -> Comma | None:
    """Return what a cell proves of commas in its table, None where it proves nothing."""
    match = _NUMBER_AND_UNIT.fullmatch(cell_text(field))
    if match is None or "," not in match[1]:
        return None
    number = match[1]
    if _GROUPED_BY_COMMA.fullmatch(number):
        grouped = "." in number or number.count(",") > 1
        return Comma.THOUSANDS if grouped else None
    decimal = _DECIMAL_COMMA.fullmatch(number) or _GROUPED_BY_POINT.fullmatch(number)
    return Comma.DECIMAL if decimal else None


def split_fields(line: bytes, delimiter: bytes) -> list[bytes]:
    """Return the fields of a line; a delimiter between quotes does not separate."""
    if delimiter == b" ":
        return line.split()
    if line.count(b'"') % 2 or b'"' not in line:
        return line.split(delimiter)  # a lone quotation mark is a character like any other
    text = line.decode("latin-1")  # every byte is one character and stays itself
    try:
        rows = list(csv.reader([text], delimiter=delimiter.decode(), skipinitialspace=True))
    except csv.Error:  # a bare carriage return or NUL: not a row
        return line.split(delimiter)
    return [field.encode("latin-1") for field in rows[0]] if rows else []
