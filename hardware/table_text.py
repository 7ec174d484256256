"""Ground floor: the bytes of a recording's file as UTF-8 lines, whatever the file is packed in.

May import the reader of workbooks and the standard library. Looks at a file's first bytes, never at
its name: gzip, bzip2, xz, a ZIP with one file, an .xlsx workbook, UTF-16 and UTF-32 are unpacked;
what holds no table is named for what it is.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from hardware.errors import ScentdError
from hardware.workbook import Workbook, WorkbookError, is_workbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECE_BYTES = 1 << 16
_HEAD_BYTES = 512
_MAX_QUOTED_LINES = 8
_ZIP = b"PK\x03\x04"
_PACKED: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_NAMED = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of Excel 97 (.xls); save it as .xlsx or CSV"),
    (b"PAR1", "a Parquet table; export it as CSV"),
    (b"\x89HDF", "an HDF5 file; export its table as CSV"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as CSV"),
    (b"\x93NUMPY", "a NumPy array; export it as CSV with the names of its columns"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"%PDF", "a PDF document; export the readings as CSV"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"\x7fELF", "a program"),
)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile)


class TextError(ScentdError):
    """A file holds no text, or cannot be unpacked; the message says what it is."""


def text_pieces(
    path: Path, stream: IO[bytes] | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[bytes]:
    """Yield a file's text in UTF-8, or in the encoding of one byte a character that it has.

    Parameters
    ----------
    path: of the file, for messages, and to open it.
    stream: the open file, where the path cannot be opened again.
    say: gets a clause where only a part of the file is read.

    Raises
    ------
    TextError: it cannot be read or unpacked, or it is no text at all.
    """
    with ExitStack() as stack:
        try:
            if stream is None:
                stream = stack.enter_context(path.open("rb"))
            stream.seek(0)
            yield from _logical_lines(_unpacked(stream, path, say))
        except _UNPACKING as error:
            raise TextError(
                f"Expected a compressed recording at {path}, but it is damaged ({error}). Copy it "
                "again from where it came, or use the recording beside it."
            ) from error
        except WorkbookError as error:
            raise TextError(
                f"{path} cannot be read: {error}. Save it again, or export the sheet as CSV."
            ) from error
        except OSError as error:
            raise TextError(
                f"Expected a recording at {path}, but it cannot be read "
                f"({error.strerror or error}). Check the path and its permissions."
            ) from error


def _unpacked(
    stream: IO[bytes], path: Path, say: Callable[[str], None], depth: int = 0
) -> Iterator[bytes]:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    kind = next((kind for magic, kind in _PACKED if head.startswith(magic)), None)
    if kind is not None and depth < 2:  # noqa: PLR2004 - a workbook may be compressed once more
        with _opened(stream, kind) as unpacked:
            yield from _unpacked(unpacked, path, say, depth + 1)
        return
    if head.startswith(_ZIP):
        yield from _of_zip(stream, path, say)
        return
    what = next((what for magic, what in _NAMED if head.startswith(magic)), None)
    if what is not None:
        raise TextError(f"Expected a recording at {path}, but it is {what}.")
    encoding = _encoding(head)
    pieces = iter(lambda: stream.read(PIECE_BYTES), b"")
    yield from pieces if encoding is None else _recoded(pieces, encoding)


def _opened(stream: IO[bytes], kind: str) -> BinaryIO:
    packed = cast("BinaryIO", stream)
    if kind == "gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=packed))
    return cast("BinaryIO", bz2.BZ2File(packed) if kind == "bz2" else lzma.LZMAFile(packed))


def _of_zip(stream: IO[bytes], path: Path, say: Callable[[str], None]) -> Iterator[bytes]:
    if is_workbook(stream):
        stream.seek(0)
        workbook = Workbook(stream)
        if len(workbook.sheets) > 1:
            others = ", ".join(map(repr, workbook.sheets[1:]))
            say(f"sheet {workbook.sheets[0]!r} is read, {others} not")
        yield from joined_lines(workbook.lines())
        return
    stream.seek(0)
    archive = zipfile.ZipFile(stream)
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if "content.xml" in names:
        raise TextError(
            f"Expected a recording at {path}, but it is an OpenDocument spreadsheet. Save it as "
            ".xlsx or CSV."
        )
    if len(names) != 1:
        raise TextError(
            f"Expected a recording at {path}, but it is a ZIP archive of {len(names)} files. "
            "Unpack it, and name the files."
        )
    with archive.open(names[0]) as member:
        yield from _unpacked(member, path, say, depth=2)


def joined_lines(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines in pieces of some size."""
    piece = io.BytesIO()
    for line in lines:
        piece.write(line)
        if piece.tell() >= PIECE_BYTES:
            yield piece.getvalue()
            piece = io.BytesIO()
    if piece.tell():
        yield piece.getvalue()


def _encoding(head: bytes) -> str | None:
    """Return the name of an encoding with more than one byte a character, None for others."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    # Without a mark: text in ASCII has a zero in every second byte.
    pairs = len(head) // 2
    if pairs < 4:  # noqa: PLR2004 - too short to tell
        return None
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd > 0.9 * pairs and even == 0:
        return "utf-16-le"
    if even > 0.9 * pairs and odd == 0:
        return "utf-16-be"
    return None


def _recoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _logical_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces in which a newline between quotes is a blank, as a heading of two lines has."""
    pending = b""
    for piece in pieces:
        data = pending + piece
        if b'"' not in data:
            pending = b""
            yield data
            continue
        *lines, pending = data.split(b"\n")
        yield from _quotes_joined(lines)
        if len(pending) > PIECE_BYTES:
            yield pending
            pending = b""
    yield pending


def _quotes_joined(lines: list[bytes]) -> Iterator[bytes]:
    at = 0
    while at < len(lines):
        line, used = lines[at], 1
        if line.count(b'"') % 2:
            # A stray quotation mark, which none follows soon, is a character like any other.
            for more in range(1, min(_MAX_QUOTED_LINES, len(lines) - at)):
                if lines[at + more].count(b'"') % 2:
                    joined = lines[at : at + more + 1]
                    line, used = b" ".join(part.rstrip(b"\r") for part in joined), more + 1
                    break
        yield line + b"\n"
        at += used
