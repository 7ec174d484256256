"""training/: what is peculiar about recordings: sentences for the user, counts for the model card.

May import the channel table and recordings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, GROVE_INDICES, channel_index
from hardware.counting import counted
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from hardware.recording import Recording


_NUMBER = re.compile(r"\b\d+ of \d+\b")


class RecordingNotices:
    """Collects what readers noted of recordings."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._first: dict[str, str] = {}

    def add(self, name: str, recording: Recording) -> None:
        """Add the notes of a recording, and how many of its rows could not be read."""
        damaged = recording.counts.damaged
        left_out = [f"{counted(damaged, 'row')} left out that cannot be read"] if damaged else []
        for note in (*recording.notes, *left_out):
            kind = _NUMBER.sub("", note)
            self._names.setdefault(kind, []).append(name)
            self._first.setdefault(kind, note)

    def sentences(self) -> tuple[str, ...]:
        """Return each note with the first recording that has it and how many more there are.

        Notes that differ in their numbers alone are one, with the numbers of the first recording.
        """
        return tuple(
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: "
            f"{self._first[kind]}."
            for kind, names in self._names.items()
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


def describe_oddities(recordings: int, oddities: Mapping[str, int]) -> str:
    """Return what `count_oddities` and the data set counted, for people.

    Only what was found is named: `12 recordings, 7200 readings; not in time order: 3
    recordings`.
    """
    rows, found = 0, []
    for name, number in oddities.items():
        what, _, oddity = name.partition("_")
        if name == "rows":
            rows = number
        elif oddity and number:
            noun = "reading" if what == "rows" else "recording"
            found.append(f"{_describe_oddity(oddity)}: {counted(number, noun)}")
    head = f"{counted(recordings, 'recording')}, {counted(rows, 'reading')}"
    return "; ".join([head, *found])


def _describe_oddity(oddity: str) -> str:
    for kind in (Quality.SATURATED, Quality.OUT_OF_RANGE):
        fault = kind.name.lower()
        if oddity.endswith(f"_{fault}"):
            return f"{oddity.removesuffix(f'_{fault}')} {fault.replace('_', ' ')}"
    return _ODDITIES.get(oddity, oddity.replace("_", " "))


_ODDITIES = {
    "out_of_time_order": "not in time order",
    "resampled": "at another rate than the model's, converted",
    "with_startup_garbage": "first readings unusable",
    "with_hung_bme680": "BME680 without gas readings",
    "with_tenths": "counts with tenths",
}
"""What the names of some counts mean."""
