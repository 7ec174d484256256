"""Demo: teaches a rig its smells before the demo begins.

Plays simulated exposures of other days into recordings, LABEL/SESSION/*.csv, and enrols these as
`scentd enroll --recording` does. The service then finds in its state folder what it was taught.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.demo.scenario import TAUGHT_DAYS
from daemon.enroll import rig_smells
from hardware.recording import RecordingWriter, read_recording
from hardware.simulator.signals import SyntheticSignal
from models.bundle import load_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.demo.scenario import DemoRig

AIR_S, ODOUR_S = 90, 180
"""A taught exposure: clean air, then the smell. Two minutes teach well."""


def teach_rig(rig: DemoRig, state_dir: Path, recordings: Path, seed: int) -> None:
    """Teach one exposure of each of the rig's smells on each of `TAUGHT_DAYS`.

    Parameters
    ----------
    state_dir: of the rig, whose service does not run yet.
    recordings: a folder for the recordings.
    seed: of the exposures.

    Raises
    ------
    ScentdError: nothing can be learnt from an exposure.
    """
    store = rig_smells([load_bundle(rig.model)], state_dir)
    for label in rig.taught:
        for day in TAUGHT_DAYS:
            path = recordings / label / f"day-{day}" / "exposure.csv"
            record_exposure(rig, label, day, seed, path)
            store.enroll(
                label,
                read_recording(path),
                source=path.name,
                session=path.parent.name,
                promote=True,
            )


def record_exposure(rig: DemoRig, label: str, day: int, seed: int, path: Path) -> None:
    """Record clean air and then a smell, as the rig's board sends them on that day."""
    signal = SyntheticSignal(
        f"air:{AIR_S},{label}:{ODOUR_S}",
        rate_hz=rig.rate_hz,
        seed=seed,
        day=day,
        board=rig.board,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with RecordingWriter(path) as writer:
        for row, values in enumerate(signal):
            writer.write(round(row * 1000 / rig.rate_hz), values)
