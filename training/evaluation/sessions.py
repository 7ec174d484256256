"""training/: held-out recordings as another board would record them on another day.

numpy only. The data have no second session of all substances, so the robustness of a model is
estimated on recordings that are changed as parts and boards differ. Every change is made to the
raw readings, which then go through the real preprocessing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, Part, channel_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset, Sample

DRAWS = 2
"""Other sessions simulated for every recording."""


@dataclass(frozen=True, slots=True)
class SessionSpread:
    """How far parts and boards differ.

    Attributes
    ----------
    gain: standard deviation of the log of a channel's conductance, whatever the odour: load
        resistors and R0 differ. Log-differences cancel it but for clipping and rounding.
    gamma: standard deviation of the log of a channel's sensitivity, the exponent of its power
        law (Clifford & Tuma 1982): it scales every change of the log-conductance.
    offset: standard deviation of a constant added to a channel's readings, as a share of their
        median: the converter's zero.
    lost: channels without readings.
    """

    gain: float = 0.3
    gamma: float = 0.0
    offset: float = 0.02
    lost: int = 1


OTHER_SESSION = SessionSpread()
"""Other load resistors and R0 per channel, another zero, and one channel lost."""
OTHER_BOARD = SessionSpread(gamma=0.3)
"""The same, and parts of other sensitivities, which log-differences do not cancel."""


def other_sessions(
    data: Dataset,
    channels: Sequence[str],
    spread: SessionSpread = OTHER_SESSION,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Dataset:
    """Return `draws` simulated sessions of every recording, each in its original's group.

    Only the `channels` that the model reads are changed. A recording is changed alike whatever
    else is in `data`.
    """
    columns = [channel_index(name) for name in channels]
    samples = []
    for sample in data.samples:
        # Seeded by the file's own hash, so that a fold's figure depends on no other file.
        rng = np.random.default_rng([seed, int(sample.sha256[:15], 16)])
        samples += [_other_session(sample, columns, spread, rng) for _ in range(draws)]
    return dataclasses.replace(data, samples=tuple(samples))


def _other_session(
    sample: Sample, columns: list[int], spread: SessionSpread, rng: np.random.Generator
) -> Sample:
    values = sample.values.copy()
    for column in columns:
        gain, gamma = np.exp(rng.normal(0, [spread.gain, spread.gamma]))
        offset = rng.normal(0, spread.offset)
        if np.isfinite(values[:, column]).any():
            part = CHANNELS[column].part
            values[:, column] = _as_other_part(values[:, column], part, gain, gamma, offset)
    for column in rng.choice(columns, size=min(spread.lost, len(columns) - 1), replace=False):
        values[:, column] = np.nan
    return dataclasses.replace(sample, values=values)


def _as_other_part(
    readings: NDArray[np.float32], part: Part, gain: float, gamma: float, offset: float
) -> NDArray[np.float32]:
    """Return readings float32[n] as those of another part under the same odour."""
    v = readings.astype(np.float64)
    middle = np.nanmedian(v)
    if part is Part.GROVE:
        v = np.clip(v, 1.0, GROVE_FULL_SCALE - 1.0)
        ratio = v / (GROVE_FULL_SCALE - v)
        ratio = gain * np.nanmedian(ratio) * (ratio / np.nanmedian(ratio)) ** gamma
        v = np.rint(GROVE_FULL_SCALE * ratio / (1 + ratio) + offset * middle)
        return np.clip(v, 1.0, GROVE_FULL_SCALE - 1.0).astype(np.float32)
    if part is Part.ENVIRONMENT:
        return (v + offset * middle).astype(np.float32)
    # MQ parts send ppm and the BME680 kOhm, both powers of a resistance ratio.
    v = np.maximum(v, 0.0)
    reference = max(middle, 1e-6)
    v = gain * reference * (v / reference) ** gamma + offset * middle
    v = np.rint(v) if part is Part.MQ else v
    return np.maximum(v, 0.0).astype(np.float32)
