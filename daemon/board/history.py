"""Daemon: the readings of the last minutes, from which calibration and teaching take theirs.

Holds raw readings as the board sent them, in bounded memory; knows no models and no clock.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES
from hardware.errors import ScentdError
from hardware.recording import RecordingWriter, read_recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardware.recording import Recording

HISTORY_S = 600.0
"""Long enough for a reference odour, the clean air before and the recovery after it."""

FASTEST_HZ = 20.0
"""The fastest board that is accepted; its ten minutes take 0.7 MB."""


class NoHistoryError(ScentdError):
    """The readings asked for do not exist: the board was away, or has not sent them yet."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadingSpan:
    """Successive readings.

    Attributes
    ----------
    values: float32[n, 12] in the channel table's order, as sent; NaN where absent.
    t_ms: int64[n], increasing; the recording's `timestamp_ms`.
    """

    values: NDArray[np.float32]
    t_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t_ms)

    @property
    def seconds(self) -> float:
        """Time between the first reading and the last."""
        return 0.0 if len(self) == 0 else float(self.t_ms[-1] - self.t_ms[0]) / 1000.0

    @property
    def rate_hz(self) -> float:
        """Rate at the median step; 1 without a step."""
        steps_ms = np.diff(self.t_ms)
        return 1000.0 / float(np.median(steps_ms)) if len(steps_ms) else 1.0

    def write(self, path: Path) -> None:
        """Write the readings as a recording.

        Raises
        ------
        RecordingError: the file exists already, or cannot be written.
        """
        with RecordingWriter(path) as recording:
            recording.write_all(self.t_ms, self.values)

    def recording(self) -> Recording:
        """Return the readings as a recording, checked as one is that is read from disk."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "history.csv"
            self.write(path)
            return read_recording(path)


class History:
    """A ring buffer of the readings of the last `seconds`."""

    def __init__(self, seconds: float = HISTORY_S) -> None:
        self._seconds = seconds
        self._capacity = int(seconds * FASTEST_HZ)
        self._values = np.empty((self._capacity, len(CHANNEL_NAMES)), np.float32)
        self._t_ms = np.empty(self._capacity, np.int64)
        self._first = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def newest_ms(self) -> int | None:
        """`t_ms` of the newest reading, None before the first."""
        if self._count == 0:
            return None
        return int(self._t_ms[(self._first + self._count - 1) % self._capacity])

    @property
    def seconds(self) -> float:
        """Time between the oldest reading and the newest."""
        newest_ms = self.newest_ms
        return 0.0 if newest_ms is None else (newest_ms - int(self._t_ms[self._first])) / 1000.0

    def push(self, t_ms: int, values: NDArray[np.float32]) -> None:
        """Append a reading float32[12], later than the one before, and forget those too old."""
        if self._count == self._capacity:
            self._forget_first()
        place = (self._first + self._count) % self._capacity
        self._values[place] = values
        self._t_ms[place] = t_ms
        self._count += 1
        while t_ms - self._t_ms[self._first] > self._seconds * 1000.0:
            self._forget_first()

    def _forget_first(self) -> None:
        self._first = (self._first + 1) % self._capacity
        self._count -= 1

    def since(self, t_ms: int) -> ReadingSpan:
        """Return copies of all readings later than `t_ms`."""
        places = (self._first + np.arange(self._count)) % self._capacity
        times = self._t_ms[places]
        start = int(np.searchsorted(times, t_ms, side="right"))
        return ReadingSpan(self._values[places[start:]], times[start:])

    def last(self, seconds: float) -> ReadingSpan:
        """Return copies of the readings of the last `seconds`.

        Raises
        ------
        NoHistoryError: there are fewer.
        """
        newest_ms = self.newest_ms
        kept = self.since(-1) if newest_ms is None else self.since(newest_ms - round(seconds * 1e3))
        if seconds > self._seconds:
            raise NoHistoryError(
                f"The last {seconds:g} s were asked for; the rig remembers {self._seconds:g} s. "
                "Ask for fewer, or use a recording."
            )
        # The first of these readings lies up to a period after the beginning.
        if len(kept) < 2 or kept.seconds + 2 / kept.rate_hz < seconds:  # noqa: PLR2004 - a step has two ends
            raise NoHistoryError(
                f"The last {seconds:g} s were asked for, and only {kept.seconds:.0f} s of readings "
                "are there. Wait, or ask for fewer."
            )
        return kept
