"""Daemon: what to make of a board that is silent, or talks nonsense.

Pure: counts and durations in, a paragraph for the operator out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from hardware.protocol import LineCounts

LONGEST_PERIOD_S = 10.0
"""The slowest board that is accepted sends every ten seconds."""


class BoardError(ScentdError):
    """The port is open, but no reading comes out of it."""


def rejected_lines(counts: LineCounts) -> dict[str, int]:
    """Return the lines that were no frame, by kind; empty lines and headers are no damage."""
    return {
        "text": counts.text,
        "checksum": counts.checksum,
        "malformed": counts.malformed,
        "version": counts.version,
        "overlong": counts.overlong,
        "binary": counts.binary,
    }


def explain_no_reading(
    counts: LineCounts, *, received_bytes: int, listened_s: float, baud: int
) -> str | None:
    """Return the paragraph about a board without a single frame, None if there was one.

    Parameters
    ----------
    counts : LineCounts
        What the decoder made of it.
    received_bytes : int
        How many bytes came at all.
    listened_s : float
        For how long the port was open, in seconds.
    baud : int
        The configured speed, the usual suspect.
    """
    if counts.frames:
        return None
    if received_bytes == 0:
        return (
            f"The port is open, but the board sent nothing in {listened_s:.0f} s. Check that it is "
            "powered and runs its firmware; the slowest board that is accepted sends a line every "
            f"{LONGEST_PERIOD_S:.0f} s."
        )
    if counts.version:
        return (
            f"The board speaks a newer version of the line protocol ({counts.version} lines in "
            f"{listened_s:.0f} s). Update scentd, or the board's firmware to version 1 or 2."
        )
    found = ", ".join(
        f"{number} {kind}" for kind, number in rejected_lines(counts).items() if number
    )
    return (
        f"The board sent {received_bytes} bytes in {listened_s:.0f} s, but no line was a reading "
        f"({found or 'no line was ever ended'}). docs/serial-protocol.md describes the lines that "
        f"are expected. Check the speed (source.baud is {baud}; boards in the field speak 115200), "
        "and that this is the gas-sensor board's port."
    )
