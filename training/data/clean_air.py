"""training/: whether recordings begin in clean air, and when the smell arrives.

numpy only. When a smell arrives, all of a recording decides (`onset_s`): the measure is the largest
distance of a Grove channel's log-conductance from its mean over the first seconds; what happened
before the recording cannot be seen in it. When the nose notices it is computed as the nose does
(`notice_onset`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, Part
from models.exposure import Change
from models.exposure_settings import ExposureSettings
from models.exposure_stream import RATE_HZ, ExposureStream
from models.preprocess import Lineariser, PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.clean_air import CleanAir
    from training.data.dataset import Sample

FIRST_S = 3.0
"""Readings at the start that count as clean air: on the visible rig whose recordings begin in it,
responses rise from the second reading on."""
ONSET = 0.25
"""A smell has arrived where a channel is this far from clean air in log-conductance. On that rig
the median response is 1.8 to 2.8; recordings within one exposure move by 0.06 to 0.16."""

_GROVE = tuple(channel.name for channel in CHANNELS if channel.part is Part.GROVE)


def distance_from_start(sample: Sample) -> NDArray[np.float32]:
    """Return float32[n], each reading's distance in log-conductance from the first seconds.

    The largest over the Grove channels; NaN where none is usable.
    """
    signal = Lineariser(PreprocessSpec(_GROVE, rate_hz=sample.rate_hz))(sample.values)
    present = np.isfinite(signal).any(axis=0)
    if not present.any():
        return np.full(len(signal), np.nan, dtype=np.float32)
    signal = signal[:, present]
    first = max(1, math.ceil(FIRST_S * sample.rate_hz))
    known = np.isfinite(signal)
    # The first usable readings: a part may start with garbage.
    start = np.array(
        [np.mean(signal[known[:, k], k][:first]) for k in range(signal.shape[1])], np.float32
    )
    distance = np.where(known, np.abs(signal - start), -np.inf).max(axis=1)
    return np.where(np.isfinite(distance), distance, np.nan).astype(np.float32)


def onset_s(sample: Sample) -> float | None:
    """Return when the smell arrives, in seconds from the start; None if nothing changes.

    None means that the recording lies within one exposure, or that nothing was smelled in it.
    """
    arrived = np.nan_to_num(distance_from_start(sample)) > ONSET
    if not arrived.any():
        return None
    row = int(arrived.argmax())
    return row / sample.rate_hz if sample.time_ms is None else float(sample.time_ms[row]) / 1000.0


def begin_in_clean_air(samples: Sequence[Sample]) -> bool:
    """Whether all recordings begin in clean air and the nose notices the smell in each.

    Otherwise recordings count as lying within one exposure.
    """
    return all(onset_s(one) is not None and notice_onset(one) is not None for one in samples)


def notice_onset(sample: Sample) -> int | None:
    """Return how many readings the nose has seen when it notices the first onset.

    The sensors count as warm. None where it notices none.
    """
    found = _at_onset(sample)
    return None if found is None else found[0]


def clean_air_at_onset(sample: Sample) -> NDArray[np.float64] | None:
    """Return float64[8], log-conductances of clean air as the nose knows it at the first onset.

    None where it notices no onset, or knows no clean air.
    """
    found = _at_onset(sample)
    return None if found is None or found[1] is None else found[1].signals


def _at_onset(sample: Sample) -> tuple[int, CleanAir | None] | None:
    air = ExposureStream(ExposureSettings(), skip_warm_up=True)
    for row, values in enumerate(sample.at_rate(RATE_HZ).values):
        if air.update(values, 1.0 / RATE_HZ, named=False) is Change.ONSET:
            return round((row + 1) * sample.rate_hz / RATE_HZ), air.clean_air
    return None
