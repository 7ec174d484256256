"""What a rig was taught, in the nose: names, mixtures, silence about the rest; without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from calibration.recogniser import TaughtExposure, fit_recogniser, with_negatives
from calibration.unmixing import unmixing_of_smells
from hardware.channels import GAS_EXPONENTS
from hardware.mixing_law import mixed_response
from models.decision_spec import State
from models.exposure import Phase
from models.nose import Nose
from models.recogniser import TAUGHT
from models.results import EventType, Prediction
from models.rig_stream import RigStream
from tests.models.episodes import air, fading, frames, odour, process_all
from tests.models.test_clean_air import Board, rise, still

if TYPE_CHECKING:
    from models.recogniser import Recogniser
    from models.unmixing import Unmixing

SMELLS = {
    "mint": np.array([0.5, 0.9, 0.8, 0.4]),
    "lemon": np.array([0.9, 0.4, 0.3, 1.5]),
    "soap": np.array([0.2, 0.5, 1.2, 2.2]),
}
UNKNOWN = np.array([1.4, 0.1, 0.1, 0.1])


def exposure(label: str, session: str, seed: int = 0) -> TaughtExposure:
    """Return what a board that is exposed to a smell teaches, another strength each time."""
    size = np.random.default_rng([seed, len(label)]).uniform(0.9, 1.1)
    return exposure_to(size * SMELLS[label], label, session)


def exposure_to(gains: np.ndarray, label: str, session: str) -> TaughtExposure:
    board = Board()
    board.play(still(60))
    rows = board.play(np.outer(1 - np.exp(-np.arange(180) / 12), gains))
    assert board.stream.clean_air is not None
    return TaughtExposure(label, session, rows, board.stream.clean_air.signals)


class Taught(NamedTuple):
    """What a nose is given of the library."""

    recogniser: Recogniser
    unmixing: Unmixing | None


@pytest.fixture(scope="module")
def rig() -> Taught:
    days = ("monday", "tuesday", "friday")
    exposures = [
        exposure(label, day, number) for label in SMELLS for number, day in enumerate(days)
    ]
    return Taught(fit_recogniser(exposures), unmixing_of_smells(exposures))


def smelled(rig: Taught, gains: np.ndarray, rate_hz: float = 1.0) -> list[Prediction]:
    """Return the predictions of clean air, a smell and its end."""
    nose = Nose([], recogniser=rig.recogniser, unmixing=rig.unmixing, rate_hz=rate_hz)
    steps = np.concatenate(
        [air(60, rate_hz), odour(gains, 150, rate_hz), fading(gains, 100, rate_hz)]
    )
    return process_all(nose, frames(steps, rate_hz))[0]


def names(predictions: list[Prediction], task: str) -> set[str]:
    """Return what was announced."""
    announced = [p for p in predictions if p.task == task and p.state is State.RECOGNISED]
    return {p.label or "+".join(sorted(part.label for part in p.components)) for p in announced}


@pytest.mark.parametrize("label", SMELLS)
@pytest.mark.parametrize("rate_hz", [0.4, 1.0, 10.0])
def test_taught_smells_are_named_without_any_model_at_any_rate(
    rig: Taught, label: str, rate_hz: float
) -> None:
    predictions = smelled(rig, SMELLS[label], rate_hz)
    assert names(predictions, "substance") == {label}
    assert {p.model for p in predictions} == {TAUGHT}
    assert {p.clean_air for p in predictions if p.label} == {"ambient"}


def test_a_smell_that_was_never_taught_is_unrecognised(rig: Taught) -> None:
    predictions = smelled(rig, UNKNOWN)
    assert names(predictions, "substance") == set()
    assert State.UNRECOGNISED in {p.state for p in predictions if p.task == "substance"}


def mint_and_soap() -> np.ndarray:
    exponents = np.array(GAS_EXPONENTS[:4])
    pure = np.array([SMELLS["mint"], SMELLS["soap"]])
    gains: np.ndarray = mixed_response(pure, np.array([[0.6, 0.4]]), exponents)[0]
    return gains


def test_what_is_kept_as_a_negative_has_no_name_as_a_mixture_either(rig: Taught) -> None:
    negative = exposure_to(mint_and_soap(), "not a taught smell", "saturday")
    told = rig._replace(recogniser=with_negatives(rig.recogniser, [negative]))
    assert names(smelled(rig, mint_and_soap()), "mixture") != set()
    assert names(smelled(told, mint_and_soap()), "mixture") == set()
    assert names(smelled(told, SMELLS["lemon"]), "mixture") == {"lemon"}


def test_a_mixture_of_two_taught_smells_is_named_on_the_mixture_topic(rig: Taught) -> None:
    predictions = [p for p in smelled(rig, mint_and_soap()) if p.t_ms < 210_000]  # before it fades
    last = [p for p in predictions if p.task == "mixture" and p.state is State.RECOGNISED][-1]
    assert {part.label for part in last.components} == {"mint", "soap"}
    for part in last.components:
        assert part.low is not None
        assert part.high is not None
        assert part.low <= part.proportion <= part.high


def test_a_single_smell_is_no_mixture(rig: Taught) -> None:
    predictions = smelled(rig, SMELLS["lemon"])
    last = [p for p in predictions if p.task == "mixture" and p.state is State.RECOGNISED][-1]
    assert [part.label for part in last.components] == ["lemon"]


@pytest.mark.parametrize("label", SMELLS)
def test_the_mixture_of_a_single_smell_is_never_another_smell_nor_several(
    rig: Taught, label: str
) -> None:
    exponents = np.array(GAS_EXPONENTS[:4])
    weak = smelled(rig, mixed_response(SMELLS[label][np.newaxis], np.array([[0.7]]), exponents)[0])
    assert names([*weak, *smelled(rig, SMELLS[label])], "mixture") == {label}


def test_what_no_composition_explains_is_said(rig: Taught) -> None:
    predictions = [p for p in smelled(rig, 2.0 * UNKNOWN) if p.task == "mixture"]
    unexplained = [p for p in predictions if p.unexplained]
    assert len(unexplained) > 10
    assert {p.state for p in unexplained} == {State.UNRECOGNISED}
    assert {p.components for p in unexplained} == {()}


def test_on_an_unknown_board_embeddings_do_not_name_a_smell_that_the_recogniser_will_know(
    rig: Taught,
) -> None:
    stream = RigStream(rig.recogniser)
    by_model = {"state": State.RECOGNISED, "label": "mint", "probability": 0.9}
    result = stream.replace_result(by_model, Phase.EXPOSED, model_knows_board=False)
    assert result == {"state": State.SENSING, "label": None, "probability": None}
    assert stream.replace_result(by_model, Phase.EXPOSED, model_knows_board=True) == by_model
    other = {**by_model, "label": "taught without clean air"}
    assert stream.replace_result(other, Phase.EXPOSED, model_knows_board=False) == other


def test_each_exposure_is_announced_once(rig: Taught) -> None:
    nose = Nose([], recogniser=rig.recogniser, unmixing=rig.unmixing, rate_hz=1.0)
    once = [odour(SMELLS["mint"], 120, 1), fading(SMELLS["mint"], 200, 1)]
    _, events = process_all(nose, frames(np.concatenate([air(60, 1), *once, *once]), 1))
    named = [e for e in events if e.type is EventType.RECOGNISED and e.label == "mint"]
    assert len(named) == 4  # twice, as a substance and as the only component


def test_clean_air_has_no_name(rig: Taught) -> None:
    nose = Nose([], recogniser=rig.recogniser, unmixing=rig.unmixing, rate_hz=10.0)
    predictions, events = process_all(nose, frames(air(200, 10), 10))
    assert {p.state for p in predictions} <= {State.WARMING_UP, State.AMBIENT}
    assert events == []


def test_a_rise_too_small_for_a_direction_is_no_evidence(rig: Taught) -> None:
    board = Board()
    board.play(still(60))
    rows = board.play(rise(120, size=0.2))
    assert names(smelled(rig, 0.1 * SMELLS["mint"]), "substance") == set()
    assert len(rows)
