"""Calibration: the readings of an exposure as the library stores them.

May import hardware and numpy. Pure.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hardware.files import read_regular
from hardware.recording import RecordingError, RecordingWriter, read_recording

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.recording import Recording

LEAD_S = 120.0
"""Readings kept from before an exposure: the longest lag, and clean air to detect the onset."""

MAX_EXPOSURE_S = 1200.0
"""Readings kept of one exposure. Two minutes teach well, but a long exposure changes: what it
became is recognised only if it was kept."""


def content_id(data: bytes) -> str:
    """Return the name of a file by its content."""
    return hashlib.sha256(data).hexdigest()[:16]


def recording_bytes(t_ms: NDArray[np.int64], values: NDArray[np.float32]) -> bytes:
    """Return readings float32[n, 12] at the times int64[n] as the CSV of a recording."""
    stream = io.BytesIO()
    with RecordingWriter(stream) as writer:
        writer.write_all(t_ms, values)
    return stream.getvalue()


def read_exposure(path: Path, exposure_id: str) -> Recording:
    """Return the stored readings of an exposure.

    Raises
    ------
    RecordingError: they are missing or damaged.
    """
    try:
        whole = content_id(read_regular(path)) == exposure_id
    except OSError as error:
        raise RecordingError(f"{path} cannot be read ({error.strerror}).") from error
    if not whole:
        raise RecordingError(
            f"{path} is damaged: its content does not belong to its name. Teach it again."
        )
    return read_recording(path)


class KeptReadings(NamedTuple):
    """The readings of an exposure that are kept.

    Attributes
    ----------
    t_ms: int64[n], from 0.
    values: float32[n, 12].
    start_ms: from which on they are learnt.
    until_end_s: from the first of them to the recording's last reading, which may come later.
    """

    t_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    start_ms: int
    until_end_s: float

    def to_bytes(self) -> bytes:
        """Return them as the CSV of a recording."""
        return recording_bytes(self.t_ms, self.values)


def cut_readings(recording: Recording, start_ms: int) -> KeptReadings:
    """Return the readings to keep of a recording that is learnt from `start_ms` on."""
    if recording.timestamp_ms is None:
        t_ms = np.arange(len(recording)) * round(1000.0 / recording.nominal_rate_hz)
    else:
        t_ms = recording.timestamp_ms - recording.timestamp_ms[0]
    first = int(np.searchsorted(t_ms, start_ms - LEAD_S * 1000.0))
    last = int(np.searchsorted(t_ms, start_ms + MAX_EXPOSURE_S * 1000.0))
    kept, first_ms = t_ms[first:last], int(t_ms[first]) if last > first else start_ms
    until_end_s = (int(t_ms[-1]) - first_ms) / 1000.0
    start_ms = max(0, start_ms - first_ms)
    return KeptReadings(kept - first_ms, recording.values[first:last], start_ms, until_end_s)
