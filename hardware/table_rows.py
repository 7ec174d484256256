"""Ground floor: the rows of a table, under the header that names their columns.

May import columns, cells and the column of the time. Pure and incremental. One damaged line, be it
a row or a repeated header, never changes what later rows mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from hardware.cells import Comma, cell_text, parse_cell, proved_comma, split_fields
from hardware.channels import CHANNEL_NAMES, CHANNELS, GROVE_INDICES, N_CHANNELS, channel_index
from hardware.clock import Clock, ClockReader, stated_clock, time_unit
from hardware.columns import (
    Columns,
    ColumnSource,
    HeaderProblem,
    find_columns,
    heading_names,
)
from hardware.readings import parse_number, parse_numbers
from hardware.units import AS_SENT, cell_scale, heading_scale

if TYPE_CHECKING:
    from collections.abc import Mapping

DELIMITERS = (b",", b";", b"\t", b"|", b" ")
_SIMILAR = 0.85
"""Likeness of a damaged header to the one in force, as a share of equal characters."""
_PRESSURE, _HUMIDITY, _TEMPERATURE = map(channel_index, ("Pressure", "Humidity", "Temperature"))

ColumnFinder = Callable[[tuple[str, ...]], Columns | HeaderProblem]


@dataclass(frozen=True, slots=True)
class Row:
    """Twelve numbers in the channel table's order, NaN where missing, and the time of the row."""

    numbers: list[float]
    time_ms: int | None


class RowReader:
    """Reads the lines of a table: headers and rows.

    Parameters
    ----------
    find: what columns mean; by default the channel table's names.
    clocks: by header, the clock that a file's values show; None for a live board, whose header
        alone counts: a time without a stated unit is not used then.
    samples: if given, collects the first texts of the time by header, to infer clocks from.

    Attributes
    ----------
    columns: of the header in force, None before any.
    problem: why rows are refused, as a clause; None while nothing was.
    """

    SAMPLES = 600

    def __init__(
        self,
        find: ColumnFinder = find_columns,
        clocks: Mapping[Columns, Clock | None] | None = None,
        samples: dict[Columns, list[str]] | None = None,
    ) -> None:
        self._find = find
        self._clocks = clocks
        self._samples = samples
        self.columns: Columns | None = None
        self.problem: str | None = None
        self._problem_names = 0
        self._blocked = self._headerless = False
        self._delimiter = b","
        self._comma = Comma.UNKNOWN
        self._clock: ClockReader | None = None
        self._rows_have_clock = False
        self._similar: tuple[Columns, bytes] | None = None
        self._similar_rows = 0

    # Headers

    def read_header(self, line: bytes) -> bool:
        """Read a line that names columns; return whether it was an understood one."""
        found = self._header_of(line)
        if found is None:
            return False
        result, delimiter = found
        if isinstance(result, HeaderProblem):
            self._refuse_header(result)
            return False
        if result == self.columns and not self._blocked:
            return True
        if self.columns is not None and not self._blocked and self._is_damaged_repeat(result):
            self._similar, self._similar_rows = (result, delimiter), 0
            return True
        self._use(result, delimiter)
        return True

    def _header_of(self, line: bytes) -> tuple[Columns | HeaderProblem, bytes] | None:
        """Return what the line says as a header, by the delimiter that explains most of it."""
        best: tuple[Columns, bytes] | None = None
        problem: tuple[HeaderProblem, bytes] | None = None
        for delimiter in DELIMITERS:
            if delimiter == b" " and (best or problem):
                break
            fields = [cell_text(field) for field in split_fields(line, delimiter)]
            names = heading_names(fields) if fields else None
            if names is None:
                continue
            result = self._find(names)
            if isinstance(result, Columns):
                if best is None or len(result.sources) > len(best[0].sources):
                    best = (result, delimiter)
            elif problem is None or len(names) > len(problem[0].names):
                problem = (result, delimiter)
        return best or problem

    def _refuse_header(self, problem: HeaderProblem) -> None:
        now = self.columns
        if now is not None and not self._blocked and self._read_units(now, problem.names):
            return
        if now is not None and len(set(problem.names)) < len(problem.names):
            return  # words below a header: "error,error,error"
        text = f"the header {_shortened(problem.names)} cannot be used: {problem.reason}"
        if not problem.certain and (now is None or len(problem.names) != len(now.names)):
            if now is None and not self._blocked and len(problem.names) > self._problem_names:
                self.problem, self._problem_names = text, len(problem.names)
            return
        if now is not None and not self._blocked and _resemble(now.names, problem.names):
            return  # a repeated header, damaged
        self._blocked = True
        self.problem = text

    def _read_units(self, now: Columns, names: tuple[str, ...]) -> bool:
        """Take a row of units below a header into its columns; return whether it was one."""
        padded = (*names, *[""] * (len(now.names) - len(names)))
        if len(padded) != len(now.names) or any(source.unit for source in now.sources):
            return False
        scales = [heading_scale(source.channel, padded[source.field]) for source in now.sources]
        stated = [padded[source.field] for source in now.sources]
        if None in scales or not all(stated):
            return False
        sources = tuple(
            replace(source, scale=scale, unit=unit if scale != AS_SENT else "")
            for source, scale, unit in zip(now.sources, scales, stated, strict=True)
            if scale is not None
        )
        clock = now.clock
        unit = time_unit(padded[now.clock_fields[0]]) if now.clock_fields else None
        if clock is None and unit is not None:
            clock = stated_clock(unit)
        self._use(replace(now, sources=sources, clock=clock), self._delimiter)
        return True

    def _is_damaged_repeat(self, new: Columns) -> bool:
        now = self.columns
        if now is None or len(new.sources) >= len(now.sources):
            return False
        return _resemble(now.names, new.names)

    def _use(self, columns: Columns, delimiter: bytes) -> None:
        self.columns, self._delimiter = columns, delimiter
        self._blocked = self._rows_have_clock = False
        self._similar = None
        self.problem = None
        self._comma = Comma.UNKNOWN if delimiter == b"," else Comma.LIKELY
        clock = columns.clock
        if self._clocks is not None and columns in self._clocks:
            clock = self._clocks[columns]
        self._clock = None if clock is None or not columns.clock_fields else ClockReader(clock)

    # Rows

    def read(self, line: bytes) -> Row | None:
        """Return the reading of a row, None where the line is none."""
        if self._blocked:
            return None
        if self.columns is None:
            return self._row_without_header(line)
        fields = split_fields(line, self._delimiter)
        columns = self.columns
        extra = len(fields) - len(columns.names)
        if extra > 0 and not any(field.strip(b' \t"') for field in fields[-extra:]):
            del fields[-extra:]
            extra = 0
        if extra == 0:
            row = self._row(fields, columns, self._clock)
            self._rows_have_clock |= row is not None
            return row
        if extra == -1 and columns.rows_may_lack_clock and not self._rows_have_clock:
            row = self._row(fields, columns.without_clock(), None)
            return row if row is not None and _plausible(row.numbers) else None
        self._note_misfit(len(fields), len(columns.names))
        return self._row_of_similar(line)

    def lose_line(self) -> None:
        """Note that a line was too long to be read. Before any header, it may have been that."""
        if self.columns is None and not self._headerless:
            self._blocked = True
            self.problem = "a line that was too long may have been the header"

    def resembles_row(self, line: bytes) -> bool:
        """Tell whether a line that is no reading was probably one: it is mostly numbers, or has
        the header's number of fields and a number among them.
        """  # noqa: D205 - one sentence
        fields = split_fields(line, self._delimiter)
        if len(fields) == 1:
            return False
        filled = [cell_text(field) for field in fields]
        numbers = sum(parse_number(text.encode()) is not None for text in filled if text)
        whole = self.columns is not None and len(fields) == len(self.columns.names)
        return 2 * numbers >= len(fields) or (whole and numbers > 0)

    def _row_without_header(self, line: bytes) -> Row | None:
        """Return twelve numbers in the channel table's order, if they can be those of the board."""
        for delimiter in (b",", b";", b"\t"):
            fields = split_fields(line, delimiter)
            if len(fields) == N_CHANNELS:
                numbers = None if b"_" in line else parse_numbers(fields)
                if numbers is None or not _plausible(numbers):
                    return None
                self._headerless = True
                return Row(numbers, None)
        return None

    def _row_of_similar(self, line: bytes) -> Row | None:
        """Return a row that fits the header which looked like a damaged repeat, once two do."""
        if self._similar is None:
            return None
        columns, delimiter = self._similar
        if len(split_fields(line, delimiter)) != len(columns.names):
            self._similar_rows = 0
            return None
        self._similar_rows += 1
        if self._similar_rows < 2:  # noqa: PLR2004 - the first may be damaged itself
            return None
        self._use(columns, delimiter)
        return self.read(line)

    def _note_misfit(self, fields: int, names: int) -> None:
        if self.problem is None:
            more = " (decimal commas in a table separated by commas?)" if fields > names else ""
            self.problem = f"a row has {fields} fields where the header names {names}{more}"

    def _row(self, fields: list[bytes], columns: Columns, clock: ClockReader | None) -> Row | None:
        numbers = self._plain_numbers(fields, columns) or self._cells(fields, columns)
        if numbers is None:
            return None
        if columns.clock_fields:
            text = fields[columns.clock_fields[0]]
            if len(columns.clock_fields) > 1:
                text = b" ".join(fields[field] for field in columns.clock_fields)
            if self._samples is not None:
                self._sample(self._samples, columns, text)
            if clock is not None:
                return self._timed(numbers, text, clock)
        return Row(numbers, None)

    def _sample(self, samples: dict[Columns, list[str]], columns: Columns, text: bytes) -> None:
        texts = samples.setdefault(columns, [])
        if len(texts) < self.SAMPLES:
            texts.append(cell_text(text))

    def _timed(self, numbers: list[float], text: bytes, clock: ClockReader) -> Row | None:
        time_ms = clock.read(text, self._comma)
        if clock.distrusted:
            return Row(numbers, None)
        if time_ms is None:
            if self.problem is None:
                self.problem = f"a row's time is {cell_text(text)[:40]!r}"
            return None
        return Row(numbers, round(time_ms))

    def _plain_numbers(self, fields: list[bytes], columns: Columns) -> list[float] | None:
        """Return the numbers of a row without peculiarities, None for any other row."""
        if self._comma is Comma.DECIMAL or columns.repeated:
            return None
        taken = columns.take(fields)
        try:
            found = list(map(float, taken))
        except ValueError:
            try:
                found = [float(field) if field else math.nan for field in taken]
            except ValueError:
                return None
        if b"_" in b"".join(taken):
            return None  # Python reads '1_000', which only a damaged line contains
        if columns.is_whole_table:
            return found
        numbers = [math.nan] * N_CHANNELS
        for source, number in zip(columns.sources, found, strict=True):
            numbers[source.channel] = source.scale.apply(number)
        return numbers

    def _cells(self, fields: list[bytes], columns: Columns) -> list[float] | None:
        """Return the numbers of a row with missing words, units, quotes or decimal commas."""
        for source in columns.sources:
            proof = proved_comma(fields[source.field])
            if proof is not None:
                self._comma = proof
        # A sensor that failed may have "error" for a number; a damaged header has no numbers.
        texts = [cell_text(field) for field in columns.take(fields)]
        digits = sum(any(map(str.isdigit, text)) for text in texts)
        words = 2 * digits >= sum(text != "" for text in texts)
        numbers = [math.nan] * N_CHANNELS
        for source in columns.sources:
            number = self._cell(fields[source.field], source, words=words)
            if number is None:
                return None
            numbers[source.channel] = number
        for source in columns.repeated:
            number = self._cell(fields[source.field], source, words=words)
            first = numbers[source.channel]
            if number is None or not (number == first or math.isnan(number)):
                if number is not None and math.isnan(first):
                    numbers[source.channel] = number
                    continue
                self.problem = (
                    f"{CHANNEL_NAMES[source.channel]} comes in two columns whose values differ"
                )
                return None
        return numbers

    def _cell(self, field: bytes, source: ColumnSource, *, words: bool) -> float | None:
        """Return a cell's number; with `words`, text without a digit is a missing value."""
        cell = parse_cell(field, self._comma)
        if cell is None and words and not any(map(str.isdigit, cell_text(field))):
            return math.nan
        if cell is None:
            self._note_cell(field, source)
            return None
        if not cell.unit:
            return source.scale.apply(cell.number)
        scale = cell_scale(source.channel, source.unit, cell.unit)
        if scale is None:
            self._note_cell(field, source)
            return None
        return scale.apply(cell.number)

    def _note_cell(self, field: bytes, source: ColumnSource) -> None:
        if self.problem is None:
            self.problem = (
                f"a row holds {cell_text(field)[:40]!r} for {CHANNEL_NAMES[source.channel]}, which "
                f"is no number in {CHANNELS[source.channel].unit}"
            )


def _resemble(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    first, second = ",".join(names).casefold(), ",".join(others).casefold()
    return SequenceMatcher(None, first, second, autojunk=False).ratio() >= _SIMILAR


def _plausible(numbers: list[float]) -> bool:
    """Tell whether twelve numbers can be the channel table's, for rows whose columns nobody names.

    Start-up garbage and a hung BME680 are; another instrument's columns, or a shifted row, rarely.
    """
    pressure = numbers[_PRESSURE]
    environment = (
        (math.isnan(pressure) or pressure == 0 or _within(_PRESSURE, pressure))
        and (math.isnan(numbers[_HUMIDITY]) or _within(_HUMIDITY, numbers[_HUMIDITY]))
        and (math.isnan(numbers[_TEMPERATURE]) or _within(_TEMPERATURE, numbers[_TEMPERATURE]))
    )
    grove = [numbers[index] for index in GROVE_INDICES]
    return environment and all(
        math.isnan(count) or math.isinf(count) or 0 <= count <= 1023  # noqa: PLR2004 - full scale
        for count in grove
    )


def _within(channel: int, value: float) -> bool:
    return CHANNELS[channel].low <= value <= CHANNELS[channel].high


def _shortened(names: tuple[str, ...]) -> str:
    text = ",".join(names)
    return repr(text if len(text) <= 120 else f"{text[:117]}...")  # noqa: PLR2004 - one line
