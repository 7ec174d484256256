"""training/: how two or three recordings become the recording of their mixture.

Two ways, chosen by `augment.mix_kind`. `average` is the published one: the windows' features are
averaged. `power_law` mixes concentrations, which the sensor responds to. A metal-oxide sensor's
conductance is a power of the summed concentrations of reducing gases, G = G0 (sum_i a_i c_i)^beta
(Clifford & Tuma, Sensors and Actuators 3, 1982). Substance i alone shows G_i = G0 (a_i C_i)^beta,
so that shares p_i of the parts give

    ln G = beta ln sum_i p_i exp(ln G_i / beta)

whatever G0 is, if all parts were recorded on one board. A channel of the mixture then follows the
part that it responds to most, not the mean. Imports torch; knows nothing of data sets or training
loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

EXPONENT_RANGE = (0.3, 0.7)
"""Of tin-oxide sensors for reducing gases. Each window and channel draws its own: sensors differ,
and their exponents are not in the data."""


def power_law_mixture(parts: Tensor, weights: Tensor, beta: Tensor) -> Tensor:
    """Return the log-conductance of a mixture from those of its parts.

    Parameters
    ----------
    parts: float32[parts, batch, time, channel], log-conductance; NaN where a channel is missing.
    weights: float32[batch, parts], shares of the parts, summing to 1.
    beta: float32[batch, 1, channel], above 0; as it grows the result nears the weighted mean.

    Returns
    -------
    float32[batch, time, channel]; NaN where any part with a share above 0 is NaN.
    """
    share = weights.T[:, :, None, None]
    # A part without a share has no effect, not even by its missing channels.
    terms = torch.where(share > 0, share.log() + parts / beta, -torch.inf)
    return beta * terms.logsumexp(dim=0)


def draw_exponents(size: int, channels: int, generator: torch.Generator) -> Tensor:
    """Draw float32[size, 1, channels] within EXPONENT_RANGE."""
    low, high = EXPONENT_RANGE
    return low + (high - low) * torch.rand(size, 1, channels, generator=generator)
