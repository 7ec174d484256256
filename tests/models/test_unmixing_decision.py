"""What is announced of a mixture of taught smells, from the onset to the plateau."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.unmixing_decision import CONFIRM, UnmixingDecision
from tests.models.test_unmixing import LABELS, response_of, unmixing


def exposed(
    decision: UnmixingDecision, plateau: np.ndarray, seconds: float, rate_hz: float = 1.0
) -> list[str | None]:
    """Let a first-order rise of 15 s go on, decide every 5 s, and return what is announced."""
    announced = []
    for reading in range(1, int(seconds * rate_hz) + 1):
        t_s = reading / rate_hz
        decision.observe(plateau * (1.0 - np.exp(-t_s / 15.0)), t_s)
        if reading % int(5 * rate_hz) == 0:
            decision.decide()
            announced.append(decision.announced)
    return announced


@pytest.mark.parametrize("rate_hz", [0.4, 1.0, 10.0])
def test_a_mixture_is_announced_on_its_plateau_at_any_rate(rate_hz: float) -> None:
    decision = UnmixingDecision(unmixing())
    exposed(decision, response_of({"clove": 0.7, "lemon": 0.3}), 120.0, rate_hz)
    assert decision.announced == "clove + lemon"
    assert [part.label for part in decision.components] == ["clove", "lemon"]
    assert all(part.low is not None and part.low <= 0.7 for part in decision.components)


def test_a_rise_announces_nothing_that_the_plateau_withdraws() -> None:
    decision = UnmixingDecision(unmixing())
    announced = exposed(decision, response_of({"mint": 1.0}), 120.0)
    assert announced[0] is None
    assert set(announced) == {None, "mint"}


def test_a_plateau_from_its_first_reading_is_announced() -> None:
    decision = UnmixingDecision(unmixing())
    for t_s in range(30):
        decision.observe(response_of({"lemon": 1.0}), float(t_s))
        decision.decide()
    assert decision.announced == "lemon"


def test_an_unexplained_response_announces_nothing_and_needs_confirmation() -> None:
    decision = UnmixingDecision(unmixing())
    strange = np.array([-1.5, 2.5, -1.0, 1.0, -2.0])
    for t_s in range(25):
        decision.observe(strange, float(t_s))
    seen = []
    for _ in range(CONFIRM):
        decision.decide()
        seen.append(decision.unexplained)
    assert seen == [False, True]
    assert decision.unrecognised
    assert decision.components == ()
    assert decision.groups == ()


def test_clearing_and_withdrawing() -> None:
    decision = UnmixingDecision(unmixing())
    exposed(decision, response_of({"lemon": 1.0}), 60.0)
    assert decision.belief > 0.5
    decision.withdraw()
    assert decision.announced is None
    assert decision.top[0][0] == "lemon"
    decision.clear()
    decision.decide()
    assert decision.top == ()
    assert decision.composition is None


def test_missing_channels_and_missing_readings_are_survived() -> None:
    decision = UnmixingDecision(unmixing())
    response = response_of({"banana": 1.0})
    for t_s in range(60):
        row = np.full(5, np.nan) if t_s % 3 else response.copy()
        row[1] = np.nan
        decision.observe(row, float(t_s))
        decision.decide()
    assert decision.announced == "banana"
    decision.clear()
    decision.observe(np.full(5, np.nan), 0.0)
    decision.decide()
    assert decision.announced is None
    assert len(LABELS) == 4


def test_smells_without_a_channel_in_common_announce_nothing() -> None:
    taught = unmixing()
    responses = taught.responses.copy()
    responses[0, :3], responses[1, 3:] = np.nan, np.nan
    decision = UnmixingDecision(dataclasses.replace(taught, responses=responses))
    decision.observe(response_of({"banana": 1.0}), 0.0)
    decision.decide()
    assert decision.announced is None
