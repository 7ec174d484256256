"""Rows are read one after the other, equal to those that were written, without numpy."""

from __future__ import annotations

import gzip
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.encoding import encode_csv, encode_csv_header
from hardware.recording_rows import OWN_HEADER, RowsError, read_rows, rows_between, values_of

if TYPE_CHECKING:
    from pathlib import Path

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def written(path: Path, times: range, tail: bytes = b"") -> Path:
    rows = b"".join(encode_csv([float(t)] * 12, t) for t in times)
    content = OWN_HEADER + rows + tail
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_the_header_is_that_of_the_writer() -> None:
    assert encode_csv_header(timestamps=True) == OWN_HEADER


@given(st.lists(st.one_of(st.none(), FLOATS), min_size=12, max_size=12))
def test_values_are_those_that_were_encoded(values: list[float | None]) -> None:
    line = encode_csv([float("nan") if v is None else v for v in values], 5)
    read = values_of(line)
    assert [v is None for v in read] == [v is None for v in values]
    assert encode_csv([float("nan") if v is None else v for v in read], 5) == line


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_stretch_is_read_across_segments(tmp_path: Path, suffix: str) -> None:
    paths = [
        written(tmp_path / f"a{suffix}", range(0, 1000, 100)),
        written(tmp_path / f"b{suffix}", range(1000, 2000, 100)),
    ]
    assert [t for t, _ in rows_between(paths, 900, 1100)] == [900, 1000, 1100]


def test_an_incomplete_last_row_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", range(3), b"4,1,2")
    assert [t for t, _ in read_rows(path)] == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", OWN_HEADER + b"x,1\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(RowsError):
        list(read_rows(tmp_path / "a.csv"))


def test_a_damaged_compressed_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv.gz", range(1000))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RowsError, match=r"a\.csv\.gz"):
        list(read_rows(path))


def test_numpy_is_not_imported() -> None:
    code = "import sys, hardware.recording_rows; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
