"""training/: the day and the exposure of each published mixture recording.

numpy only. The id in a published name (`apple_50_pear_50.629fjk9g.ingestion-....csv`) counts
milliseconds in base 32, from an unknown date: the difference between two ids is the time between
two recordings, and a day is a calendar day of that clock. The names were compared with the order of
the recordings and their drift; `mixture_index.csv` says nothing of days.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.data.dataset import component_sets

if TYPE_CHECKING:
    from training.data.dataset import Dataset

_DAY_MS = 86_400_000
_ID = re.compile(r"\.(6[0-9a-v]{7})(?=[. ])")
"""All ids of the published files lie within three weeks and begin with a 6; the names that say
`synth` have others."""


def mixture_days(data: Dataset) -> list[str]:
    """Return the day of each recording, empty where its name has no id."""
    days = []
    for sample in data.samples:
        found = _ID.search(sample.name)
        days.append(f"day {int(found.group(1), 32) // _DAY_MS}" if found else "")
    return days


def mixture_exposures(data: Dataset) -> list[str]:
    """Return the exposure of each recording: one composition on one day, recorded several times."""
    parts = component_sets(data)
    return [
        f"{day}, {'+'.join(names)} {sample.target[sample.target > 0].round(2).tolist()}"
        for day, names, sample in zip(mixture_days(data), parts, data.samples, strict=True)
    ]
