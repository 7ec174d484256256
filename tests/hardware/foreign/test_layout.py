"""Foreign files of every kind through the one reader: what is taken, converted, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES, channel_index
from hardware.foreign.layout import foreign_layout
from hardware.foreign.mapping import Column, ForeignFormat, read_mapping, shipped_format
from hardware.recording import Recording, RecordingError, read_recording


def read(path: Path, form: ForeignFormat | str) -> Recording:
    if isinstance(form, str):
        form = shipped_format(form)
    return read_recording(path, foreign_layout(form))


def mapping(folder: Path, text: str) -> ForeignFormat:
    (folder / "map.yaml").write_text(f"description: x\n{text}\n", encoding="utf-8")
    return read_mapping(folder / "map.yaml")


def column(recording: Recording, name: str) -> list[float]:
    return [round(float(value), 3) for value in recording.values[:, channel_index(name)]]


# CSV

TWO_BOARDS = """\
Exported by two boards, kitchen
t;A_NO2;A_CO;B_NO2;B_CO;note
0,0;216;830;0,1;0,2;"a; b"
0,1;217 ;831;0,2;0,3;
0,2;NA;832;0,3 V;0,4;
"""


@pytest.mark.parametrize("channels", ["", "channels: {NO2: NO2, CO: {column: CO}}"])
def test_a_prefix_chooses_one_of_several_boards(tmp_path: Path, channels: str) -> None:
    path = tmp_path / "two.csv"
    path.write_text(TWO_BOARDS)
    recording = read(path, mapping(tmp_path, f"prefix: A_\ntime: t\n{channels}"))
    assert column(recording, "CO") == [830, 831, 832]
    assert column(recording, "NO2")[:2] == [216, 217]
    assert recording.timestamp_ms is not None
    assert recording.timestamp_ms.tolist() == [0, 100, 200]
    assert "NO2 from column 'A_NO2' (as sent)" in recording.notes
    assert any("B_NO2" in note for note in recording.notes if note.startswith("ignored"))


def test_units_of_cells_must_fit_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "volts.csv"
    path.write_text(
        "t,no2,co,temp\n0,3.3V,812 mV,77 F\n100,1.65,0.812 V,25 C\n200,5 ohm,1 V,25 C\n"
    )
    text = (
        "time: t\ntime_unit: ms\nchannels:\n  NO2: {column: no2, unit: volt of 3.3}\n"
        "  CO: {column: co, unit: volt of 3.3}\n  Temperature: temp"
    )
    recording = read(path, mapping(tmp_path, text))
    assert column(recording, "NO2") == [1023, 511.5]
    assert column(recording, "CO") == [pytest.approx(251.72), pytest.approx(251.72)]
    assert column(recording, "Temperature") == [25, 25]
    assert recording.counts.malformed == 1


def test_counts_divided_by_a_thousand_under_headings_of_ppm(tmp_path: Path) -> None:
    path = tmp_path / "ppm.csv"
    path.write_text("millis,NO2 (ppm),CO (ppm)\n0,0.216,0.830 ppm\n100,0.217,0.831\n")
    text = "time: millis\nchannels:\n" + "".join(
        f"  {name}: {{column: {name}, unit: count / 1000}}\n" for name in ("NO2", "CO")
    )
    recording = read(path, mapping(tmp_path, text))
    assert column(recording, "NO2") == [216, 217]
    assert column(recording, "CO") == [830, 831]
    with pytest.raises(RecordingError, match=r"'NO2 \(ppm\)' has the unit 'ppm'.*--map"):
        read_recording(path)


def test_a_constant_interval_gives_the_times_and_damaged_rows_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\nx,y,z,0,0\n1,2,3\n5,6\n")
    recording = read(path, ForeignFormat("x", {"NO2": Column("a")}, interval_ms=250))
    assert recording.timestamp_ms is not None
    assert recording.timestamp_ms.tolist() == [0, 500]
    assert recording.nominal_rate_hz == 2.0


def test_date_and_time_in_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("day,hour,a\n2025-05-16,23:59:59,1\n2025-05-17,00:00:01,2\n")
    recording = read(
        path, mapping(tmp_path, "time: [day, hour]\ntime_unit: iso\nchannels: {CO: a}")
    )
    assert recording.timestamp_ms is not None
    assert np.diff(recording.timestamp_ms).tolist() == [2000]


def test_the_first_spelling_that_is_there_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,voc2,voc\n0,1,2\n1,1,2\n")
    form = mapping(tmp_path, "time: t\ntime_unit: s\nchannels: {VOC: {column: [gm502, voc, voc2]}}")
    assert column(read(path, form), "VOC") == [2, 2]


# JSON


@pytest.mark.parametrize("shape", ["list", "lines", "under a key"])
def test_json_is_a_list_lines_or_a_list_under_a_key(tmp_path: Path, shape: str) -> None:
    rows: list[dict[str, Any]] = [
        {"at": "2025-01-01T00:00:00Z", "gas": {"no2": 5, "note": 'a\tb"'}},
        {"at": "2025-01-01T00:00:02Z", "gas": {"no2": None}, "more": [1]},
    ]
    path = tmp_path / "a.json"
    if shape == "lines":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows if shape == "list" else {"data": {"readings": rows}}))
    text = "kind: json\ntime: at\ntime_unit: iso\nchannels: {NO2: gas.no2}"
    more = "\nrows: data.readings" if shape == "under a key" else ""
    recording = read(path, mapping(tmp_path, text + more))
    assert column(recording, "NO2")[0] == 5
    assert np.isnan(recording.values[1]).all()
    assert recording.nominal_rate_hz == 0.5


# Edge Impulse


def sample(
    path: Path, sensors: list[Mapping[str, str]], values: list[Any], interval_ms: float = 100
) -> Path:
    payload = {"interval_ms": interval_ms, "sensors": sensors, "values": values}
    path.write_text(json.dumps({"protected": {"ver": "v1"}, "signature": "0", "payload": payload}))
    return path


def test_a_sample_of_edge_impulse_is_read_by_its_sensors(tmp_path: Path) -> None:
    sensors = [
        {"name": "no2", "units": "N/A"},
        {"name": "eth", "units": "count"},
        {"name": "temp", "units": "Cel"},
        {"name": "accX", "units": "m/s2"},
    ]
    path = sample(tmp_path / "mint.1.json", sensors, [[n, 2, 25, 0] for n in range(1, 30)], 62.5)
    recording = read(path, "edge-impulse")
    assert column(recording, "NO2") == list(range(1, 30))
    assert column(recording, "C2H5OH") == [2] * 29
    assert column(recording, "Temperature") == [25] * 29
    assert recording.nominal_rate_hz == pytest.approx(16.0, rel=0.02)
    assert "one reading every 62.5 ms, from interval_ms" in recording.notes
    assert "C2H5OH from column 'eth' (as sent)" in recording.notes
    assert "ignored: accX (m/s2)" in recording.notes
    assert shipped_format("edge-impulse").label_and_session(path)[0] == "mint"


def test_one_sensor_may_have_plain_values(tmp_path: Path) -> None:
    path = sample(tmp_path / "mint.1.json", [{"name": "CO"}], [5, 6, 7])
    assert column(read(path, "edge-impulse"), "CO") == [5, 6, 7]


def test_a_csv_of_edge_impulse_has_its_time_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "mint.1.csv"
    path.write_text("timestamp,NO2,C2H5OH,VOC,CO\n0,1,2,3,4\n16,1,2,3,4\n32,1,2,3,4\n")
    recording = read(path, "edge-impulse")
    assert recording.timestamp_ms is not None
    assert recording.timestamp_ms.tolist() == [0, 16, 32]


def test_a_gas_of_edge_impulse_in_another_unit_needs_a_mapping(tmp_path: Path) -> None:
    path = sample(tmp_path / "a.1.json", [{"name": "NO2", "units": "ppm"}], [[0.2], [0.3]])
    with pytest.raises(RecordingError, match=r"has the unit 'ppm'.*mapping of your own"):
        read(path, "edge-impulse")
    form = mapping(
        tmp_path, "kind: edge-impulse\nchannels: {NO2: {column: NO2, unit: count / 1000}}"
    )
    assert column(read(path, form), "NO2") == [200, 300]


# BME AI-Studio


def raw_data(path: Path, *, config: bool = True, repeats: int = 1) -> Path:
    keys = [
        *("sensor_index", "sensor_id", "timestamp_since_poweron", "real_time_clock"),
        *("temperature", "pressure", "relative_humidity", "resistance_gassensor"),
        *("heater_profile_step_index", "label_tag", "error_code"),
    ]
    block = [
        [
            *(sensor, 7, 5000 + cycle * 10_780 + step * 1000 + again, 1_747_400_000 + cycle * 11),
            *(25.5, 984.5, 40.0, 1000 * (100 * sensor + 10 * cycle + step) + again),
            *(step, 1, int(cycle == 2 and step == 9)),
        ]
        for cycle in range(4)
        for step in range(10)
        for again in range(repeats)
        for sensor in (2, 5)
    ]
    profile = {"id": "p", "temperatureTimeVectors": [[320, 5], *[[100, 2]] * 7, [310, 5], [200, 5]]}
    content = {
        "configHeader": {"boardType": "board_8"},
        "configBody": {
            "heaterProfiles": [profile],
            "sensorConfigurations": [{"sensorIndex": 2, "heaterProfile": "p"}],
        }
        if config
        else {},
        "rawDataHeader": {},
        "rawDataBody": {"dataColumns": [{"key": key} for key in keys], "dataBlock": block},
    }
    path.write_text(json.dumps(content))
    return path


def test_raw_data_gives_the_first_sensor_at_the_step_nearest_the_boards_plate(
    tmp_path: Path,
) -> None:
    recording = read(raw_data(tmp_path / "a.bmerawdata"), "bmerawdata")
    assert column(recording, "Gas_Resistance") == [200, 210, 220, 230]
    assert column(recording, "Pressure") == [984.5] * 4
    assert recording.timestamp_ms is not None
    assert np.diff(recording.timestamp_ms).tolist() == [10_780] * 3
    assert recording.timestamp_ms[0] == 1_747_400_000_000
    assert any("sensor 2 of 2, 5; heater step 0 of 0, 1" in note for note in recording.notes)
    assert any("320 degC" in note for note in recording.notes)


def test_without_a_profile_the_last_step_counts_and_an_error_has_no_resistance(
    tmp_path: Path,
) -> None:
    recording = read(raw_data(tmp_path / "a.bmerawdata", config=False), "bmerawdata")
    resistance = column(recording, "Gas_Resistance")
    assert resistance[:2] == [209, 219]
    assert np.isnan(resistance[2])


def test_a_mapping_chooses_sensor_and_step(tmp_path: Path) -> None:
    path = raw_data(tmp_path / "a.bmerawdata", repeats=3)
    text = "kind: bmerawdata\n{}\nchannels: {{Gas_Resistance: {{column: {}, unit: ohm}}}}"
    chosen = "sensor: 5\nheater_step: 3"
    form = mapping(tmp_path, text.format(chosen, "resistance_gassensor"))
    # Of a step that is read three times, the last reading.
    assert column(read(path, form), "Gas_Resistance") == [503.002, 513.002, 523.002, 533.002]
    form = mapping(tmp_path, text.format("sensor: 1", "resistance_gassensor"))
    with pytest.raises(RecordingError, match=r"no reading of sensor 1; it has 2, 5"):
        read(path, form)


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("edge-impulse", '{"payload": 5}', "no `payload`"),
        ("edge-impulse", '{"payload": {"interval_ms": 0}}', "`interval_ms` 0"),
        ("edge-impulse", '{"payload": {"interval_ms": 5}}', "no list of `sensors`"),
        ("edge-impulse", "{", "cannot be read as JSON"),
        ("bmerawdata", "{}", "no rawDataBody"),
        (
            "bmerawdata",
            '{"rawDataBody": {"dataColumns": [], "dataBlock": []}}',
            "no reading of sen",
        ),
        ("fruits5", '{"a": 1}', "JSON list of one object per reading"),
        ("fruits5", "[" * 5000, "cannot be read as JSON"),
    ],
)
def test_what_is_of_another_kind_is_named(
    tmp_path: Path, kind: str, content: str, problem: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(RecordingError, match=problem):
        read(path, kind)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2000), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    *("payload", "interval_ms", "sensors", "values", "name", "units", "key"),
                    *("rawDataBody", "dataColumns", "dataBlock", "sensor_index", "timestamp"),
                    *("configBody", "GroveGasSensor", "NO2", CHANNEL_NAMES[1]),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=25,
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=JSON, kind=st.sampled_from(["edge-impulse", "bmerawdata", "fruits5"]))
def test_any_json_is_read_or_refused(tmp_path: Path, content: Any, kind: str) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(content))
    try:
        read(path, kind)
    except RecordingError:
        return
