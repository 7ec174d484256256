"""Demo: teaches the rigs their smells before the demo begins.

Plays simulated exposures of other days into recordings, LABEL/SESSION/*.csv, and enrols these as
`scentd enroll --recording` does. The service then finds in its state folder what it was taught.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from daemon.demo.scenario import TAUGHT_DAYS, TAUGHT_SEED, play
from daemon.enroll import rig_smells
from hardware.recording import RecordingWriter, read_recording
from models.bundle import load_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from daemon.demo.scenario import DemoRig

AIR_S, ODOUR_S = 90, 180
"""A taught exposure: clean air, then the smell. Two minutes teach well."""


def teach_rigs(rigs: Mapping[Path, DemoRig], recordings: Path) -> None:
    """Teach one exposure of each smell on each of `TAUGHT_DAYS`.

    Parameters
    ----------
    rigs: by state folder; their services do not run yet. Rigs that learn the same are taught once.
    recordings: a folder for the recordings.

    Raises
    ------
    ScentdError: nothing can be learnt from an exposure.
    """
    taught: dict[tuple[object, ...], Path] = {}
    for state_dir, rig in rigs.items():
        same = (rig.model, rig.board, rig.rate_hz, rig.taught)
        if same in taught:
            shutil.copytree(taught[same], state_dir)
        else:
            _teach(rig, state_dir, recordings / rig.rig_id)
            taught[same] = state_dir


def _teach(rig: DemoRig, state_dir: Path, recordings: Path) -> None:
    store = rig_smells([load_bundle(rig.model)], state_dir)
    for label in rig.taught:
        for day in TAUGHT_DAYS:
            path = recordings / label / f"day-{day}" / "exposure.csv"
            record_exposure(rig, label, day, path)
            store.enroll(
                label,
                read_recording(path),
                source=path.name,
                session=path.parent.name,
                promote=True,
            )


def record_exposure(rig: DemoRig, label: str, day: int, path: Path) -> None:
    """Record clean air and then a smell, as the rig's board sends them on that day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with RecordingWriter(path) as writer:
        for row, values in enumerate(
            play(rig, f"air:{AIR_S},{label}:{ODOUR_S}", TAUGHT_SEED, day=day)
        ):
            writer.write(round(row * 1000 / rig.rate_hz), values)
