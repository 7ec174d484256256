"""Ground floor: from a line's fields to twelve judged numbers.

May import the channel table, frames' `Quality` and numpy. The hot path of the decoder: every
function here runs for every sample of every board. Knows nothing of dialects.
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
# As plain integers: converting an enumeration's member costs more than all the rest of judging.
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
        numbers = []
    for field in fields:
        number = parse_number(field)
        if number is None:
            return None
        numbers.append(number)
    return numbers


def parse_number(field: bytes) -> float | None:
    """Return a field as a number, NaN where it is empty, None where it is not a number."""
    try:
        number = float(field)
    except ValueError:
        field = field.strip()
        if not field:
            return math.nan
        # Arduino's Print writes 'ovf' for what does not fit its conversion: off the scale.
        return math.inf if field == b"ovf" else None
    return number


def parse_uint32(field: bytes) -> int | None:
    """Return a field of decimal digits below 2**32, else None."""
    if not field.isdigit():
        return None
    number = int(field)
    return number if number < _UINT32 else None


def range_quality(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what each channel's number is worth by itself.

    Parameters
    ----------
    values: float32[12] in the channel table's order.

    Returns
    -------
    uint8[12], read-only: OK, MISSING (NaN), SATURATED (at the channel's end of scale, or
    infinite) or OUT_OF_RANGE.
    """
    numbers = values.tolist()
    if all(map(le, _LOW, numbers)) and all(map(ge, _HIGH, numbers)):
        return _ALL_OK
    verdict = bytearray(N_CHANNELS)
    for index, number in enumerate(numbers):
        if not _LOW[index] <= number <= _HIGH[index]:
            verdict[index] = _judge_unbelievable(number, _SATURATES_AT[index])
    return np.frombuffer(bytes(verdict), np.uint8)


def _judge_unbelievable(number: float, saturates_at: float) -> int:
    if math.isnan(number):
        return _MISSING
    return _SATURATED if number >= saturates_at else _OUT_OF_RANGE
