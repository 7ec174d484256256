"""Recordings of made-up smells, and a real small model that can be taught them.

The toy model's embedding is the mean change of the four Grove channels, so a smell is a direction
in which they move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.enrolment import learn
from calibration.exposures import prepare_readings
from hardware.recording import RecordingWriter, read_recording
from models.bundle import Bundle, load_bundle
from models.decision_spec import DecisionSpec
from models.manifest import write_bundle
from tests.models.toys import toy_arrays, toy_files, toy_manifest, toy_space

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.smell_store import SmellStore
    from hardware.recording import Recording

AIR = np.array([100, 300, 470, 820, 3, 31, 3, 24.5, 1013, 40, 250, 60], dtype=np.float32)
LEMON = (0.02, 0.0, 0.0, 0.0)
MINT = (0.0, 0.02, 0.0, 0.0)
PETROL = (0.0, 0.0, 0.0, 0.02)
TAR = (0.0, 0.0, -0.02, 0.015)
"""Changes a second of the log-conductances of NO2, C2H5OH, VOC and CO; the model was trained
on lemon and mint."""


def teachable_bundle(folder: Path, **changes: object) -> Bundle:
    """Write and load a toy model whose bundle holds the space of its embeddings."""
    changes.setdefault("decision", DecisionSpec(head_temperature=0.1))
    files = {**toy_files("substance"), "arrays.npz": toy_arrays(toy_space())}
    place = folder / "toy-substance"
    write_bundle(place, toy_manifest("substance", **changes), files)
    return load_bundle(place)


def exposed_values(level: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Return a smell above clean air, of a board whose NO2 lies at another level."""
    values = smell_readings(TAR, 120, before=90, seed=seed)
    signal = np.log(values[:, 0] / (1023 - values[:, 0])) + level
    values[:, 0] = 1023 / (1 + np.exp(-signal))
    return values


def smell_readings(
    change: tuple[float, ...], seconds: int = 60, *, before: int = 0, seed: int = 0
) -> NDArray[np.float32]:
    """Return float32[before + seconds, 12] at 1 Hz: clean air, then a smell that keeps rising."""
    rng = np.random.default_rng(seed)
    ramp = np.concatenate([np.zeros(before), np.arange(seconds)])
    start = np.log(AIR[:4] / (1023 - AIR[:4]))
    signal = start + ramp[:, None] * np.array(change) + rng.normal(0, 0.002, (len(ramp), 4))
    values = np.tile(AIR, (len(ramp), 1))
    values[:, :4] = np.rint(1023 / (1 + np.exp(-signal)))
    return values


def write_recording(path: Path, values: NDArray[np.float32], step_ms: int = 1000) -> Recording:
    """Write values as a recording and read it back."""
    with RecordingWriter(path) as recording:
        recording.write_all(np.arange(len(values)) * step_ms, values)
    return read_recording(path)


def record_smell(
    folder: Path, change: tuple[float, ...], seed: int = 0, seconds: int = 60
) -> Recording:
    """Return a recording of a smell."""
    path = folder / f"{change}-{seed}-{seconds}.csv"
    if path.exists():
        return read_recording(path)
    return write_recording(path, smell_readings(change, seconds, seed=seed))


def teach(
    store: SmellStore,
    folder: Path,
    label: str = "petrol",
    change: tuple[float, ...] = PETROL,
    *,
    seed: int = 0,
    promote: bool = True,
) -> None:
    store.enroll(label, record_smell(folder, change, seed), source="test", promote=promote)


def likeliest(store: SmellStore, folder: Path, change: tuple[float, ...]) -> str:
    """Return the likeliest label of another exposure of a smell."""
    (bundle,), (head, problems) = store.bundles.values(), store.head()
    assert problems == []
    assert bundle.space is not None
    learned = learn(bundle, prepare_readings(record_smell(folder, change, seed=99)))
    scores = head.log_probabilities(bundle.space, learned.logits, learned.embedding, 1.0, 0.1)
    return head.labels(bundle.manifest.labels)[int(scores.mean(axis=0).argmax())]


class Shifted:
    """Corrects a rig whose NO2 reads 50 counts too much."""

    id = "shifted"
    model = None

    def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
        corrected = values.copy()
        corrected[0] -= 50
        return corrected

    def reset(self) -> None:
        """Nothing is remembered."""
