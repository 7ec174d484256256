"""Foreign files become recordings as their mapping says, or say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import channel_index
from hardware.foreign.mapping import Column, ForeignFormat, shipped_format
from hardware.foreign.reading import ForeignFileError, read_foreign, write_recordings
from hardware.recording import read_recording

TABLE = ForeignFormat(
    "a table",
    {"NO2": Column("no2"), "Gas_Resistance": Column("plate", "ohm")},
    time="t",
    time_unit="s",
    name=r"(?P<label>[a-z]+)-(?P<session>\w+)-\d+\.csv$",
    join_gap_s=2.0,
)


def table(folder: Path, name: str, *rows: str, header: str = "t,no2,plate") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_columns_are_converted_and_times_kept(tmp_path: Path) -> None:
    path = table(tmp_path, "mint-monday-1.csv", "10,215,50000", "12.5,216,49000")
    (recording,) = read_foreign([path], TABLE)
    assert (recording.label, recording.session) == ("mint", "monday")
    assert recording.time_ms.tolist() == [10_000, 12_500]
    assert recording.values[:, channel_index("NO2")].tolist() == [215, 216]
    assert recording.values[:, channel_index("Gas_Resistance")].tolist() == [50, 49]
    assert np.isnan(recording.values[:, channel_index("CO")]).all()


@pytest.mark.parametrize("missing", ["", "NA", "NULL", "None", "-", "nan"])
def test_a_missing_value_is_missing_and_its_row_stays(tmp_path: Path, missing: str) -> None:
    path = table(tmp_path, "mint-monday-1.csv", "1,215,1000", f"2,{missing},1000", "3,217,1000")
    (recording,) = read_foreign([path], TABLE)
    assert recording.time_ms.tolist() == [1000, 2000, 3000]
    assert np.isnan(recording.values[1, channel_index("NO2")])


def test_slices_of_one_recording_are_joined_and_others_are_not(tmp_path: Path) -> None:
    paths = [
        table(tmp_path, "mint-monday-2.csv", "12,3,1", "13,4,1"),
        table(tmp_path, "mint-monday-1.csv", "10,1,1", "11,2,1"),
        table(tmp_path, "mint-monday-3.csv", "60,5,1", "61,6,1"),
        table(tmp_path, "mint-tuesday-1.csv", "14,7,1", "15,8,1"),
    ]
    recordings = list(read_foreign(paths, TABLE))
    numbers = [r.values[:, channel_index("NO2")].tolist() for r in recordings]
    assert numbers == [[1, 2, 3, 4], [5, 6], [7, 8]]
    assert [len(recording.paths) for recording in recordings] == [2, 1, 1]


def test_nested_json_with_iso_times_is_read(tmp_path: Path) -> None:
    reading = {
        "BME680Sensor": {
            "Temperature": 25,
            "Humidity": 37,
            "Pressure": 1016,
            "GasResistance": 2000,
        },
        "GroveGasSensor": {"NO2": 179, "Ethanol": 200, "VOC": 136, "CO": 226},
    }
    rows = [reading | {"timestamp": f"2025-05-16T22:14:4{second}.500000"} for second in (2, 5)]
    path = tmp_path / "ba_20250516_221440.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    (recording,) = read_foreign([path], shipped_format("fruits5"))
    assert recording.label == "banana"
    assert np.diff(recording.time_ms).tolist() == [3000]
    assert recording.values[0, channel_index("C2H5OH")] == 200
    assert recording.values[0, channel_index("Gas_Resistance")] == 2


@pytest.mark.parametrize(
    ("rows", "header", "problem"),
    [
        (["1,2"], "t,nitrogen", "'t,nitrogen' cannot be used.*'no2', 'plate' are not in it"),
        (["1,2,3"], "t,no2,tray", "the mapping's column 'plate' is not in it"),
        (["1,2,3"], "clock,no2,plate", "column of the time, 't', is not in it"),
        (["noon,2,3"], "t,no2,plate", "'t' \\(noon\\) are not s"),
        (["1,2_15,3"], "t,no2,plate", "'2_15' for NO2, which is no number"),
        (["1,3.3 V,3"], "t,no2,plate", "'3.3 V' for NO2, which is no number in count"),
        ([], "t,no2,plate", "header but no data row"),
    ],
)
def test_a_file_that_does_not_fit_says_why(
    tmp_path: Path, rows: list[str], header: str, problem: str
) -> None:
    path = table(tmp_path, "mint-monday-1.csv", *rows, header=header)
    with pytest.raises(ForeignFileError, match=problem):
        list(read_foreign([path], TABLE))


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1, 2]"])
def test_json_that_is_no_list_of_readings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ba_20250516_221440.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ForeignFileError, match="JSON"):
        list(read_foreign([path], shipped_format("fruits5")))


def test_recordings_are_written_by_label_and_session_and_read_back(tmp_path: Path) -> None:
    path = table(tmp_path, "mint-monday-1.csv", "10,215,50000", "12.5,216,49000")
    recordings = list(read_foreign([path], TABLE))
    (written,) = write_recordings(recordings, tmp_path / "data")
    assert written == tmp_path / "data" / "mint" / "monday" / "mint-monday-1.csv"
    recording = read_recording(written)
    assert recording.timestamp_ms is not None
    assert recording.timestamp_ms.tolist() == [0, 2500]
    assert recording.values[:, channel_index("NO2")].tolist() == [215, 216]
    with pytest.raises(ForeignFileError, match="never overwritten"):
        write_recordings(recordings, tmp_path / "data")


def test_what_a_column_is_taken_for_is_described(tmp_path: Path) -> None:
    path = table(tmp_path, "mint-monday-1.csv", "10,215,5,x", header="t,no2,plate,note")
    (recording,) = read_foreign([path], TABLE)
    assert "NO2 from column 'no2' (as sent)" in recording.notes
    assert "Gas_Resistance from column 'plate' (ohm)" in recording.notes
    assert "time from column 't' (s)" in recording.notes
    assert "ignored: note" in recording.notes
    assert any(note.startswith("absent: C2H5OH") for note in recording.notes)


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    rows = ["1,2,3", "2,2_15,3", "2.5,4", "3,2,3", "3,2,3", "2,2,3", "4,2,3"]
    (recording,) = read_foreign([table(tmp_path, "mint-monday-1.csv", *rows)], TABLE)
    assert recording.time_ms.tolist() == [1000, 3000, 4000]
    assert "2 rows cannot be read and were left out" in recording.notes
    assert "2 rows whose time did not advance were left out" in recording.notes


def test_the_session_is_the_day_of_the_readings_or_the_one_that_is_named(tmp_path: Path) -> None:
    form = ForeignFormat("x", {"NO2": Column("no2")}, time="t")
    dated = table(
        tmp_path, "a.csv", "2025-05-16T23:59:58,1", "2025-05-16T23:59:59,2", header="t,no2"
    )
    epoch = table(tmp_path, "b.csv", "1747400000,1", "1747400001,2", header="t,no2")
    undated = table(tmp_path, "c.csv", "0,1", "1,2", header="t,no2")
    sessions = {
        recording.paths[0].name: recording.session
        for recording in read_foreign([dated, epoch, undated], form, session="tuesday")
    }
    assert sessions == {"a.csv": "2025-05-16", "b.csv": "2025-05-16", "c.csv": "tuesday"}
    assert next(read_foreign([undated], form)).session == "unknown"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pattern", "labels", "sessions"),
    [("fruits5", "*.json", 5, 4), ("ai-nose", "*/*.csv", 8, 2), ("sidharth", "*.csv", 5, 6)],
)
def test_recordings_of_a_real_rig_are_read(
    smellnet: Path, name: str, pattern: str, labels: int, sessions: int
) -> None:
    paths = sorted((smellnet.parent / "rigs" / name).glob(pattern))
    if not paths:
        pytest.skip(f"SCENTD_DATA holds no rigs/{name}")
    recordings = list(read_foreign(paths, shipped_format(name)))
    assert len({recording.label for recording in recordings}) == labels
    assert len({recording.session for recording in recordings}) == sessions
    for recording in recordings:
        assert (np.diff(recording.time_ms) > 0).all()
        grove = recording.values[:, [channel_index(c) for c in ("NO2", "C2H5OH", "VOC", "CO")]]
        assert (grove > 0).all()
        assert (grove < 1023).all()
