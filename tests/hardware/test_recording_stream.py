"""Recordings streamed from the disk: times, what is noted, pipes, and bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import CHANNEL_NAMES
from hardware.recording import RecordingWriter, read_recording
from hardware.recording_stream import RecordingError, RecordingStream
from tests.hardware.protocol_lines import GOOD, UPSTREAM_ROW, assert_same_frames

HEADER = ",".join(CHANNEL_NAMES)
ROW = ",".join(f"{value:g}" for value in GOOD)


def table(path: Path, first: str, cells: list[str], header: str = HEADER, row: str = ROW) -> Path:
    path.write_text(f"{first},{header}\n" + "".join(f"{cell},{row}\n" for cell in cells))
    return path


@pytest.mark.parametrize(
    ("heading", "cells"),
    [
        ("time(ms)", [str(n * 100) for n in range(40)]),
        ("timestamp_ms", [f"{n / 10:.1f}" for n in range(40)]),
        ("time", [f"{1_735_732_800 + n / 10:.1f}" for n in range(40)]),
        ("timestamp", [f"2025-01-01T12:00:{n / 10:06.3f}" for n in range(40)]),
        ("time", [str(1_735_732_800 + n // 10) for n in range(40)]),
    ],
)
def test_ten_readings_a_second_are_ten_under_every_time(
    tmp_path: Path, heading: str, cells: list[str]
) -> None:
    stream = RecordingStream([table(tmp_path / "a.csv", heading, cells)])
    assert stream.nominal_rate_hz == pytest.approx(10.0)
    assert stream.timestamped
    clocks = [frame.device_ms for frame in stream.frames()]
    assert np.diff(np.array(clocks, np.int64)).tolist() == [100] * 39
    assert any("time from column" in note for note in stream.notes)


def test_a_time_that_cannot_be_read_is_named_and_not_used(tmp_path: Path) -> None:
    stream = RecordingStream([table(tmp_path / "a.csv", "time", ["noon"] * 5)])
    assert not stream.timestamped
    assert any("'time' (noon, noon, noon) tells no time" in note for note in stream.notes)


def test_date_and_time_of_day_in_two_columns_are_one_time(tmp_path: Path) -> None:
    cells = [f"2025-01-01,23:59:{n}" for n in range(50, 60)] + ["2025-01-02,00:00:00"]
    stream = RecordingStream([table(tmp_path / "a.csv", "Date,Time", cells)])
    clocks = np.array([frame.device_ms for frame in stream.frames()], np.int64)
    assert np.diff(clocks).tolist() == [1000] * 10


def test_missing_values_in_every_third_row_leave_the_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [ROW if n % 3 else ROW.replace("216", "NULL") for n in range(84)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    arrivals = [arrival for _, arrival in RecordingStream([path]).arrivals()]
    assert arrivals == [n * 1000.0 for n in range(84)]


def test_damaged_rows_without_times_leave_the_time_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [ROW if n % 3 else ROW[:30] for n in range(9)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    arrivals = [arrival for _, arrival in RecordingStream([path]).arrivals()]
    assert arrivals == [n * 1000.0 for n in (0, 1, 3, 4, 6, 7)]
    assert [at for _, at in read_recording(path).arrivals()] == arrivals


def test_a_capture_without_times_says_that_a_rate_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "capture.txt"
    path.write_bytes(UPSTREAM_ROW * 5)
    assert any("one reading in 1 s is assumed" in n for n in RecordingStream([path]).notes)


def test_rows_in_reverse_order_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "timestamp_ms", [str(n * 100) for n in range(20, 0, -1)])
    with pytest.raises(RecordingError, match="backwards in time"):
        RecordingStream([path])


def test_a_recording_of_scentd_needs_no_note(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    with RecordingWriter(path) as recording:
        for row in range(20):
            recording.write(row * 100, GOOD)
    assert RecordingStream([path]).notes == ()


def test_counts_divided_by_a_thousand_are_named_as_outside_their_range(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("timestamp_ms,NO2,C2H5OH,VOC,CO\n0,.2,300,400,500\n100,.3,300,400,500\n")
    [note] = RecordingStream([path]).notes
    assert "NO2 is outside 1 to 1022 count in 2 of 2 readings" in note
    assert "--map" in note


def test_a_pipe_gives_the_same_frames_as_a_file(tmp_path: Path) -> None:
    path, pipe = table(tmp_path / "a.csv", "time", ["1", "2", "3"]), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    stream = RecordingStream([pipe])
    writer.join()
    assert_same_frames(list(stream.frames()), list(RecordingStream([path]).frames()))
    assert len(list(stream.frames())) == 3


def test_a_file_that_grows_while_it_is_replayed_ends_where_it_was_measured(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "time", ["1", "2", "3"])
    stream = RecordingStream([path])
    with path.open("a") as file:
        file.write(f"4,{ROW}\n")
    assert len(list(stream.frames())) == len(stream) == 3


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"cannot be read"):
        RecordingStream([tmp_path / name])


MEMORY = """
import resource, sys
from pathlib import Path
from hardware.recording_stream import RecordingStream
def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stream = RecordingStream([Path(sys.argv[1])])
sum(1 for _ in stream.frames())
before = peak_kb()
stream = RecordingStream([Path(sys.argv[2])])
print(len(stream), sum(1 for _ in stream.frames()), peak_kb() - before)
"""


def test_a_long_recording_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    short, long = tmp_path / "short.csv", tmp_path / "long.csv"
    for path, rows in ((short, 2000), (long, 60_000)):
        with RecordingWriter(path) as recording:
            for number in range(rows):
                recording.write(number * 100, GOOD)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(short), str(long)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    measured, yielded, grown_kb = map(int, done.stdout.split())
    assert measured == yielded == 60_000
    assert grown_kb < 6000  # of which the times of all rows are 480 kB; frames would be 30 MB
