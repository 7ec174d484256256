"""Ground floor: foreign files that are no table, as lines of a table separated by tabs.

May import the mapping and the text of files. JSON is read whole. Chooses nothing in silence: what
was chosen is passed to `say`.

The formats: Edge Impulse, "Data acquisition format" of its documentation (`payload` with
`interval_ms`, `sensors` and `values`); BME AI-Studio, `.bmerawdata` (`rawDataBody` with
`dataColumns` and `dataBlock`; `configBody` with the heater profiles).
"""

from __future__ import annotations

import json
import math
from typing import IO, TYPE_CHECKING, Any

from hardware.table_text import TextError, joined_lines, text_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hardware.foreign.mapping import ForeignFormat

    Say = Callable[[str], None]

_BOARD_HEATER_C = 320
"""Temperature of the heater plate of the board's own BME680."""
_NO_UNIT = frozenset({"", "n/a", "na", "none", "-", "a.u.", "count", "counts"})


def json_lines(
    form: ForeignFormat, path: Path, stream: IO[bytes] | None, say: Say
) -> Iterator[bytes]:
    """Yield a JSON list of one object per reading, or one object a line, as a table.

    Raises
    ------
    TextError: it is something else.
    """
    content = _parsed(path, stream, say, lines=True)
    place = f" under {form.rows}" if form.rows else ""
    for key in (form.rows or "").split(".") if form.rows else []:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise TextError(
            f"{path} should hold a JSON list of one object per reading{place}, or one object a "
            "line. If the list lies under a key, name that by `rows` in the mapping."
        )
    rows = [_flatten(item) for item in content]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = _table(names, ([row.get(name) for name in names] for row in rows))
    yield from joined_lines(table)


def edge_impulse_lines(
    form: ForeignFormat, path: Path, stream: IO[bytes] | None, say: Say
) -> Iterator[bytes]:
    """Yield a sample of Edge Impulse, in JSON or CSV, as a table with `timestamp` in milliseconds.

    Raises
    ------
    TextError: it is something else.
    """
    del form
    first = next(iter(text_pieces(path, stream)), b"")
    if not first.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
        yield from text_pieces(path, stream, say)
        return
    content = _parsed(path, stream, say)
    payload = content.get("payload") if isinstance(content, dict) else None
    if not isinstance(payload, dict):
        raise _not_this(path, "a sample of Edge Impulse", "no `payload`")
    interval = payload.get("interval_ms")
    sensors, values = payload.get("sensors"), payload.get("values")
    if not isinstance(interval, (int, float)) or not interval > 0:
        raise _not_this(path, "a sample of Edge Impulse", f"`interval_ms` {interval!r}")
    if not isinstance(sensors, list) or not all(isinstance(item, dict) for item in sensors):
        raise _not_this(path, "a sample of Edge Impulse", "no list of `sensors`")
    if not isinstance(values, list):
        raise _not_this(path, "a sample of Edge Impulse", "no list of `values`")
    say(f"one reading every {interval:g} ms, from interval_ms")
    names = [_sensor_name(sensor) for sensor in sensors]
    rows = (
        [number * interval, *(row if isinstance(row, list) else [row])]
        for number, row in enumerate(values)
    )
    yield from joined_lines(_table(["timestamp", *names], rows))


def _sensor_name(sensor: Mapping[str, Any]) -> str:
    name, units = str(sensor.get("name", "")), str(sensor.get("units") or "").strip()
    return name if units.casefold() in _NO_UNIT else f"{name} ({units})"


def bme_lines(
    form: ForeignFormat, path: Path, stream: IO[bytes] | None, say: Say
) -> Iterator[bytes]:
    """Yield one sensor's readings at one step of its heater, as a table with `time_ms`.

    In a heater step that was read several times the last reading counts, when the plate has been
    at its temperature for longest. A reading with an error code has no gas resistance.

    Raises
    ------
    TextError: it is something else, or lacks the sensor or the step.
    """
    content = _parsed(path, stream, say)
    body = content.get("rawDataBody") if isinstance(content, dict) else None
    columns = body.get("dataColumns") if isinstance(body, dict) else None
    block = body.get("dataBlock") if isinstance(body, dict) else None
    if not isinstance(columns, list) or not isinstance(block, list):
        raise _not_this(path, "raw data of BME AI-Studio", "no rawDataBody with its dataBlock")
    keys = [str(column.get("key") if isinstance(column, dict) else column) for column in columns]
    rows: list[dict[str, Any]] = [
        dict(zip(keys, row, strict=False)) for row in block if isinstance(row, list)
    ]
    sensors = _indices(rows, "sensor_index")
    sensor = form.sensor if form.sensor is not None else next(iter(sensors), None)
    if sensor is None or sensor not in sensors:
        raise _absent(path, "sensor", sensor, sensors)
    rows = [row for row in rows if row.get("sensor_index") == sensor]
    steps = _indices(rows, "heater_profile_step_index")
    temperatures = _step_temperatures(content, sensor)
    step = form.heater_step if form.heater_step is not None else _best_step(steps, temperatures)
    if step is None or step not in steps:
        raise _absent(path, "heater_step", step, steps)
    heat = f", {temperatures[step]:g} degC" if step in temperatures else ""
    say(f"sensor {sensor} of {_listed(sensors)}; heater step {step} of {_listed(steps)}{heat}")
    chosen = _last_of_each_visit(rows, step)
    table = _table(
        ["time_ms", "temperature", "pressure", "relative_humidity", "resistance_gassensor"],
        (
            [
                time_ms,
                *(row.get(key) for key in ("temperature", "pressure", "relative_humidity")),
                None if row.get("error_code") else row.get("resistance_gassensor"),
            ]
            for time_ms, row in zip(_times(chosen), chosen, strict=True)
        ),
    )
    yield from joined_lines(table)


def _indices(rows: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    """Return the different whole numbers under a key, sorted."""
    values = (row.get(key) for row in rows)
    return sorted({value for value in values if isinstance(value, int)})


def _step_temperatures(content: Mapping[str, Any], sensor: int) -> dict[int, float]:
    """Return the temperature in degC of each step of a sensor's heater profile, if it is stated."""
    try:
        config = content["configBody"]
        profile = next(
            item["heaterProfile"]
            for item in config["sensorConfigurations"]
            if item["sensorIndex"] == sensor
        )
        vectors = next(
            item["temperatureTimeVectors"]
            for item in config["heaterProfiles"]
            if item["id"] == profile
        )
        return {step: float(vector[0]) for step, vector in enumerate(vectors)}
    except (KeyError, IndexError, TypeError, ValueError, StopIteration):
        return {}


def _best_step(steps: Sequence[int], temperatures: Mapping[int, float]) -> int | None:
    """Return the last of the steps nearest the temperature of the board's own plate."""

    def distance(step: int) -> tuple[float, int]:
        return abs(temperatures.get(step, 0.0) - _BOARD_HEATER_C), -step

    return min(steps, key=distance, default=None)


def _last_of_each_visit(rows: Sequence[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return the last row of each uninterrupted run of rows of one step."""
    at = [row.get("heater_profile_step_index") == step for row in rows]
    return [
        row
        for number, row in enumerate(rows)
        if at[number] and not (number + 1 < len(rows) and at[number + 1])
    ]


def _times(rows: Sequence[Mapping[str, Any]]) -> list[object]:
    """Return times in milliseconds: since power-on, moved to the date if the file has one."""
    first: Mapping[str, Any] = rows[0] if rows else {}
    date_s: Any = first.get("real_time_clock")
    start_ms: Any = first.get("timestamp_since_poweron")
    numbers = isinstance(date_s, (int, float)) and isinstance(start_ms, (int, float))
    offset_ms = 1000 * date_s - start_ms if numbers and date_s > 0 else 0
    times = (row.get("timestamp_since_poweron") for row in rows)
    return [time + offset_ms if isinstance(time, (int, float)) else None for time in times]


def _absent(path: Path, what: str, wanted: object, there: Sequence[int]) -> TextError:
    return TextError(
        f"{path} has no reading of {what} {wanted}; it has {_listed(there) or 'none'}. Name "
        f"another one by `{what}` in the mapping."
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _not_this(path: Path, expected: str, found: str) -> TextError:
    return TextError(
        f"{path} should be {expected}, but it has {found}. Choose another format, or leave it out."
    )


def _parsed(path: Path, stream: IO[bytes] | None, say: Say, *, lines: bool = False) -> Any:
    """Return the content of a JSON file, or of one with an object in every line as a list."""
    text = b"".join(text_pieces(path, stream, say)).decode("utf-8-sig", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = error
    rows = [line for line in text.splitlines() if line.strip()] if lines else []
    try:
        if len(rows) > 1:
            return [json.loads(row) for row in rows]
    except (ValueError, RecursionError):
        pass
    raise TextError(
        f"{path} cannot be read as JSON: {problem}. Copy it again, or leave it out."
    ) from problem


def _flatten(item: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested object with the keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in item.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    yield _line(names)
    for row in rows:
        yield _line(row)


def _line(cells: Sequence[object]) -> bytes:
    return ("\t".join(map(_cell, cells)) + "\n").encode("utf-8", "replace")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return " ".join(str(value).replace('"', "'").split())
