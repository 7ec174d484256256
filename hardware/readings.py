"""Ground floor: from the fields of a line to twelve numbers and their quality.

May import the channel table, `Quality` and numpy. These functions run for every reading and are
written for speed. Must know nothing of dialects.
"""

from __future__ import annotations

import math
import struct
from operator import ge, le
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, N_CHANNELS
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LOW = tuple(channel.low for channel in CHANNELS)
_HIGH = tuple(channel.high for channel in CHANNELS)
_SATURATES_AT = tuple(
    math.inf if channel.saturates_at is None else channel.saturates_at for channel in CHANNELS
)
# As plain integers: converting members of an enumeration would take most of the time.
_MISSING, _OUT_OF_RANGE, _SATURATED = (
    int(Quality.MISSING),
    int(Quality.OUT_OF_RANGE),
    int(Quality.SATURATED),
)
_ALL_OK: NDArray[np.uint8] = np.frombuffer(bytes(N_CHANNELS), np.uint8)
_UINT32 = 1 << 32
_FLOATS = struct.Struct(f"={N_CHANNELS}f")
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def float32_row(numbers: list[float]) -> NDArray[np.float32]:
    """Return twelve numbers as a read-only float32[12]; too large a number becomes infinite."""
    try:
        packed = _FLOATS.pack(*numbers)
    except OverflowError:
        packed = _FLOATS.pack(
            *(
                math.copysign(math.inf, number) if abs(number) > _MAX_FLOAT32 else number
                for number in numbers
            )
        )
    return np.frombuffer(packed, np.float32)


def parse_numbers(fields: Sequence[bytes]) -> list[float] | None:
    """Return the fields as numbers, NaN for empty ones; None if any is not a number."""
    try:
        return list(map(float, fields))
    except ValueError:
        numbers = [parse_number(field) for field in fields]
    return None if None in numbers else [number for number in numbers if number is not None]


def parse_number(field: bytes) -> float | None:
    """Return a field as a number, NaN where it is empty, None where it is not a number."""
    try:
        return float(field)
    except ValueError:
        # Arduino's Print writes 'ovf' for a number that it cannot convert.
        return {b"": math.nan, b"ovf": math.inf}.get(field.strip())


def parse_uint32(field: bytes) -> int | None:
    """Return a field of decimal digits below 2**32, else None."""
    if not field.isdigit():
        return None
    number = int(field)
    return number if number < _UINT32 else None


def range_quality(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the quality of float32[12] by each number alone, uint8[12], read-only.

    It is OK, MISSING (NaN), SATURATED (at the channel's end of scale, or infinite) or OUT_OF_RANGE.
    """
    numbers = values.tolist()
    if all(map(le, _LOW, numbers)) and all(map(ge, _HIGH, numbers)):
        return _ALL_OK
    quality = bytearray(N_CHANNELS)
    for index, number in enumerate(numbers):
        if math.isnan(number):
            quality[index] = _MISSING
        elif not _LOW[index] <= number <= _HIGH[index]:
            saturated = number >= _SATURATES_AT[index]
            quality[index] = _SATURATED if saturated else _OUT_OF_RANGE
    return np.frombuffer(bytes(quality), np.uint8)
