"""Daemon: listens to a port for some seconds, to learn what board is there.

Knows nothing of what the readings mean.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from daemon.board.diagnosis import BoardError, explain_no_reading, rejected_lines
from daemon.board.port import monotonic_ms, open_port, read_available
from hardware.channels import CHANNEL_NAMES
from hardware.counting import counted
from hardware.frames import Quality
from hardware.protocol import LineDecoder
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daemon.config.settings import SourceConfig

LISTEN_S = 45.0
"""Ten readings of the slowest board that can feed a model at 1 Hz."""

SILENT_S = 12.0
"""A board that has sent no reading until then will send none."""

ENOUGH_FRAMES = 10
"""Readings after which the rate is known and every channel should have been sent."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundBoard:
    """What a few seconds of a board's lines show.

    Attributes
    ----------
    port: that was opened.
    rate_hz: None where it is not known yet.
    channels: that were sent.
    rejected: lines that were no readings.
    values: float32[n, 12], NaN where unusable.
    """

    port: str
    dialect: str
    rate_hz: float | None
    channels: tuple[str, ...]
    rejected: int
    values: NDArray[np.float32]

    def describe(self) -> str:
        """Return the board in a sentence."""
        rate = "rate not known yet" if self.rate_hz is None else f"{self.rate_hz:.3g} Hz"
        rejected = f", {counted(self.rejected, 'line')} rejected" if self.rejected else ""
        absent = [name for name in CHANNEL_NAMES if name not in self.channels]
        missing = f", without {', '.join(absent)}" if absent else ""
        return (
            f"{self.port} speaks {self.dialect}, {rate}, {counted(len(self.channels), 'channel')}"
            f"{missing}{rejected}"
        )


def listen_to_board(source: SourceConfig, longest_s: float = LISTEN_S) -> FoundBoard:
    """Open a port and listen until the board's rate and channels are known.

    Raises
    ------
    ScentdError: the port cannot be used, or no board sends readings there.
    """
    decoder, nose = LineDecoder(), Nose([], NoseSettings(), rate_hz=source.rate_hz)
    present: set[str] = set()
    readings: list[NDArray[np.float32]] = []
    received_bytes = 0
    with open_port(source) as port:
        started_s = time.monotonic()
        while decoder.counts.frames < ENOUGH_FRAMES:
            until_s = longest_s if decoder.counts.frames else min(longest_s, SILENT_S)
            if time.monotonic() - started_s >= until_s:
                break
            data = read_available(port)
            received_bytes += len(data)
            for frame in decoder.feed(data):
                nose.process(frame, monotonic_ms())
                usable = frame.quality == Quality.OK
                readings.append(np.where(usable, frame.values, np.float32(np.nan)))
                present |= {
                    name
                    for name, quality in zip(CHANNEL_NAMES, frame.quality, strict=True)
                    if quality != Quality.MISSING
                }
        listened_s = time.monotonic() - started_s
        path = str(port.port)
    trouble = explain_no_reading(
        decoder.counts,
        received_bytes=received_bytes,
        listened_s=listened_s,
        baud=source.baud,
        problem=decoder.problem,
    )
    if trouble is not None:
        raise BoardError(trouble)
    return FoundBoard(
        port=path,
        dialect=str(decoder.dialect),
        rate_hz=nose.rate_hz,
        channels=tuple(name for name in CHANNEL_NAMES if name in present),
        rejected=sum(rejected_lines(decoder.counts).values()),
        values=np.array(readings, dtype=np.float32),
    )
