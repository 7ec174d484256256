"""training/: recorded signals as another rig would have sent them, in torch.

A difference of log-conductances is free of a rig's gain, but not of the rounding, which depends
on the gain: boards send whole counts and whole ppm. A reading of 100 counts moves in steps of 1 %,
one of 400 in steps of 0.25 %, so the least step of a window reveals the level, and the level
reveals the session. Signals that were scaled, shifted and rounded anew have no such step. Knows
the channel table; nothing of data sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, MQ_FLOOR_PPM, Part, channel_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def channel_parts(channels: Sequence[str]) -> tuple[Part, ...]:
    """Return the sensor part of each named channel."""
    return tuple(CHANNELS[channel_index(name)].part for name in channels)


def simulate_other_rig(
    signal: Tensor, parts: Sequence[Part], gain: Tensor, offset: Tensor, level: Tensor
) -> Tensor:
    """Return log-conductances as a rig with other load resistors, R0 and zero would send them.

    Parameters
    ----------
    signal: float32[batch, rows, channels], as `models.preprocess.Lineariser` gives it; NaN stays.
    parts: of the channels.
    gain: float32[batch, channels], added to the logarithm of the conductance (of the ppm, for
        an MQ part, which are a power of it).
    offset: float32[batch, channels], added to the reading, as a share of `level`'s reading.
    level: float32[batch, channels], a signal of the same recording.
    """
    moved = signal + gain[:, None]
    columns = []
    for column, part in enumerate(parts):
        reading, reference = _reading(moved[..., column], part), _reading(level[:, column], part)
        shifted = reading + (offset[:, column] * reference)[:, None]
        columns.append(_linearise(shifted, part))
    return torch.stack(columns, dim=-1)


def _reading(signal: Tensor, part: Part) -> Tensor:
    """Undo the linearisation: counts, ppm, or kOhm."""
    if part is Part.GROVE:
        return GROVE_FULL_SCALE * torch.sigmoid(signal)
    return torch.exp(-signal) if part is not Part.MQ else torch.exp(signal)


def _linearise(reading: Tensor, part: Part) -> Tensor:
    """Linearise the reading as sent: counts and ppm are rounded, the BME680's kOhm are not."""
    if part is Part.GROVE:
        return torch.logit(reading.round().clamp(1.0, GROVE_FULL_SCALE - 1.0) / GROVE_FULL_SCALE)
    if part is Part.MQ:
        return reading.round().clamp(min=MQ_FLOOR_PPM).log()
    return -reading.clamp(min=1e-3).log()
