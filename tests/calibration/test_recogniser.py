"""The rig's recogniser names taught smells on another day, and keeps silent about others."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.exposures import Readings, find_exposure
from calibration.recogniser import (
    DEFAULT_NOVELTY,
    RecogniserError,
    TaughtExposure,
    _row_weights,
    fit_recogniser,
    prepare_exposure,
    with_negatives,
)
from hardware.simulator.signals import SyntheticSignal
from models.recogniser import NOVELTY_STAGES, RigDecision
from models.response import RECOGNISER_SIGNALS
from tests.calibration.responses import SMELLS, days, decide, exposure


def test_smells_taught_on_one_day_are_named_on_another() -> None:
    recogniser = fit_recogniser(days(1))
    for smell in days(2, 3):
        decision = decide(recogniser, smell)
        assert decision.top[0][0] == smell.label
        assert decision.probabilities.sum() == pytest.approx(1.0)


def test_a_smell_never_taught_is_unknown_and_taught_ones_are_not() -> None:
    recogniser = fit_recogniser(days(1, 2, 3, without="soap"))
    assert decide(recogniser, exposure("soap", 4)).unrecognised
    known = [decide(recogniser, smell) for smell in days(4, 5, without="soap")]
    assert sum(decision.unrecognised for decision in known) <= 1
    assert sum(decision.announced is not None for decision in known) >= len(known) - 1


def test_a_weak_smell_is_not_mistaken_for_another() -> None:
    recogniser = fit_recogniser(days(1, 2, 3))
    for label in SMELLS:
        decision = decide(recogniser, exposure(label, 4, strength=0.35))
        assert decision.announced in (label, None)
        assert decision.top[0][0] == label


def test_the_limits_come_from_held_out_days_alone() -> None:
    assert set(fit_recogniser(days(1)).novelty_limits) == {DEFAULT_NOVELTY}
    two_days = fit_recogniser(days(1, 2))
    assert len(two_days.novelty_limits) == len(NOVELTY_STAGES)
    assert DEFAULT_NOVELTY not in two_days.novelty_limits


def test_a_prediction_set_is_stated_only_where_enough_was_taught() -> None:
    assert fit_recogniser(days(1, 2)).set_threshold is None
    recogniser = fit_recogniser(days(*range(1, 6)))
    assert recogniser.set_threshold is not None
    judged = days(*range(6, 14))
    holds = [smell.label in decide(recogniser, smell).label_set for smell in judged]
    assert np.mean(holds) >= recogniser.set_coverage - 0.1


def test_what_is_nearer_to_a_negative_has_no_name_and_taught_smells_keep_theirs() -> None:
    taught = fit_recogniser(days(1, 2, without="lemon"))
    asked = [exposure("lemon", day) for day in range(4, 10)]
    assert [smell for smell in asked if decide(taught, smell).announced]
    recogniser = with_negatives(taught, [exposure("lemon", 1)])
    for smell in asked:
        decision = decide(recogniser, smell)
        assert decision.announced is None
        assert decision.unrecognised
        assert decision.rejected
    for smell in days(*range(4, 10), without="lemon"):
        assert decide(recogniser, smell).announced == decide(taught, smell).announced


def test_negatives_change_neither_smells_nor_limits() -> None:
    plain, negative = fit_recogniser(days(1, 2)), exposure("soap", 1)
    recogniser = fit_recogniser(days(1, 2), [negative])
    assert recogniser.labels == plain.labels
    assert recogniser.novelty_limits == plain.novelty_limits
    features = prepare_exposure(negative).features
    assert recogniser.row_negative_distance(features) == pytest.approx(0.0, abs=1e-3)
    assert np.isinf(plain.row_negative_distance(features)).all()


def test_one_smell_is_told_from_unknown_ones_by_its_distance() -> None:
    recogniser = fit_recogniser([exposure("mint", day) for day in (1, 2, 3)])
    assert decide(recogniser, exposure("mint", 4)).announced == "mint"
    assert decide(recogniser, exposure("lemon", 4)).unrecognised


def simulated(label: str, day: int) -> TaughtExposure:
    """Return two minutes of a substance after clean air, on a day of the simulated board."""
    signal = SyntheticSignal(f"air:120,{label}:120", seed=day, day=day, rate_hz=1.0)
    values = np.array(list(signal), np.float32)
    quality, t_ms = np.zeros(values.shape, np.uint8), np.arange(len(values), dtype=np.int64) * 1000
    found = find_exposure(Readings(values, quality, t_ms, 1.0))
    return TaughtExposure(label, f"day {day}", found.rows)


def test_one_smell_taught_once_is_known_on_another_simulated_day_and_others_are_not() -> None:
    others = [simulated(label, 3) for label in ("garlic", "cloves")]
    for label in ("allspice", "ginger", "mint"):
        recogniser = fit_recogniser([simulated(label, 1)])
        assert decide(recogniser, simulated(label, 3)).announced == label
        assert all(decide(recogniser, other).unrecognised for other in others)


def test_exposures_without_a_response_teach_nothing() -> None:
    faint = exposure("mint", 1, strength=0.01)
    with pytest.raises(RecogniserError, match="clean air"):
        fit_recogniser([faint])


def test_smells_sessions_and_exposures_count_alike_however_long_they_are() -> None:
    exposures = [
        prepare_exposure(smell)
        for smell in (
            exposure("mint", 1),
            exposure("mint", 2),
            exposure("mint", 2, number=1),
            exposure("lemon", 1, seconds=60),
        )
    ]
    weights = np.split(
        _row_weights(exposures), np.cumsum([len(e.features) for e in exposures])[:-1]
    )
    assert [weight.sum() for weight in weights] == pytest.approx([0.25, 0.125, 0.125, 0.5])


def test_a_channel_lost_after_teaching_leaves_finite_answers() -> None:
    recogniser = fit_recogniser(days(1, 2))
    smell = exposure("mint", 3)
    smell.rows.response[:, RECOGNISER_SIGNALS[2]] = np.nan
    smell.rows.changes[:, :, RECOGNISER_SIGNALS[2]] = np.nan
    assert np.isfinite(decide(recogniser, smell).probabilities).all()


def test_fitting_twice_gives_the_same_recogniser() -> None:
    first, second = (fit_recogniser(days(1, 2)) for _ in range(2))
    features = exposure("lemon", 3).rows.features()
    assert (first.squared_distances(features) == second.squared_distances(features)).all()


def test_a_taught_row_is_not_novel() -> None:
    recogniser = fit_recogniser(days(1))
    novelty = recogniser.row_novelty(prepare_exposure(exposure("mint", 1)).features)
    assert novelty == pytest.approx(0.0, abs=1e-3)


def test_the_plateau_does_not_change_how_novel_an_exposure_is() -> None:
    recogniser = fit_recogniser(days(1, 2))
    smell = exposure("mint", 3, seconds=600)
    early = RigDecision(recogniser)
    early.add(smell.rows[: 2 * NOVELTY_STAGES[-1]])
    assert decide(recogniser, smell).novelty == early.novelty
