"""Synthetic episodes for the tests of the nose, and a way to process them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.frames import SensorFrame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from models.nose import Nose
    from models.results import Event, Prediction

TEMPERATURE = CHANNEL_NAMES.index("Temperature")
AIR = np.array([100, 300, 470, 820, 3, 31, 3, 24.5, 1013, 40, 250, 60], dtype=np.float32)
LEMON, MINT = np.array([0.9, 0.2, 0.2, 0.1]), np.array([0.2, 0.9, 0.2, 0.1])
PETROL = np.array([0.2, 0.1, 0.2, 0.9])
"""None of the toy models' labels."""


def air(seconds: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the effect of no odour, in log-conductance per Grove channel."""
    return np.zeros((round(seconds * rate_hz), 4))


def odour(gains: NDArray[np.float64], seconds: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the effect of an odour with a rise of 12 s."""
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.outer(1 - np.exp(-times_s / 12), gains)


def fading(gains: NDArray[np.float64], seconds: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the effect after an odour, with a recovery of 15 s."""
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.outer(np.exp(-times_s / 15), gains)


def frames(
    effect: NDArray[np.float64], rate_hz: float, *, start_seq: int = 0, seed: int = 0
) -> Iterator[SensorFrame]:
    """Yield the board's frames for an effect, with the noise of a count."""
    rng = np.random.default_rng(seed)
    odds = AIR[:4] / (1023 - AIR[:4]) * np.exp(effect)
    counts = np.rint(1023 * odds / (1 + odds) + rng.normal(0, 0.4, effect.shape))
    for number, grove in enumerate(counts, start_seq):
        values = AIR.copy()
        values[:4] = grove
        values[TEMPERATURE] += 0.01 * (number % 2)  # a BME680 whose row never changes has hung
        yield SensorFrame(
            frame_seq=number,
            device_ms=round(number * 1000 / rate_hz),
            values=values,
            quality=np.zeros(N_CHANNELS, dtype=np.uint8),
            lost_before=0,
        )


def episode_of(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([air(60, 1), odour(gains, 90, 1), fading(gains, 150, 1)])


def process_all(nose: Nose, source: Iterable[SensorFrame]) -> tuple[list[Prediction], list[Event]]:
    """Process every frame; return all predictions and events."""
    predictions: list[Prediction] = []
    events: list[Event] = []
    for frame in source:
        step = nose.process(frame)
        predictions += step.predictions
        events += step.events
    return predictions, events


def states(predictions: list[Prediction]) -> list[str]:
    """Return the states in order, without repetitions."""
    return [state for state, _ in itertools.groupby(str(p.state) for p in predictions)]
