"""Ground floor: one reading of the board, as a frozen value.

May import the channel table and numpy. Must know nothing of bytes, ports or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Quality(IntEnum):
    """Quality of a channel's number: the decoder sets the first four, channel health the others."""

    OK = 0
    MISSING = 1
    OUT_OF_RANGE = 2
    SATURATED = 3
    STUCK = 4
    SPIKE = 5


@dataclass(frozen=True, slots=True, eq=False)
class SensorFrame:
    """One decoded line of the board.

    Attributes
    ----------
    frame_seq: the board's own sequence number in our dialect, else the decoder's count from 0.
    device_ms: the board's clock (or the recording's timestamp) in milliseconds, None without one.
    values: float32[12] in the channel table's order, exactly as sent; NaN where absent,
        infinite where the board sent infinity. Read-only.
    quality: uint8[12] of `Quality`; only channels marked OK may be used. Read-only.
    lost_before: frames known to be lost just before this one, None where the dialect cannot tell.
    restarted: the board's sequence started anew, so nothing continues from before this frame.
    mq_volts: volts at the three MQ parts' pins in the channel table's order, NaN where absent;
        None where the line lacks them (only version 2 of our own dialect has them).
    """

    frame_seq: int
    device_ms: int | None
    values: NDArray[np.float32]
    quality: NDArray[np.uint8]
    lost_before: int | None = None
    restarted: bool = False
    mq_volts: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name, array, dtype in (
            ("values", self.values, np.float32),
            ("quality", self.quality, np.uint8),
        ):
            if array.shape != (N_CHANNELS,) or array.dtype != dtype:
                raise ValueError(
                    f"SensorFrame.{name} must be {np.dtype(dtype)}[{N_CHANNELS}], "
                    f"got {array.dtype}{list(array.shape)}"
                )
            array.flags.writeable = False
