"""Recordings as Parquet files: exact, whole, labelled, and read back as they were decoded."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.archive import archive_recording, read_entry, schema
from hardware.archived_recording import ArchivedRecording
from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.encoding import encode_csv, encode_csv_header, encode_scent
from hardware.frames import SensorFrame
from hardware.recording_labels import LabelledStretch, RecordingLabels
from hardware.recording_stream import RecordingError, RecordingStream

dataset = pytest.importorskip(
    "pyarrow.dataset", reason="pyarrow is not installed: pip install 'scentd[archive]'"
)

ROW = [216.0, 305.0, 494.0, 830.0, 2.0, 38.0, 3.0, 25.5, 1022.75, 28.0, 69.5, -48.0]
SEGMENTS = (
    "r000001-0001-20260131T120000Z.live.csv",
    "r000001-0002-20260131T235900Z.live.csv",
    "r000001-0003-20260201T010000Z.live.csv",
)


def archived(source: Path, root: Path, labels: RecordingLabels | None = None) -> Path:
    path, readings = archive_recording(
        root, source, rig="kitchen", session="today", labels=labels or RecordingLabels()
    )
    assert readings is not None
    return path


def own(path: Path, times_ms: range, rows: list[list[float]] | None = None) -> Path:
    rows = rows or [ROW] * len(times_ms)
    lines = [encode_csv(row, t_ms) for t_ms, row in zip(times_ms, rows, strict=True)]
    content = encode_csv_header(timestamps=True) + b"".join(lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def bits(frame: SensorFrame) -> tuple[object, ...]:
    return (
        frame.frame_seq,
        frame.device_ms,
        frame.values.tobytes(),
        frame.quality.tobytes(),
        frame.lost_before,
        frame.restarted,
    )


def assert_equal(found: ArchivedRecording, expected: RecordingStream) -> None:
    arrivals = [(bits(frame), at_ms) for frame, at_ms in expected.arrivals()]
    assert [(bits(frame), at_ms) for frame, at_ms in found.arrivals()] == arrivals
    for name in ("timestamped", "first_ms", "nominal_rate_hz", "assumed_rate_hz", "published"):
        assert getattr(found, name) == getattr(expected, name), name
    assert (found.present, len(found)) == (expected.present, len(expected))


NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=15)
@given(
    rows=st.lists(st.lists(NUMBERS, min_size=N_CHANNELS, max_size=N_CHANNELS), min_size=1),
    start_ms=st.integers(0, 1 << 40),
)
def test_every_number_comes_back_to_the_bit(
    rows: list[list[float]], start_ms: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bits")
    times_ms = range(start_ms, start_ms + 100 * len(rows), 100)
    source = own(folder / "tea.csv", times_ms, rows)
    assert_equal(ArchivedRecording([archived(source, folder)]), RecordingStream([source]))


def test_a_published_recording_keeps_the_places_of_damaged_rows(tmp_path: Path) -> None:
    source = tmp_path / "tea.csv"
    rows = [encode_csv(ROW), b"21,x,3\n", *[encode_csv([*ROW[:6], math.inf, *ROW[7:]])] * 3]
    source.write_bytes(encode_csv_header(timestamps=False) + b"".join(rows))
    found = ArchivedRecording([archived(source, tmp_path)])
    assert_equal(found, RecordingStream([source]))
    assert found.published
    assert found.entries[0].rejected == 1


def test_a_capture_keeps_the_numbers_of_the_board_and_what_was_lost(tmp_path: Path) -> None:
    source = tmp_path / "capture.csv"
    numbers = [7, 8, 12, 1]
    source.write_bytes(b"boot\n" + b"".join(encode_scent(n, 100 * n, ROW) for n in numbers))
    found = ArchivedRecording([archived(source, tmp_path)])
    assert_equal(found, RecordingStream([source]))
    assert [frame.lost_before for frame in found.frames()][2] == 3


def test_segments_of_a_run_join_as_their_files_do(tmp_path: Path) -> None:
    sources = [
        own(tmp_path / name, range(start, start + 5000, 500))
        for name, start in zip(SEGMENTS, (0, 5000, 20000), strict=True)
    ]
    sources[1].write_bytes(sources[1].read_bytes() + b"5,damaged\n")
    paths = [archived(source, tmp_path / "archive") for source in sources]
    assert {path.parent.name for path in paths} == {"day=2026-01-31", "day=2026-02-01"}
    assert_equal(ArchivedRecording(paths), RecordingStream(sources))


def test_an_archive_is_one_table_with_rig_day_session_and_label(tmp_path: Path) -> None:
    labels = RecordingLabels((LabelledStretch(2000, 4000, "tea"),))
    source = own(tmp_path / f"{SEGMENTS[0]}.gz", range(0, 6000, 1000))
    archived(source, tmp_path / "archive", labels)
    table = dataset.dataset(tmp_path / "archive", partitioning="hive").to_table()
    assert set(CHANNEL_NAMES) < set(table.column_names)
    rows = table.to_pylist()
    assert {(row["rig"], str(row["day"]), row["session"]) for row in rows} == {
        ("kitchen", "2026-01-31", "today")
    }
    assert [row["label"] for row in rows] == [None, None, "tea", "tea", "tea", None]
    assert [row["recording"] for row in rows] == [SEGMENTS[0].removesuffix(".csv")] * 6
    assert [row["timestamp_ms"] for row in rows] == list(range(0, 6000, 1000))
    assert np.float32(rows[0]["Pressure"]) == np.float32(ROW[8])


def test_a_recording_is_written_again_only_where_something_changed(tmp_path: Path) -> None:
    source, root = own(tmp_path / "tea.csv", range(0, 5000, 1000)), tmp_path / "archive"
    path = archived(source, root)

    def again(labels: RecordingLabels) -> int | None:
        return archive_recording(root, source, rig="kitchen", session="today", labels=labels)[1]

    assert again(RecordingLabels()) is None
    labels = RecordingLabels((LabelledStretch(0, 4000, "tea"),))
    assert again(labels) == 5
    assert again(labels) is None
    own(source, range(0, 6000, 1000))
    assert again(labels) == 6
    path.write_bytes(path.read_bytes()[:-9])
    assert again(labels) == 6


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = archived(own(tmp_path / "tea.csv", range(0, 50_000, 10)), tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-20:]
    elif damage == "changed":
        content[len(content) // 3] ^= 0xFF
    else:
        content = bytearray(b"no Parquet file at all, but long enough for one")
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=path.name):
        list(ArchivedRecording([path]).frames())


def test_a_file_of_another_program_is_no_recording(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(schema().empty_table(), tmp_path / "other.parquet")
    assert read_entry(tmp_path / "other.parquet") is None
    with pytest.raises(RecordingError, match="no recording of an archive"):
        ArchivedRecording([tmp_path / "other.parquet"])
