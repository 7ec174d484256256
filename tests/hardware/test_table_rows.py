"""Rows under headers: understood or refused with the reason, and damage stays where it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES, channel_index
from hardware.protocol import LineDecoder
from tests.hardware.protocol_lines import GOOD, decode, decode_every_way

HEADER = ",".join(CHANNEL_NAMES)
ROW = ",".join(f"{value:g}" for value in GOOD)
REORDERED = ["Temperature", *(name for name in CHANNEL_NAMES if name != "Temperature")]
REORDERED_ROW = ",".join(f"{GOOD[channel_index(name)]:g}" for name in REORDERED)


def values(data: bytes) -> list[list[float]]:
    frames, _ = decode_every_way(data)
    return [[round(float(value), 2) for value in frame.values] for frame in frames]


@pytest.mark.parametrize(
    "name",
    [
        "Temperature (\u00b0C)".encode("latin-1"),
        "Temperature (\u00b0C)".encode(),
        "Temperature [\u2103]".encode(),
        "Temperature\u00a0".encode(),
        "\ufeffTemperature".encode(),
        "\u200bTemperature".encode(),
        b"temperature_c",
        b'"Temperature"',
        b"# Temperature",
    ],
)
def test_a_header_is_understood_in_every_spelling_above_reordered_columns(name: bytes) -> None:
    header = b",".join([name, *(name.encode() for name in REORDERED[1:])])
    [row] = values(header + b"\n" + REORDERED_ROW.encode() + b"\n")
    assert row == [round(value, 2) for value in GOOD]


@pytest.mark.parametrize(
    ("heading", "cell", "channel", "value"),
    [
        ("Temperature (\u00b0F)", "77", "Temperature", 25.0),
        ("Temperature [K]", "298.15", "Temperature", 25.0),
        ("Pressure (Pa)", "102275", "Pressure", 1022.75),
        ("Pressure/kPa", "102.275", "Pressure", 1022.75),
        ("pressure_mbar", "1022.75", "Pressure", 1022.75),
        ("Gas_Resistance (Ohm)", "69500", "Gas_Resistance", 69.5),
        ("Gas Resistance [M\u03a9]", "0.0695", "Gas_Resistance", 69.5),
        ("Altitude ft", "100", "Altitude", 30.48),
        ("NO2 (raw)", "216", "NO2", 216),
        ("CO (GM-702B)", "830", "CO", 830),
        ("NO\u2082", "216", "NO2", 216),
        ("Temperature", "77 F", "Temperature", 25.0),
        ("Gas_Resistance", "69500 Ohm", "Gas_Resistance", 69.5),
        ("Temperature (C)", "25.5 \u00b0C", "Temperature", 25.5),
    ],
)
def test_a_stated_unit_is_converted(heading: str, cell: str, channel: str, value: float) -> None:
    others = ["VOC", "LPG", "Benzene"]
    frames, _ = decode(f"{','.join([heading, *others])}\n{cell},1,1,1\n".encode())
    assert frames[0].values[channel_index(channel)] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "header",
    [
        "NO2 (ppm),C2H5OH,VOC,CO",
        "NO2,C2H5OH,VOC (index),CO",
        "NO2,C2H5OH,VOC,CO(GT)",
        "CO (MQ-7),NO2,C2H5OH,VOC",
        "NO2,C2H5OH,VOC,Alcohol (V)",
    ],
)
def test_a_gas_in_another_unit_is_refused_with_its_column(header: str) -> None:
    decoder = LineDecoder()
    assert decoder.feed(f"{header}\n1,2,3,4\n".encode()) == []
    assert decoder.problem is not None
    assert "unit" in decoder.problem
    assert decoder.counts.malformed == 1


def test_twelve_columns_of_another_instrument_are_no_readings() -> None:
    for header in (
        ",".join(f"PM{number}" for number in range(12)),
        "Date,Time,PM1,PM25,PM4,PM10,NC05,Humidity,CO2,HCHO,NOx,Pressure",
    ):
        frames, _ = decode_every_way(f"{header}\n{ROW}\n".encode())
        assert frames == []


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,CO2,TVOC,NO2,CO,Temperature,Humidity,Pressure,VOC",
        "time,NO2,CO,O3,VOC",
        "NO2,CO,PM2.5 (\u00b5g/m3),Temperature,Humidity",
    ],
)
def test_the_gases_of_an_air_quality_instrument_are_not_this_boards(header: str) -> None:
    decoder = LineDecoder()
    row = ",".join("5" for _ in header.split(","))
    assert decoder.feed(f"{header}\n{row}\n".encode()) == []
    assert decoder.problem is not None
    assert "another instrument" in decoder.problem


@pytest.mark.parametrize(
    "header",
    [
        '"' + ",".join(["VOC", "NO2", "CO", "C2H5OH", *CHANNEL_NAMES[4:]]),
        ",".join(["VOC", "1", "2", "C2H5OH", *CHANNEL_NAMES[4:]]),
        "VOC," + "x" * 5000 + ",".join(CHANNEL_NAMES),
        ",".join(["V\x00\x01C", "N\xff2", "C\xf0O", "C2H5OH", *CHANNEL_NAMES[4:]]),
    ],
)
def test_a_damaged_header_above_twelve_numbers_is_never_taken_for_none(header: str) -> None:
    frames, _ = decode_every_way(header.encode("latin-1") + f"\n{ROW}\n{ROW}\n".encode())
    # The first four numbers are of other channels than the table's: never read in its order.
    assert not any(frame.values[0] == 216 for frame in frames)


def test_a_row_of_units_below_a_header_is_converted() -> None:
    header, units = "time,NO2,C2H5OH,VOC,CO,Temperature", "s,raw,raw,raw,raw,\u00b0F"
    frames, _ = decode_every_way(f"{header}\n{units}\n0.5,1,2,3,4,77\n".encode())
    assert frames[0].device_ms == 500
    assert frames[0].values[channel_index("Temperature")] == pytest.approx(25.0)


def test_words_of_a_failed_sensor_are_missing_values() -> None:
    row = ROW.replace("-48.33", "error").replace("216", "timeout")
    frames, counts = decode_every_way(
        f"{HEADER}\n{row}\n{','.join(['error'] * 12)}\n{ROW}\n".encode()
    )
    assert len(frames) == 2
    assert frames[0].quality[[0, 11]].tolist() == [1, 1]
    assert counts.headers == 1


def test_twelve_numbers_that_cannot_be_the_tables_are_no_reading() -> None:
    rows = [f"{1_700_000_000 + n},1,2,3,4,5,6,7,8,9,10,11" for n in range(3)]
    frames, counts = decode_every_way("\n".join(rows).encode() + b"\n")
    assert frames == []
    assert counts.malformed == 3


def test_a_first_row_that_lacks_a_field_is_refused_alone() -> None:
    header = b"timestamp_ms,NO2,C2H5OH,VOC,CO,Temperature\n"
    rows = b"".join(b"%d,10,20,30,40,25\n" % (n * 100) for n in range(99))
    frames, counts = decode_every_way(header + b"0,10,20,30,40\n" + rows)
    assert len(frames) == 99
    assert counts.malformed == 1
    assert {frame.values[0] for frame in frames} == {10}
    assert [frame.device_ms for frame in frames] == [n * 100 for n in range(99)]


def test_a_first_row_that_lacks_a_field_below_upstreams_header_is_refused_alone() -> None:
    header = f"timestamp,{HEADER}\n"
    short = f"2025-01-01 12:00:00,{ROW.rpartition(',')[0]}\n"
    whole = f"2025-01-01 12:00:01,{ROW}\n"
    numeric = f"17,{ROW.rpartition(',')[0]}\n"
    for first in (short, numeric):
        rows = values((header + first + whole * 3).encode())
        assert rows == [[round(value, 2) for value in GOOD]] * 3


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_repeated_header_that_lost_bytes_changes_nothing(kept: int) -> None:
    header = f"timestamp_ms,{HEADER}"
    damaged = header[: kept * 7] + header[kept * 7 + 3 :]
    rows = [f"{n * 100},{ROW}" for n in range(4)]
    data = "\n".join([header, *rows[:2], damaged, *rows[2:]]) + "\n"
    assert values(data.encode()) == [[round(value, 2) for value in GOOD]] * 4


def test_a_new_header_of_the_same_length_is_followed() -> None:
    data = f"{HEADER}\n{ROW}\n{','.join(REORDERED)}\n{REORDERED_ROW}\n"
    assert values(data.encode()) == [[round(value, 2) for value in GOOD]] * 2


def test_an_unknown_header_in_the_middle_stops_its_rows_and_a_known_one_resumes() -> None:
    other = ",".join(f"x{n}" for n in range(12))
    data = f"{HEADER}\n{ROW}\n{other}\n{ROW}\n{HEADER}\n{ROW}\n"
    assert len(values(data.encode())) == 2


def test_text_columns_are_passed_over_and_named() -> None:
    decoder = LineDecoder()
    rows = f'label,{HEADER},phase\nblood_orange,{ROW},"before, clean"\ncaf\u00e9,{ROW},x\n'
    frames = decoder.feed(rows.encode("latin-1"))
    assert len(frames) == 2
    assert decoder.columns is not None
    assert decoder.columns.ignored == ("label", "phase")


def test_many_other_columns_are_passed_over_where_the_grove_channels_are_named() -> None:
    header = "id,lat,lon,accuracy,device,app,NO2,C2H5OH,VOC,CO,comment"
    frames, _ = decode(f"{header}\n1,2,3,4,phone,x,10,20,30,40,\n".encode())
    assert frames[0].values[:4].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("word", ["NA", "NULL", "None", "-", "#DIV/0!", "", '""', "nan"])
def test_a_missing_value_leaves_its_row(word: str) -> None:
    row = ROW.replace("216", word, 1)
    frames, counts = decode_every_way(f"{HEADER}\n{row}\n{ROW}\n".encode())
    assert len(frames) == 2
    assert frames[0].quality[0] == 1
    assert counts.damaged == 0


def test_trailing_commas_in_rows_or_header_alone_do_not_matter() -> None:
    for header, row in ((HEADER, f"{ROW},"), (f"{HEADER},,", ROW), (HEADER, f"{ROW},,, ")):
        assert len(values(f"{header}\n{row}\n".encode())) == 1


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "; "])
def test_other_delimiters_come_with_decimal_commas(delimiter: str) -> None:
    table = f"{HEADER}\n{ROW}\n".replace(",", delimiter).replace(".", ",")
    assert values(table.encode()) == [[round(value, 2) for value in GOOD]]


def test_quoted_decimal_commas_and_thousands_are_read() -> None:
    row = ROW.replace("25.53", '"25,53"').replace("1022.84", '"1.022,84"')
    assert values(f"{HEADER}\n{row}\n".encode()) == [[round(value, 2) for value in GOOD]]


def test_a_repeated_column_whose_values_differ_is_named() -> None:
    decoder = LineDecoder()
    assert decoder.feed(b"NO2,CO,NO2\n1,2,3\n") == []
    assert decoder.problem is not None
    assert "NO2 comes in two columns" in decoder.problem


def test_a_damaged_row_keeps_its_place_in_the_count() -> None:
    frames, _ = decode_every_way(f"{HEADER}\n{ROW}\n{ROW[:20]}\n{ROW}\n".encode())
    assert [frame.frame_seq for frame in frames] == [0, 2]


HEADINGS = st.sampled_from(
    [*CHANNEL_NAMES, "label", "timestamp_ms", "time (s)", "NO2 (ppm)", "Temp (\u00b0C)", "", "x"]
)
CELLS = st.one_of(
    st.sampled_from(["1", "25,5", "1.022,84", "NA", '"', '"a;b"', "5 C", "2025-01-01 12:00:00"]),
    st.text(alphabet=st.characters(blacklist_characters="\r\n"), max_size=8),
)


@settings(max_examples=200, deadline=None)
@given(
    header=st.lists(HEADINGS, min_size=1, max_size=14),
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=15), max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
    encoding=st.sampled_from(["utf-8", "latin-1"]),
)
def test_any_table_gives_the_same_frames_whole_and_byte_by_byte(
    header: list[str], rows: list[list[str]], delimiter: str, encoding: str
) -> None:
    lines = [delimiter.join(header), *(delimiter.join(row) for row in rows)]
    decode_every_way("\n".join(lines).encode(encoding, "replace") + b"\n")


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(12)), st.sampled_from([",", ";", "\t"]))
def test_columns_in_any_order_are_the_same_reading(order: list[int], delimiter: str) -> None:
    header = delimiter.join(CHANNEL_NAMES[at] for at in order)
    row = delimiter.join(f"{GOOD[at]:g}" for at in order)
    [frame] = decode(f"{header}\n{row}\n".encode())[0]
    assert [round(float(value), 2) for value in frame.values] == [round(v, 2) for v in GOOD]
