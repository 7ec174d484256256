"""Cells of tables: numbers in every spelling, missing values, and units behind them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.cells import Cell, Comma, parse_cell, proved_comma, split_fields


@pytest.mark.parametrize(
    "text",
    ["", " ", "NA", "n/a", "NULL", "None", "-", "nan", "#DIV/0!", "#N/A", '""', "<NA>", "\\N", "?"],
)
def test_words_for_no_value_are_missing(text: str) -> None:
    cell = parse_cell(text.encode(), Comma.UNKNOWN)
    assert cell is not None
    assert math.isnan(cell.number)


@pytest.mark.parametrize(
    ("text", "comma", "number", "unit"),
    [
        ("25.5", Comma.UNKNOWN, 25.5, ""),
        ('"25.5"', Comma.UNKNOWN, 25.5, ""),
        ("'216", Comma.UNKNOWN, 216, ""),
        ("\u22123.5", Comma.UNKNOWN, -3.5, ""),
        ("25,53", Comma.UNKNOWN, 25.53, ""),
        ("1,022.84", Comma.UNKNOWN, 1022.84, ""),
        ("1.022,84", Comma.LIKELY, 1022.84, ""),
        ("1,022", Comma.LIKELY, 1.022, ""),
        ("1,022", Comma.DECIMAL, 1.022, ""),
        ("1,022", Comma.THOUSANDS, 1022, ""),
        ("1.022", Comma.DECIMAL, 1022, ""),
        ("1.022", Comma.LIKELY, 1.022, ""),
        ("0.100", Comma.DECIMAL, 0.1, ""),
        ("1,022,840", Comma.UNKNOWN, 1022840, ""),
        ("25.5 C", Comma.UNKNOWN, 25.5, "C"),
        ("3.3V", Comma.UNKNOWN, 3.3, "V"),
        ("25,5 \u00b0C", Comma.LIKELY, 25.5, "\u00b0C"),
        ("1\u202f022,84", Comma.LIKELY, 1022.84, ""),
        ("1'022.84", Comma.UNKNOWN, 1022.84, ""),
        ("2.5e-3", Comma.UNKNOWN, 0.0025, ""),
    ],
)
def test_numbers_are_read_in_the_spelling_of_their_table(
    text: str, comma: Comma, number: float, unit: str
) -> None:
    assert parse_cell(text.encode(), comma) == Cell(number, unit)


@pytest.mark.parametrize("text", ["1,022", "1_0", "1 2", "--1", "many", "1.2.3", "1,2,3", "\u0663"])
def test_what_is_no_number_or_ambiguous_is_none(text: str) -> None:
    assert parse_cell(text.encode(), Comma.UNKNOWN) is None


def test_a_cell_proves_what_commas_mean() -> None:
    assert proved_comma(b"25,5") is Comma.DECIMAL
    assert proved_comma(b"1.022,84") is Comma.DECIMAL
    assert proved_comma(b"1,022.84") is Comma.THOUSANDS
    assert proved_comma(b"1,022") is None
    assert proved_comma(b"25.5") is None


def test_a_delimiter_between_quotes_does_not_separate() -> None:
    assert split_fields(b'1,"blood orange, ripe",3', b",") == [b"1", b"blood orange, ripe", b"3"]
    assert split_fields(b"caf\xe9;2", b";") == [b"caf\xe9", b"2"]


@given(st.integers(-(10**9), 10**9), st.integers(0, 999))
def test_every_decimal_is_read_alike_with_point_comma_and_grouping(whole: int, part: int) -> None:
    number = float(f"{whole}.{part:03d}5")
    grouped = f"{whole:,}"
    for text, comma in (
        (f"{whole}.{part:03d}5", Comma.UNKNOWN),
        (f"{whole},{part:03d}5", Comma.LIKELY),
        (f"{grouped}.{part:03d}5", Comma.THOUSANDS),
        (f"{grouped.replace(',', '.')},{part:03d}5", Comma.DECIMAL),
    ):
        cell = parse_cell(text.encode(), comma)
        assert cell is not None
        assert cell.number == number


@given(st.binary(max_size=40), st.sampled_from(Comma))
def test_any_bytes_are_a_number_or_none(field: bytes, comma: Comma) -> None:
    cell = parse_cell(field, comma)
    assert cell is None or isinstance(cell.number, float)
    proved_comma(field)
    for delimiter in (b",", b";", b"\t", b" "):
        split_fields(field, delimiter)
