"""training/: what is peculiar about recordings: sentences for the user, counts for the model card.

May import the channel table and recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, GROVE_INDICES, channel_index
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections import Counter

    from hardware.recording import Recording


class RecordingNotices:
    """Collects what readers noted of recordings."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, recording: Recording) -> None:
        """Add the notes of a recording, and how many of its rows could not be read."""
        damaged = recording.counts.damaged
        left_out = [f"{damaged} rows cannot be read and were left out"] if damaged else []
        for note in (*recording.notes, *left_out):
            self._names.setdefault(note, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        """Return each note with the first recording that has it and how many more there are."""
        return tuple(
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}."
            for note, names in self._names.items()
        )


def count_oddities(recording: Recording, oddities: Counter[str]) -> None:
    """Count the known faults of the published recordings, by recording and by row."""
    values, quality = recording.values, recording.quality
    oddities["recordings"] += 1
    oddities["rows"] += len(values)
    for kind in (Quality.SATURATED, Quality.OUT_OF_RANGE):
        hits = (quality == kind).sum(axis=0)
        for column in np.flatnonzero(hits):
            oddities[f"rows_{CHANNEL_NAMES[column]}_{kind.name.lower()}"] += int(hits[column])
    start = quality[:3, GROVE_INDICES]
    oddities["recordings_with_startup_garbage"] += int(
        ((start == Quality.OUT_OF_RANGE) | (start == Quality.SATURATED)).any()
    )
    resistance = values[:, channel_index("Gas_Resistance")]
    oddities["recordings_with_hung_bme680"] += int((resistance == 0).mean() > 0.5)  # noqa: PLR2004
    present = np.nan_to_num(values[:, GROVE_INDICES])
    oddities["recordings_with_tenths"] += int((present != np.rint(present)).any())
