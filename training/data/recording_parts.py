"""training/: the readings of a part of a recording.

May import recordings and numpy.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from hardware.recording import RecordingError

if TYPE_CHECKING:
    from hardware.recording import Recording


def part_of(recording: Recording, first_ms: int, last_ms: int) -> Recording:
    """Return the rows of a recording between two of its times, both included.

    Raises
    ------
    RecordingError: there are none, or the recording has no times.
    """
    times = recording.timestamp_ms
    inside = np.zeros(len(recording), np.bool_)
    if times is not None:
        inside = (times >= first_ms) & (times <= last_ms)
    if times is None or not inside.any():
        raise RecordingError(
            f"Expected readings of {recording.path} from {first_ms} to {last_ms} ms, which are "
            "labelled, and there are none. Correct the file of labels beside it."
        )
    rows = ("values", "quality", "frame_seq", "lost_before", "restarted")
    return dataclasses.replace(
        recording,
        timestamp_ms=times[inside],
        **{name: getattr(recording, name)[inside] for name in rows},
    )
