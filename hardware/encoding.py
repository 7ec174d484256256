"""Ground floor: the encoder of all three dialects of the board's lines.

May import the channel table, the CRC and numpy's types. Pure. A board encodes with
`hardware/firmware/scentboard/scent_line.h`, which writes the same bytes.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES, MQ_INDICES, N_CHANNELS
from hardware.columns import TIMESTAMP_MS_COLUMN
from hardware.crc import crc16
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LATEST_VERSION = 2

_UINT32 = 1 << 32
_ONE_FLOAT = struct.Struct("=f")


def format_number(value: float) -> str:
    """Return the shortest decimal that reads back as the same float32; integers without '.0'.

    As in `scent_line.h`: whole numbers below 1e10 in full, others with the fewest of 6 to 9
    significant digits. NaN is an empty string (absent), infinity 'inf' or '-inf'.
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    value = _as_float32(value)
    if value.is_integer() and abs(value) < 1e10:  # noqa: PLR2004 - stated in the docstring
        return f"{value:.0f}"
    for digits in (6, 7, 8):
        text = f"{value:.{digits}g}"
        if _as_float32(float(text)) == value:
            return text
    return f"{value:.9g}"


def _as_float32(value: float) -> float:
    try:
        (rounded,) = _ONE_FLOAT.unpack(_ONE_FLOAT.pack(value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def encode_scent(
    frame_seq: int,
    device_ms: int,
    values: Sequence[float] | NDArray[np.float32],
    *,
    version: int = 1,
    mq_volts: Sequence[float] | None = None,
) -> bytes:
    r"""Return one line of our own dialect, newline included.

    Parameters
    ----------
    frame_seq, device_ms: counters of the board; both wrap at 2**32.
    values: 12 numbers in the channel table's order and units; NaN becomes an empty field.
    version: 1, or 2 to append the volts at the MQ parts' pins.
    mq_volts: three voltages (MQ-135, MQ-9, MQ-3) for version 2; absent ones are NaN.

    Raises
    ------
    UsageError
        Wrong number of values or volts, or a version that does not exist.

    Examples
    --------
    >>> absent = float("nan")
    >>> encode_scent(7, 700, [216, 305, 494, 830, 2, 38, absent, 25.5, 1022.75, 28, 69.5, -48])
    b'$SCENT,1,7,700,216,305,494,830,2,38,,25.5,1022.75,28,69.5,-48*98FC\n'
    """
    if version not in (1, LATEST_VERSION):
        raise UsageError(
            f"The line protocol has versions 1 to {LATEST_VERSION}, not {version}; "
            "see docs/serial-protocol.md."
        )
    fields = _formatted(values)
    if version == LATEST_VERSION:
        volts = [math.nan] * len(MQ_INDICES) if mq_volts is None else list(mq_volts)
        if len(volts) != len(MQ_INDICES):
            raise UsageError(
                f"A version 2 line carries {len(MQ_INDICES)} MQ voltages, got {len(volts)}."
            )
        fields += [format_number(volt) for volt in volts]
    elif mq_volts is not None:
        raise UsageError("A version 1 line has no room for MQ voltages; encode version 2.")
    head = f"SCENT,{version},{frame_seq % _UINT32},{device_ms % _UINT32},"
    body = (head + ",".join(fields)).encode()
    return b"$%s*%04X\n" % (body, crc16(body))


UPSTREAM_LABELS: tuple[str, ...] = tuple(
    {"C2H5OH": "C2H50H", "Gas_Resistance": "BME Gas Resistance (VOC)"}.get(name, name)
    for name in CHANNEL_NAMES
)
"""The channel names as the upstream firmware prints them."""


def encode_labelled(values: Sequence[float] | NDArray[np.float32]) -> bytes:
    """Return one line of the upstream dialect, in its spelling and with its line end."""
    pairs = (
        f"{label}:{text or 'nan'}"
        for label, text in zip(UPSTREAM_LABELS, _formatted(values), strict=True)
    )
    return (",".join(pairs) + "\r\n").encode()


def encode_csv_header(timestamps: bool = True) -> bytes:
    """Return the header line of a recording, with or without its `timestamp_ms` column."""
    names = (TIMESTAMP_MS_COLUMN, *CHANNEL_NAMES) if timestamps else CHANNEL_NAMES
    return (",".join(names) + "\n").encode()


def encode_csv(
    values: Sequence[float] | NDArray[np.float32], timestamp_ms: int | None = None
) -> bytes:
    """Return one row of a recording; absent values are empty, infinity is 'inf'."""
    fields = _formatted(values)
    if timestamp_ms is not None:
        fields.insert(0, str(timestamp_ms))
    return (",".join(fields) + "\n").encode()


def _formatted(values: Sequence[float] | NDArray[np.float32]) -> list[str]:
    if len(values) != N_CHANNELS:
        raise UsageError(
            f"A line carries {N_CHANNELS} values in the channel table's order, got {len(values)}; "
            "use NaN for a channel that is absent."
        )
    return [format_number(float(value)) for value in values]
