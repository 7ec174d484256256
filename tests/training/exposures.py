"""Recordings that begin in clean air: made up, and those of a real rig."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_CHANNELS, channel_index
from training.cli import main
from training.data.dataset import Dataset, Sample, load_substances

SMELLS = {"coffee": (1.5, 1.0, 0.5, -0.5), "tea": (-0.5, 0.5, 1.0, 1.5), "mint": (1, 1, -1, 1)}


def recording(
    label: str,
    session: str,
    response: tuple[float, ...],
    *,
    seed: int,
    arrives_s: int = 20,
    labels: tuple[str, ...] = tuple(SMELLS),
) -> Sample:
    """One minute of four Grove channels and the heater plate, a smell arriving after clean air."""
    rng = np.random.default_rng(seed)
    log_ratio = np.tile([-1.0, -0.5, -1.5, 0.5], (60, 1)) + rng.normal(0, 0.01, (60, 4))
    log_ratio[arrives_s:] += np.array(response) + rng.normal(0, 0.03, 4)
    values = np.full((60, N_CHANNELS), np.nan, dtype=np.float32)
    values[:, :4] = np.rint(1023 / (1 + np.exp(-log_ratio)))
    values[:, channel_index("Gas_Resistance")] = 50 + rng.normal(0, 1, 60)
    target = np.eye(len(labels), dtype=np.float32)[labels.index(label)]
    name = f"{label}/{session}/{seed}.csv"
    return Sample(name, f"{seed:064x}", values, target, name, 1.0, session=session)


def two_days(labels: tuple[str, ...] = tuple(SMELLS)) -> Dataset:
    samples = [
        recording(label, f"day-{day}", SMELLS[label], seed=100 * k + 10 * day + number)
        for k, label in enumerate(labels)
        for day in range(2)
        for number in range(3)
    ]
    return Dataset("substance", labels, tuple(samples))


def import_fruits5(smellnet: Path, folder: Path) -> Dataset:
    """Import the 25 recordings of a real rig into `folder`; skip the test without them."""
    rigs = smellnet.parent / "rigs" / "fruits5"
    if not rigs.is_dir():
        pytest.skip("SCENTD_DATA holds no rigs/fruits5")
    assert main(["data", "import", str(rigs), "--format", "fruits5", "--output", str(folder)]) == 0
    return load_substances(folder)
