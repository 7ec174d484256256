"""Signals as another rig would have sent them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from models.preprocess import Lineariser, PreprocessSpec
from training.config import AugmentConfig
from training.data.dataset import Dataset, Sample
from training.evaluation.sessions import _as_other_part

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.sampling.other_rigs import channel_parts, simulate_other_rig  # noqa: E402
from training.sampling.windows import NO_AUGMENTATION, WindowSampler  # noqa: E402

CHANNELS = ("NO2", "VOC", "Alcohol", "Gas_Resistance")
SPEC = PreprocessSpec(
    channels=CHANNELS, rate_hz=1.0, lags=(2, 4), first_step=2, window=20, min_steps=5
)
PARTS = channel_parts(CHANNELS)
ROWS = 200


@pytest.fixture
def recording() -> np.ndarray:
    """Whole counts and ppm, and fine kOhm, as a board sends them."""
    rng = np.random.default_rng(3)
    values = np.full((ROWS, N_CHANNELS), np.nan, dtype=np.float32)
    drift = np.cumsum(rng.normal(0, 1, (ROWS, 4)), axis=0)
    values[:, 0] = np.rint(100 + drift[:, 0])
    values[:, 2] = np.rint(600 + 3 * drift[:, 1])
    values[:, 4] = np.rint(np.maximum(12 + drift[:, 2], 0))
    values[:, 10] = 80 + drift[:, 3]
    return values


def linear(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(Lineariser(SPEC)(values))[None]


def test_a_rig_without_gain_and_offset_sends_the_same(recording: np.ndarray) -> None:
    signal, none = linear(recording), torch.zeros(1, 4)
    same = simulate_other_rig(signal, PARTS, none, none, signal[:, 0])
    torch.testing.assert_close(same, signal, atol=2e-5, rtol=0)


def test_training_and_evaluation_simulate_the_same_rigs(recording: np.ndarray) -> None:
    """The sampler changes signals as the evaluation changes readings."""
    columns, gains, offsets = [0, 2, 4, 10], [1.4, 0.7, 1.2, 0.8], [0.03, -0.02, 0.1, 0.01]
    elsewhere = recording.copy()
    level = recording.copy()
    for column, part, gain, offset in zip(columns, PARTS, gains, offsets, strict=True):
        # The BME680's kOhm are resistances: the inverse of a conductance's gain.
        power = 1 / gain if part.value == "bme_gas" else gain
        elsewhere[:, column] = _as_other_part(recording[:, column], part, power, 1.0, offset)
        level[:, column] = np.median(recording[:, column])
    expected = linear(elsewhere)
    got = simulate_other_rig(
        linear(recording),
        PARTS,
        torch.tensor([gains]).log(),
        torch.tensor([offsets]),
        linear(level)[:, 0],
    )
    # A reading half-way between two counts may be rounded either way.
    assert float(((got - expected).abs() < 1e-4).float().mean()) > 0.97


def test_least_step_of_a_window_no_longer_reveals_the_level(recording: np.ndarray) -> None:
    target = np.array([1.0, 0.0], dtype=np.float32)
    sample = Sample("a", "ab" * 32, recording, target, "a", 1.0)
    data = Dataset("substance", ("a", "b"), (sample,))

    def spread(augment: AugmentConfig) -> float:
        """How much the least step differs between windows, but for the few that are still."""
        x, _, _ = WindowSampler(data, SPEC, augment, seed=1).batch(200)
        changes = x[:, :, 0].abs()  # NO2: steps of one count near 100
        least = changes.masked_fill(changes < 1e-6, 1e3).amin(dim=1).numpy()
        return float(np.subtract(*np.quantile(least, [0.9, 0.1])))

    here, half, elsewhere = (
        spread(dataclasses.replace(NO_AUGMENTATION, session=share)) for share in (0.0, 0.5, 1.0)
    )
    assert elsewhere > 2 * here
    assert here < half <= elsewhere * 1.2
