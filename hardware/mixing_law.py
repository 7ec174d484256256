"""Ground floor: how metal-oxide sensors respond to several gases at once.

May import numpy. Pure: responses in, responses out; knows no channel, no board and no simulator.

Conductance is a power law of concentration, G = G0 (1 + a c)^beta, and in a mixture the effective
concentrations add up before the power (Clifford & Tuma, Sensors and Actuators 3, 1982); gases that
oxidise lower it in the same way. So a mixture is dominated by its strongest part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MAX_LOG_DOSE = 60.0
"""exp(60) is beyond any sensor's range and far from overflow."""


def doses(responses: NDArray[np.float64], exponent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `a` of the power law, by which (1 + a)^beta is the response; negative if oxidising.

    Parameters
    ----------
    responses: float64[..., channels], ln(G / G_air) at concentration 1.
    exponent: float64[channels], beta of each channel.
    """
    size = np.expm1(np.minimum(np.abs(responses) / exponent, _MAX_LOG_DOSE))
    return np.asarray(np.sign(responses) * size)


def mixed_response(
    responses: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    concentrations: Sequence[float] | NDArray[np.float64],
    exponent: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return ln(G / G_air) of several gases at once.

    Parameters
    ----------
    responses: float64[gases, channels], of each gas alone at concentration 1; negative where it
        oxidises.
    concentrations: float64[..., gases], 1 being that of the recordings.
    exponent: float64[channels], beta of each channel.

    Returns
    -------
    float64[..., channels]. One gas at concentration 1 gives back its own response; far above that,
    the response grows as beta * ln(concentration).
    """
    amounts = np.asarray(concentrations, dtype=np.float64)
    alone = np.asarray(responses, dtype=np.float64).reshape(amounts.shape[-1], len(exponent))
    dose = doses(alone, exponent)
    reducing, oxidising = amounts @ np.maximum(dose, 0.0), amounts @ np.maximum(-dose, 0.0)
    return np.asarray(exponent * (np.log1p(reducing) - np.log1p(oxidising)))


def mixed_slopes(
    responses: NDArray[np.float64],
    concentrations: NDArray[np.float64],
    exponent: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return float64[..., gases, channels], the derivative of `mixed_response` by `responses`.

    Parameters
    ----------
    responses: float64[gases, channels], of each gas alone at concentration 1.
    concentrations: float64[..., gases], 1 being that of the recordings.
    exponent: float64[channels], beta of each channel.
    """
    dose = doses(responses, exponent)
    reducing = concentrations @ np.maximum(dose, 0.0)
    oxidising = concentrations @ np.maximum(-dose, 0.0)
    side = np.where(dose >= 0, reducing[..., np.newaxis, :], oxidising[..., np.newaxis, :])
    return np.asarray(concentrations[..., np.newaxis] * (1.0 + np.abs(dose)) / (1.0 + side))
