"""Ground floor: the first sheet of an .xlsx workbook, as lines of a table separated by tabs.

May import the standard library alone. Reads the sheet in pieces; the shared texts are held in
memory, up to a limit. ECMA-376 part 1, section 18.3, describes the XML.
"""

from __future__ import annotations

import re
import zipfile
from typing import IO, TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator

_RELATION_ID = re.compile(r"\{.*relationships\}id")
_MAX_TEXTS_BYTES = 64 << 20
"""Unpacked size of the shared texts: a week of readings with a note in each has a tenth of it."""
_COLUMN = re.compile(r"[A-Z]{1,3}")
_MAX_COLUMNS = 4096


class WorkbookError(Exception):
    """The workbook cannot be read; the text is a clause that says why."""


class Workbook:
    """An .xlsx file that is open for reading.

    Attributes
    ----------
    sheets: names of its sheets in their order.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(stream)
            self._paths = self._sheet_paths()
            self._texts = self._shared_texts()
        except (zipfile.BadZipFile, KeyError, ET.ParseError, OSError, RuntimeError) as error:
            raise WorkbookError(f"its workbook is damaged ({error})") from error
        if not self._paths:
            raise WorkbookError("its workbook has no sheet")
        self.sheets = tuple(name for name, _ in self._paths)

    def lines(self) -> Iterator[bytes]:
        """Yield the rows of the first sheet, UTF-8, each ended by a newline.

        Raises
        ------
        WorkbookError: the sheet is damaged.
        """
        try:
            with self._zip.open(self._paths[0][1]) as sheet:
                for element in _elements(sheet, "row"):
                    yield self._line(element)
        except (zipfile.BadZipFile, KeyError, ET.ParseError, OSError, EOFError) as error:
            raise WorkbookError(f"its workbook is damaged ({error})") from error

    def _line(self, row: ET.Element) -> bytes:
        cells: list[str] = []
        for cell in row:
            match = _COLUMN.match(cell.get("r", ""))
            column = len(cells) if match is None else _column_number(match[0])
            if len(cells) <= column < _MAX_COLUMNS:
                cells += [""] * (column - len(cells)) + [self._text(cell)]
        return ("\t".join(map(_quoted, cells)) + "\n").encode("utf-8", "replace")

    def _text(self, cell: ET.Element) -> str:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return "".join(part.text or "" for part in cell.iter() if _name(part) == "t")
        value = next((part.text or "" for part in cell if _name(part) == "v"), "")
        if kind == "s":
            number = int(value) if value.isdigit() else -1
            return self._texts[number] if 0 <= number < len(self._texts) else ""
        return value

    def _shared_texts(self) -> list[str]:
        name = "xl/sharedStrings.xml"
        if name not in self._zip.namelist():
            return []
        if self._zip.getinfo(name).file_size > _MAX_TEXTS_BYTES:
            raise WorkbookError("its workbook holds more text than a recording has")
        with self._zip.open(name) as stream:
            return [
                "".join(part.text or "" for part in item.iter() if _name(part) == "t")
                for item in _elements(stream, "si")
            ]

    def _sheet_paths(self) -> list[tuple[str, str]]:
        """Return names and paths of the sheets in the order of the workbook."""
        with self._zip.open("xl/_rels/workbook.xml.rels") as stream:
            targets = {
                item.get("Id"): item.get("Target", "") for item in _elements(stream, "Relationship")
            }
        found = []
        with self._zip.open("xl/workbook.xml") as stream:
            for sheet in _elements(stream, "sheet"):
                key = next((v for k, v in sheet.items() if _RELATION_ID.fullmatch(k)), None)
                target = targets.get(key, "").removeprefix("/").removeprefix("xl/")
                if f"xl/{target}" in self._zip.namelist():
                    found.append((sheet.get("name", target), f"xl/{target}"))
        return found


def is_workbook(stream: IO[bytes]) -> bool:
    """Tell whether a ZIP file is an .xlsx workbook."""
    try:
        return "xl/workbook.xml" in zipfile.ZipFile(stream).namelist()
    except (zipfile.BadZipFile, OSError, RuntimeError):
        return False


def _elements(stream: IO[bytes], name: str) -> Iterator[ET.Element]:
    """Yield the elements of a name and forget each afterwards.

    The parser is expat, which loads nothing from outside and limits the growth of entities.
    """
    parents: list[ET.Element] = []
    for event, element in ET.iterparse(stream, events=("start", "end")):  # noqa: S314
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if _name(element) == name:
            yield element
            if parents:
                parents[-1].remove(element)  # else a day of rows stays in memory


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _column_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _quoted(text: str) -> str:
    text = " ".join(text.split())  # a heading may have two lines
    return f'"{text.replace(chr(34), chr(39))}"' if '"' in text else text
