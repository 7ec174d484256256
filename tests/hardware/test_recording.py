"""Recordings: both published layouts, those of the daemon, and other files."""

from __future__ import annotations

import gzip
import io
import math
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES
from hardware.encoding import encode_csv, encode_csv_header, encode_scent
from hardware.frames import Quality
from hardware.protocol import LineDecoder
from hardware.readings import range_quality
from hardware.recording import (
    RecordingError,
    RecordingWriter,
    read_recording,
    read_recordings,
    whole_lines_bytes,
)
from tests.hardware.protocol_lines import GOOD, UPSTREAM_BANNER, UPSTREAM_ROW, assert_same_frames

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recording.csv"


def test_the_single_substance_layout_is_one_row_a_second(file: Path) -> None:
    file.write_bytes(encode_csv_header(timestamps=False) + encode_csv(GOOD) * 3)
    recording = read_recording(file)
    assert recording.values.shape == recording.quality.shape == (3, 12)
    assert recording.values.dtype == np.float32
    assert recording.timestamp_ms is None
    assert recording.nominal_rate_hz == 1.0
    assert len(recording) == recording.counts.frames == 3
    assert recording.published


def test_the_mixture_layout_is_ten_rows_a_second(file: Path) -> None:
    rows = "".join(f"{100.0 * i},862.0,955.3,915.0,1002.0\n" for i in range(20))
    file.write_text("timestamp_ms,NO2,C2H5CH,VOC,CO\n" + rows)
    recording = read_recording(file)
    assert recording.timestamp_ms is not None
    assert recording.timestamp_ms.dtype == np.int64
    assert recording.timestamp_ms[-1] == 1900
    assert recording.nominal_rate_hz == 10.0
    assert (recording.quality[:, :4] == Quality.OK).all()
    assert (recording.quality[:, 4:] == Quality.MISSING).all()
    assert recording.published


def test_a_recording_of_a_board_without_mq_parts_is_none_of_the_published_ones(file: Path) -> None:
    with RecordingWriter(file) as recording:
        for second in range(20):
            recording.write(1000 * second, [*GOOD[:4], math.nan, math.nan, math.nan, *GOOD[7:]])
    assert not read_recording(file).published


def test_a_pause_and_a_clock_that_jumped_back_do_not_change_the_rate(file: Path) -> None:
    times = [0, 500, 1000, 90_000, 90_500, 91_000, 20, 520, 1020]
    file.write_bytes(encode_csv_header() + b"".join(encode_csv(GOOD, t) for t in times))
    assert read_recording(file).nominal_rate_hz == 2.0


def test_a_capture_of_the_port_is_a_recording_too(file: Path) -> None:
    file.write_bytes(UPSTREAM_BANNER + UPSTREAM_ROW * 4)
    recording = read_recording(file)
    assert len(recording) == 4
    assert recording.counts.text == 2


def test_the_frames_of_a_recording_equal_those_of_a_live_decoder(file: Path) -> None:
    data = b"".join(encode_scent(seq, seq * 100, GOOD) for seq in (4, 5, 8, 9, 0, 1))
    file.write_bytes(data)
    assert_same_frames(list(read_recording(file).frames()), LineDecoder().feed(data))


def test_a_recording_is_read_only(file: Path) -> None:
    file.write_bytes(encode_csv_header() + encode_csv(GOOD, 0))
    with pytest.raises(ValueError, match="read-only"):
        read_recording(file).values[0] = 0


# Files that are no recordings


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"nowhere\.csv.*No such file"):
        read_recording(tmp_path / "nowhere.csv")


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="directory"):
        read_recording(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused_as_empty(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(RecordingError, match="empty"):
        read_recording(file)


@pytest.mark.parametrize(
    "header", ["time,sensor_a,sensor_b", ",".join(f"mq{i}" for i in range(12))]
)
def test_other_columns_are_refused_with_the_expected_ones(file: Path, header: str) -> None:
    file.write_text(header + "\n" + ",".join("5" for _ in header.split(",")) + "\n")
    with pytest.raises(RecordingError) as caught:
        read_recording(file)
    assert header in str(caught.value)
    assert all(name in str(caught.value) for name in CHANNEL_NAMES)


def test_a_header_without_rows_is_refused(file: Path) -> None:
    file.write_bytes(encode_csv_header())
    with pytest.raises(RecordingError, match=r"no data row.*nothing follows"):
        read_recording(file)


def test_rows_that_do_not_fit_their_header_are_counted_in_the_message(file: Path) -> None:
    file.write_bytes(encode_csv_header() + b"1,2,3\n" * 5)
    with pytest.raises(RecordingError, match="5 malformed"):
        read_recording(file)


def test_a_picture_is_no_recording(file: Path) -> None:
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    with pytest.raises(RecordingError, match="a picture"):
        read_recording(file)


# Writing

VALUE = st.one_of(st.floats(width=32, allow_nan=False), st.just(math.nan))
ROWS = st.lists(
    st.tuples(st.integers(0, 2**50), st.lists(VALUE, min_size=12, max_size=12)), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_what_was_written_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, list[float]]]
) -> None:
    path = tmp_path_factory.mktemp("written") / "recording.csv"
    with RecordingWriter(path) as recording:
        for t_ms, values in rows:
            recording.write(t_ms, values)
    if not rows:
        with pytest.raises(RecordingError, match="no data row"):
            read_recording(path)
        return
    back = read_recording(path)
    written = np.array([values for _, values in rows], np.float32)
    written[np.isnan(written)] = np.nan  # one NaN: payload bits are not written
    assert back.values.tobytes() == written.tobytes()
    assert back.quality.tobytes() == b"".join(range_quality(row).tobytes() for row in written)
    assert back.timestamp_ms is not None
    assert back.timestamp_ms.tolist() == [t_ms for t_ms, _ in rows]


def test_an_absent_value_is_empty_and_an_infinite_one_is_kept(file: Path) -> None:
    values = [math.nan, math.inf, -math.inf, *GOOD[3:]]
    with RecordingWriter(file) as recording:
        recording.write(5, values)
    assert file.read_text().splitlines()[1].startswith("5,,inf,-inf,830,")


def test_a_recording_is_never_overwritten(file: Path) -> None:
    file.write_text("an earlier take\n")
    with pytest.raises(RecordingError, match="exists already"), RecordingWriter(file):
        pass
    assert file.read_text() == "an earlier take\n"


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(RecordingError, match="folder exists"),
        RecordingWriter(tmp_path / "no" / "recording.csv"),
    ):
        pass


def test_a_closed_recording_accepts_no_rows(file: Path) -> None:
    with RecordingWriter(file) as recording:
        recording.write(0, GOOD)
    with pytest.raises(RecordingError, match="not open"):
        recording.write(1, GOOD)


def test_a_stream_is_written_and_left_open() -> None:
    stream = io.BytesIO()
    with RecordingWriter(stream) as recording:
        recording.write(0, GOOD)
    assert stream.getvalue() == encode_csv_header() + encode_csv(GOOD, 0)


def test_every_row_is_in_the_file_as_soon_as_it_is_written(file: Path) -> None:
    with RecordingWriter(file) as recording:
        for row in range(3):
            recording.write(row, GOOD)
            assert file.read_bytes().count(b"\n") == row + 2


FULL_DISK = """
import resource, signal, sys
from hardware.recording import RecordingError, RecordingWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    with RecordingWriter(sys.argv[1]) as recording:
        for row in range(100):
            recording.write(row, [100.5] * 12)
except RecordingError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_full_disk_leaves_whole_rows_and_an_error(file: Path) -> None:
    """A limit on the size of files causes the same short write as a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1, done.stderr
    assert "no space left" in done.stdout
    assert file.read_bytes().endswith(b"\n")
    rows = read_recording(file)
    assert 0 < len(rows) < 100
    assert rows.counts.damaged == 0


# The published data


@pytest.mark.data
def test_every_published_recording_is_read_without_damage(smellnet: Path) -> None:
    files = [
        *sorted(smellnet.glob("base/*/*.csv"))[::10],
        *sorted(smellnet.glob("mixture/*.csv"))[::40],
    ]
    assert len(files) > 40
    for path in files:
        recording = read_recording(path)
        assert recording.counts.damaged == recording.counts.text == 0
        expected_hz = 10.0 if path.parent.name == "mixture" else 1.0
        assert recording.nominal_rate_hz == expected_hz
        assert (recording.quality[:, :4] == Quality.OK).mean() > 0.99


def written(path: Path, rows: int, first_ms: int = 0) -> bytes:
    """Write a recording of seeded rows; return the file's bytes."""
    rng = np.random.default_rng(7)
    with RecordingWriter(path) as recording:
        for row in range(rows):
            recording.write(first_ms + row * 1000, rng.integers(100, 900, 12) / 4)
    return path.read_bytes()


def test_a_recording_that_ends_at_any_byte_loses_only_its_last_line(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.csv", 4)
    expected = read_recording(tmp_path / "whole.csv").values
    torn = tmp_path / "torn.csv"
    header_end = whole.index(b"\n") + 1
    for cut in range(whole.index(b"\n", header_end) + 1, len(whole)):
        torn.write_bytes(whole[:cut])
        recording = read_recording(torn)
        rows = whole[header_end:cut].count(b"\n")
        np.testing.assert_array_equal(recording.values, expected[:rows])
        assert recording.torn is (whole[cut - 1 : cut] != b"\n")
        assert whole_lines_bytes(torn) == whole[:cut].rindex(b"\n") + 1


def test_a_foreign_recording_may_end_without_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "spreadsheet.csv"
    path.write_bytes(b"NO2,C2H5OH,VOC,CO\n1,2,3,4\n5,6,7,8")
    recording = read_recording(path)
    assert recording.values[:, 0].tolist() == [1, 5]
    assert not recording.torn


def test_a_compressed_recording_equals_the_plain_one(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.csv", tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(written(plain, 50)))
    np.testing.assert_array_equal(read_recording(packed).values, read_recording(plain).values)


def test_a_damaged_compressed_recording_is_named(tmp_path: Path) -> None:
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(written(tmp_path / "plain.csv", 50))[:-20])
    with pytest.raises(RecordingError, match=r"compressed recording at .*packed.csv.gz.*damaged"):
        read_recording(packed)


def test_segments_read_together_are_the_recording_that_was_cut(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    written(first, 5)
    written(second, 5, first_ms=5000)
    joined = read_recordings([first, second])
    assert joined.timestamp_ms is not None
    assert joined.timestamp_ms.tolist() == list(range(0, 10_000, 1000))
    assert joined.frame_seq.tolist() == list(range(10))
    assert not joined.restarted.any()


def test_a_recording_that_cannot_begin_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "never.csv"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(RecordingError, match="failed"), RecordingWriter(path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
