"""Daemon: why an open port gives no readings, for the operator.

Pure: counts and durations in, a paragraph out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from hardware.protocol import LineCounts

LONGEST_PERIOD_S = 10.0
"""Time between two readings of the slowest board that is accepted."""

REJECTED = ("text", "checksum", "malformed", "version", "overlong", "binary")
"""Counts of lines that are no readings; empty lines and headers are expected."""


class BoardError(ScentdError):
    """The port is open, but gives no readings."""


def rejected_lines(counts: LineCounts) -> dict[str, int]:
    """Return the number of rejected lines by kind."""
    return {kind: getattr(counts, kind) for kind in REJECTED}


def explain_no_reading(
    counts: LineCounts,
    *,
    received_bytes: int,
    listened_s: float,
    baud: int,
    problem: str | None = None,
) -> str | None:
    """Return why a board has sent no reading, None if it has.

    Parameters
    ----------
    counts: of the decoder.
    received_bytes: in all.
    listened_s: how long the port was open.
    baud: the configured speed, the most common mistake.
    problem: the decoder's, if it refused a header or rows of the CSV dialect.
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
    speed = (
        f"Check the speed (source.baud is {baud}; boards in the field speak 115200), and that this "
        "is the gas-sensor board's port."
    )
    if problem is not None:
        return (
            f"The board sends a table, but no line was a reading in {listened_s:.0f} s "
            f"({found}): {problem}. docs/serial-protocol.md describes the headers that are "
            "understood."
        ) + (f" {speed}" if rejected_lines(counts)["binary"] else "")
    return (
        f"The board sent {received_bytes} bytes in {listened_s:.0f} s, but no line was a reading "
        f"({found or 'no line was ever ended'}). docs/serial-protocol.md describes the lines that "
        f"are expected. {speed}"
    )
