"""Simulator: the firmware of a simulated board: its counter, clock and dialect, and its faults.

May import the line protocol, faults and numpy. Pure but for its random generator: board time and
readings in, bytes out.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, UINT32_INFINITY, channel_index
from hardware.encoding import (
    UPSTREAM_LABELS,
    encode_csv,
    encode_csv_header,
    encode_labelled,
    encode_scent,
)
from hardware.simulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_UINT32 = 1 << 32
_CLOCK_JUMP_MS = 3_600_000
_WRAP_AHEAD_MS = 1_500
"""A wrapping clock is set this long before 2**32, so that the wrap soon follows."""
_DROP_SHARE = 0.02
"""One byte in fifty is lost: most lines of 90 bytes are damaged, some stay intact."""
_GARBAGE_BYTES = 64
_HEADER_EVERY_ROWS = 10
"""Upstream firmware repeats its header every few seconds."""
_BANNER = b"test\r\nSetting up sensors...\r\n"
_UPSTREAM_HEADER = ("timestamp," + ",".join(UPSTREAM_LABELS) + "\r\n").encode()

_FROZEN_BME680 = {
    channel_index("Temperature"): 33.59,
    channel_index("Pressure"): 688.6,
    channel_index("Humidity"): 100.0,
    channel_index("Gas_Resistance"): 0.0,
    channel_index("Altitude"): 3170.54,
}
"""The row that a hung BME680 repeats for ever, as in the published recordings."""


class Dialect(Enum):
    """Dialect of the line protocol."""

    SCENT = "scent"
    LABELLED = "labelled"
    CSV = "csv"


class SimulatedFirmware:
    """Encodes readings as a board does.

    Parameters
    ----------
    dialect: of its lines.
    rng: for garbage and lost bytes.
    """

    def __init__(self, dialect: Dialect, rng: np.random.Generator) -> None:
        self._dialect = dialect
        self._rng = rng
        self._stuck: dict[int, np.float32] = {}
        self.boot(0.0)

    def boot(self, now_s: float) -> None:
        """Restart: counter and clock at zero, the banner before the next line."""
        self._booted_s = now_s
        self._clock_offset_ms = 0
        self._frame_seq = 0
        self._banner_sent = False

    @property
    def frame_seq(self) -> int:
        """Number of the next reading since the start."""
        return self._frame_seq

    def set_clock(self, kind: FaultKind, now_s: float) -> None:
        """Let the clock jump ahead, or set it just before its wrap."""
        if kind is FaultKind.CLOCK_WRAP:
            self._clock_offset_ms = 0
            self._clock_offset_ms = _UINT32 - _WRAP_AHEAD_MS - self._device_ms(now_s)
        else:
            self._clock_offset_ms += _CLOCK_JUMP_MS

    def encode(self, values: NDArray[np.float32], now_s: float, faults: Sequence[Fault]) -> bytes:
        """Return the bytes of one reading with the effects of the active faults."""
        line = self._before_line() + self._line(
            self._with_faults(values, faults), self._device_ms(now_s)
        )
        self._frame_seq = (self._frame_seq + 1) % _UINT32
        for fault in faults:
            line = self._damaged(line, fault.kind)
        return line

    def _device_ms(self, now_s: float) -> int:
        return (round((now_s - self._booted_s) * 1000) + self._clock_offset_ms) % _UINT32

    def _line(self, values: NDArray[np.float32], device_ms: int) -> bytes:
        if self._dialect is Dialect.SCENT:
            return encode_scent(self._frame_seq, device_ms, values)
        if self._dialect is Dialect.LABELLED:
            return encode_labelled(values)
        return encode_csv(values, device_ms)

    def _before_line(self) -> bytes:
        """Return the banner after a restart, and the headers of the dialect."""
        before = b"" if self._banner_sent else _BANNER
        if self._dialect is Dialect.CSV and not self._banner_sent:
            before += encode_csv_header()
        if self._dialect is Dialect.LABELLED and self._frame_seq % _HEADER_EVERY_ROWS == 0:
            before += b"\r\n" + _UPSTREAM_HEADER
        self._banner_sent = True
        return before

    def _with_faults(
        self, values: NDArray[np.float32], faults: Sequence[Fault]
    ) -> NDArray[np.float32]:
        changed = values.copy()
        stuck: dict[int, np.float32] = {}
        for fault in faults:
            channel = fault.channel
            if fault.kind is FaultKind.FREEZE:
                changed[list(_FROZEN_BME680)] = list(_FROZEN_BME680.values())
            elif channel is not None:
                if fault.kind is FaultKind.STUCK:
                    stuck[channel] = self._stuck.get(channel, values[channel])
                changed[channel] = stuck.get(channel, _wrong_number(fault.kind, channel))
        self._stuck = stuck
        return changed

    def _damaged(self, line: bytes, kind: FaultKind) -> bytes:
        if kind is FaultKind.GARBAGE:
            return self._rng.bytes(_GARBAGE_BYTES) + line
        if kind is FaultKind.DROP:
            kept = self._rng.random(len(line)) >= _DROP_SHARE
            return bytes(byte for byte, keep in zip(line, kept, strict=True) if keep)
        if kind is FaultKind.TRUNCATE:
            # Another fault may have left a line of one byte.
            return line[: int(self._rng.integers(1, max(2, len(line) - 1)))]
        return line


def _wrong_number(kind: FaultKind, channel: int) -> float:
    """Return a channel's number under a fault that replaces it."""
    if kind is FaultKind.SATURATE:
        saturates_at = CHANNELS[channel].saturates_at
        return CHANNELS[channel].high if saturates_at is None else saturates_at
    return {FaultKind.INF: np.inf, FaultKind.UINT32: UINT32_INFINITY}.get(kind, np.nan)
