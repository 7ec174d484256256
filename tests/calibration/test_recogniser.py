"""The rig's recogniser names taught smells on another day, and keeps silent about others."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.recogniser import (
    STAGES,
    Recogniser,
    RecogniserError,
    TaughtExposure,
    _row_weights,
)
from models.response import response_features

SMELLS = {
    "mint": (1.0, 1.2, 1.5, 0.4),
    "lemon": (0.4, 0.9, 0.8, 1.3),
    "garlic": (1.5, 0.6, 0.7, 0.9),
    "soap": (0.3, 0.4, 1.8, 1.6),
}
CLEAN = np.array([-1.2, -0.8, -2.0, -1.1])


def exposure(label: str, day: int, *, number: int = 0) -> TaughtExposure:
    """Return a simulated exposure: another strength each time, another gain each day."""
    rng = np.random.default_rng([day, number, sorted(SMELLS).index(label)])
    gain = np.random.default_rng(day).normal(1.0, 0.06, 4)
    strength = rng.uniform(0.7, 1.4)
    rise = 1.0 - np.exp(-np.arange(1, 301) / rng.uniform(15, 40))
    signals = CLEAN + strength * rise[:, np.newaxis] * gain * np.array(SMELLS[label])
    signals += rng.normal(0.0, 0.01, signals.shape)
    return TaughtExposure(label, f"day {day}", response_features(signals, CLEAN, 1.0)[::5])


def days(*numbers: int, without: str | None = None) -> list[TaughtExposure]:
    return [exposure(label, day) for day in numbers for label in SMELLS if label != without]


def test_smells_taught_on_one_day_are_named_on_another() -> None:
    recogniser = Recogniser.fit(days(1))
    for smell in days(2, 3):
        probability = np.exp(recogniser.log_probabilities(smell.features))
        assert recogniser.labels[int(probability.argmax())] == smell.label
        assert probability.sum() == pytest.approx(1.0)


def test_a_smell_never_taught_is_unknown_and_taught_ones_are_not() -> None:
    taught = days(1, 2, 3, without="soap")
    recogniser = Recogniser.fit(taught).with_limits(taught)
    assert recogniser.is_unknown(exposure("soap", 4).features)
    known = [recogniser.is_unknown(smell.features) for smell in days(4, 5, without="soap")]
    assert sum(known) <= 1


def test_the_limits_come_from_held_out_days_alone() -> None:
    one_day = days(1)
    recogniser = Recogniser.fit(one_day)
    assert recogniser.with_limits(one_day) is recogniser
    two_days = days(1, 2)
    fitted = Recogniser.fit(two_days).with_limits(two_days)
    assert len(fitted.novelty_limits) == len(STAGES)
    assert fitted.novelty_limits != recogniser.novelty_limits


def test_one_smell_cannot_be_told_from_nothing() -> None:
    with pytest.raises(RecogniserError, match="mint"):
        Recogniser.fit([exposure("mint", 1), exposure("mint", 2)])


def test_smells_sessions_and_exposures_count_alike_however_long_they_are() -> None:
    exposures = [
        exposure("mint", 1),
        exposure("mint", 2),
        exposure("mint", 2, number=1),
        exposure("lemon", 1)._replace(features=exposure("lemon", 1).features[:10]),
    ]
    weights = np.split(
        _row_weights(exposures), np.cumsum([len(e.features) for e in exposures])[:-1]
    )
    assert [weight.sum() for weight in weights] == pytest.approx([0.25, 0.125, 0.125, 0.5])


def test_a_channel_lost_after_teaching_leaves_finite_answers() -> None:
    recogniser = Recogniser.fit(days(1, 2))
    features = exposure("mint", 3).features.copy()
    features[:, [2, 7, 11, 15]] = np.nan
    assert np.isfinite(recogniser.log_probabilities(features)).all()
    assert np.isfinite(recogniser.novelty(features))


def test_fitting_twice_gives_the_same_recogniser() -> None:
    first, second = (Recogniser.fit(days(1, 2)) for _ in range(2))
    features = exposure("lemon", 3).features
    assert (first.squared_distances(features) == second.squared_distances(features)).all()


def test_a_taught_reading_is_not_novel() -> None:
    taught = days(1)
    recogniser = Recogniser.fit(taught)
    assert recogniser.novelty(taught[0].features) == pytest.approx(0.0, abs=1e-3)
