"""A mapping file says what the columns of a foreign file mean; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware.channels import channel_index
from hardware.foreign.mapping import (
    MappingError,
    read_mapping,
    shipped_format,
    shipped_formats,
)
from hardware.units import mapping_scale


def mapping_file(folder: Path, text: str) -> Path:
    path = folder / "map.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_format_can_be_read() -> None:
    assert {"fruits5", "ai-nose", "sidharth"} <= set(shipped_formats())
    for name in shipped_formats():
        form = shipped_format(name)
        assert form.description
        assert form.channels


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(MappingError, match=r"fruits5.*--map"):
        shipped_format("fruits6")


@pytest.mark.parametrize(
    ("channel", "unit", "value", "expected"),
    [
        ("NO2", "as sent", 512.0, 512.0),
        ("NO2", "volt of 3.3", 3.3, 1023.0),
        ("NO2", "volt of 5", 2.5, 511.5),
        ("NO2", "count / 1000", 0.25, 250.0),
        ("Gas_Resistance", "ohm", 189_231.0, 189.231),
        ("Pressure", "kPa", 101.3, 1013.0),
        ("Pressure", "Pa", 101_300.0, 1013.0),
        ("Temperature", "\u00b0F", 77.0, 25.0),
    ],
)
def test_units_become_those_of_the_channel_table(
    channel: str, unit: str, value: float, expected: float
) -> None:
    scale = mapping_scale(channel_index(channel), unit)
    assert scale is not None
    assert scale.apply(value) == pytest.approx(expected)


def test_label_and_session_come_from_the_file_name() -> None:
    form = shipped_format("fruits5")
    path = Path("rigs/fruits5/bo_20250516_231241.json")
    assert form.label_and_session(path) == ("blood_orange", "20250516")


def test_without_a_name_the_folder_is_the_label(tmp_path: Path) -> None:
    text = "description: x\ninterval_ms: 1000\nchannels: {NO2: {column: a}}\n"
    form = read_mapping(mapping_file(tmp_path, text))
    assert form.label_and_session(Path("data/mint/1.csv")) == ("mint", None)


def test_a_file_name_that_does_not_match_is_refused() -> None:
    with pytest.raises(MappingError, match="does not match"):
        shipped_format("fruits5").label_and_session(Path("notes.json"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("channels: {NO3: {column: a}}\ninterval_ms: 1000", "NO3 is no channel"),
        ("channels: {}\ninterval_ms: 1000", "names no column"),
        ("channels: {NO2: {column: a}}", "exactly one of time"),
        ("channels: {NO2: {column: a}}\ntime: t\ninterval_ms: 5", "exactly one of time"),
        ("channels: {NO2: {column: a, unit: furlong}}\ninterval_ms: 5", "unit must be one of"),
        ("channels: {NO2: {column: a}}\ninterval_ms: 5\nname: '(.*)'", "group"),
        (
            "channels: {NO2: {column: a}}\ninterval_ms: 5\nname: '(?P<label>'",
            "no regular expression",
        ),
        ("channels: {NO2: {column: a}}\ninterval_ms: 0", "above 0"),
        ("channels: {NO2: {column: a, unit: ppm}}\ninterval_ms: 5", "a unit of NO2"),
        ("kind: tape\nchannels: {NO2: a}\ninterval_ms: 5", "kind must be"),
        ("channels: {NO2: {column: a}}\ninterval_ms: 5\nlables: {}", "labels"),
    ],
)
def test_a_mapping_that_cannot_be_used_says_why(tmp_path: Path, text: str, problem: str) -> None:
    path = mapping_file(tmp_path, f"description: x\n{text}\n")
    with pytest.raises(MappingError, match=problem) as raised:
        read_mapping(path)
    assert str(path) in str(raised.value)


def test_a_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="cannot be read"):
        read_mapping(tmp_path / "none.yaml")
