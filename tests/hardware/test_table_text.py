"""Files as lines of text: every encoding and packing gives the same recording, or its real name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES
from hardware.recording import RecordingError, read_recording
from hardware.table_text import PIECE_BYTES, TextError, text_pieces
from tests.hardware.protocol_lines import GOOD

TABLE = (
    ",".join(["time (ms)", *CHANNEL_NAMES])
    + "\n"
    + "".join(
        ",".join([str(n * 100), str(100 + n), *(f"{v:g}" for v in GOOD[1:])]) + "\n"
        for n in range(40)
    )
)


def workbook(rows: Sequence[Sequence[object]], *, shared: bool = True) -> bytes:
    """Return a minimal .xlsx; texts are shared or in their cells, empty cells are left out."""
    texts: list[str] = []
    lines = []
    for number, row in enumerate(rows, 1):
        cells = []
        for column, value in enumerate(row):
            place = f"{chr(ord('A') + column)}{number}"
            if value is None:
                continue
            if isinstance(value, (int, float)):
                cells.append(f'<c r="{place}"><v>{value!r}</v></c>')
            elif str(value).startswith("#"):
                cells.append(f'<c r="{place}" t="e"><v>{value}</v></c>')
            elif shared:
                texts.append(str(value))
                cells.append(f'<c r="{place}" t="s"><v>{len(texts) - 1}</v></c>')
            else:
                text = escape(str(value))
                cells.append(f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts = {
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets>'
        '<sheet name="Readings" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/sharedStrings.xml": f"<sst {main}>"
        + "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
        + "</sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{''.join(lines)}"
        "</sheetData></worksheet>",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return packed.getvalue()


def zipped(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


PACKINGS = {
    "plain": TABLE.encode(),
    "utf-8 with a mark": TABLE.encode("utf-8-sig"),
    "utf-16": TABLE.encode("utf-16"),
    "utf-16 without a mark": TABLE.encode("utf-16-le"),
    "utf-16 the other way": TABLE.encode("utf-16-be"),
    "utf-32": TABLE.encode("utf-32"),
    "carriage returns": TABLE.replace("\n", "\r").encode(),
    "gzip": gzip.compress(TABLE.encode()),
    "gzip of utf-16": gzip.compress(TABLE.encode("utf-16")),
    "bzip2": bz2.compress(TABLE.encode()),
    "xz": lzma.compress(TABLE.encode()),
    "zip": zipped(TABLE.encode(), "coffee.csv"),
    "xlsx": workbook([line.split(",") for line in TABLE.splitlines()]),
    "xlsx with numbers": workbook(
        [
            TABLE.splitlines()[0].split(","),
            *([float(cell) for cell in line.split(",")] for line in TABLE.splitlines()[1:]),
        ],
        shared=False,
    ),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["recording.csv", "recording.csv.gz"])
def test_a_recording_is_read_whatever_it_is_packed_in(
    tmp_path: Path, packing: str, name: str
) -> None:
    plain, packed = tmp_path / "plain.csv", tmp_path / name
    plain.write_text(TABLE)
    packed.write_bytes(PACKINGS[packing])
    expected, found = read_recording(plain), read_recording(packed)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.timestamp_ms, expected.timestamp_ms)


def test_empty_cells_errors_and_a_preamble_of_a_workbook_are_kept_in_their_columns(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sheet.xlsx"
    rows: list[list[object]] = [
        ["Recorded in the kitchen"],
        ["NO2", "C2H5OH", 'note "a"', "VOC\n(count)", "CO"],
        [1, None, "x", 3, 4],
        [1, "#DIV/0!", None, 3, 4],
    ]
    path.write_bytes(workbook(rows))
    recording = read_recording(path)
    assert recording.values[:, [0, 2, 3]].tolist() == [[1, 3, 4]] * 2
    assert np.isnan(recording.values[:, 1]).all()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "Excel 97"),
        (b"PAR1" + bytes(600), "Parquet"),
        (b"SQLite format 3\x00" + bytes(600), "SQLite"),
        (b"%PDF-1.7\n" + bytes(600), "PDF"),
        (zipped(b"x", "a.csv", "b.csv"), "ZIP archive of 2 files"),
        (zipped(b"x", "content.xml", "mimetype"), "OpenDocument"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"payload": {"interval_ms": 100}}', "--format edge-impulse"),
        (b'{"configHeader": {}}', "--format bmerawdata"),
        (workbook([["NO2"]])[:-200], "damaged"),
        (lzma.compress(TABLE.encode())[:-30], "damaged"),
    ],
)
def test_what_is_no_table_is_called_by_its_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "recording.csv"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=what):
        read_recording(path)


def test_a_heading_of_two_lines_between_quotes_is_one_heading(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text('NO2,"C2H5OH\n(count)",VOC,CO,note\n1,2,3,4,"two\nlines"\n5,6,7,8,5" pipe\n')
    assert read_recording(path).values[:, :4].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_pieces_of_a_large_file_are_its_text(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    text = "".join(f'{n},"note {n}"\n' for n in range(PIECE_BYTES // 4))
    path.write_text(text)
    assert b"".join(text_pieces(path)).decode() == text


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(["", "PK\x03\x04", "\x1f\x8b", "BZh9", "\xfd7zXZ\x00", "\xff\xfe", "\xfe\xff"]),
)
def test_any_bytes_are_text_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, magic: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.csv"
    path.write_bytes(magic.encode("latin-1") + content)
    try:
        list(text_pieces(path))
    except TextError:
        return


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 7), st.sampled_from(["xlsx", "gzip", "zip", "utf-16"]))
def test_one_changed_bit_of_a_packed_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, packing: str
) -> None:
    content = bytearray(PACKINGS[packing])
    content[(place * 7919) % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("bits") / "x.csv"
    path.write_bytes(content)
    try:
        read_recording(path)
    except RecordingError:
        return
