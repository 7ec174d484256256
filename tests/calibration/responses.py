"""Simulated exposures of a rig on several days, as rows of the response."""

from __future__ import annotations

import numpy as np

from calibration.recogniser import TaughtExposure
from models.recogniser import Recogniser, RigDecision
from models.response import ResponseRows, ResponseStream

SMELLS = {
    "mint": (1.0, 1.2, 1.5, 0.4),
    "lemon": (0.4, 0.9, 0.8, 1.3),
    "garlic": (1.5, 0.6, 0.7, 0.9),
    "soap": (0.3, 0.4, 1.8, 1.6),
}
CLEAN = np.array([-1.2, -0.8, -2.0, -1.1, np.nan, np.nan, np.nan, -4.0])


def exposure(
    label: str, day: int, *, number: int = 0, seconds: int = 300, strength: float | None = None
) -> TaughtExposure:
    """Return a simulated exposure: another strength each time, another gain each day."""
    rng = np.random.default_rng([day, number, sorted(SMELLS).index(label)])
    gain = np.random.default_rng(day).normal(1.0, 0.06, 4)
    strength = rng.uniform(0.7, 1.4) if strength is None else strength
    rise = 1.0 - np.exp(-np.arange(seconds) / rng.uniform(15, 40))
    signals = np.tile(CLEAN, (seconds, 1))
    signals[:, :4] += strength * rise[:, np.newaxis] * gain * np.array(SMELLS[label])
    signals[:, :4] += rng.normal(0.0, 0.01, (seconds, 4))
    stream, rows = ResponseStream(), []
    stream.start(CLEAN, 0.0)
    for second, sample in enumerate(signals):
        rows += stream.add(float(second), sample)
    return TaughtExposure(label, f"day {day}", ResponseRows.of(rows))


def days(*numbers: int, without: str | None = None) -> list[TaughtExposure]:
    """Return one exposure of every smell on each day."""
    return [exposure(label, day) for day in numbers for label in SMELLS if label != without]


def decide(recogniser: Recogniser, smell: TaughtExposure) -> RigDecision:
    """Return the decision after a whole exposure."""
    decision = RigDecision(recogniser)
    decision.add(smell.rows)
    return decision
