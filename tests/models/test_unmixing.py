"""Unmixing: compositions of taught smells are found by the law by which sensors mix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.mixing_law import mixed_response
from models.unmixing import (
    INTERVAL_COVERAGE,
    MOST_PARTS,
    PAIR_SHARES,
    Unmixing,
    UnmixingError,
    composition_grid,
)

EXPONENTS = np.array([0.2, 0.25, 0.3, 0.6, 0.6])
LABELS = ("banana", "clove", "lemon", "mint")
RESPONSES = np.array(
    [
        [0.6, 0.9, 0.5, 0.2, 0.4],
        [1.2, 0.5, 0.6, -0.4, 1.5],
        [0.5, 1.4, 1.2, 2.2, 0.3],
        [0.3, 0.4, 1.6, 0.9, 2.0],
    ]
)


def unmixing(spread: float = 0.05) -> Unmixing:
    return Unmixing(
        LABELS, RESPONSES, EXPONENTS, spread**2 * np.eye(5), np.full(4, 3.0), freedom=10.0
    )


def response_of(shares: dict[str, float]) -> np.ndarray:
    amounts = np.array([shares.get(label, 0.0) for label in LABELS])
    return mixed_response(RESPONSES, amounts, EXPONENTS)


@pytest.mark.parametrize("label", LABELS)
def test_a_taught_smell_is_found_alone(label: str) -> None:
    found = unmixing().estimate(response_of({label: 1.0}))
    assert found.likeliest == (label,)
    assert found.presence[LABELS.index(label)] > 0.9
    assert found.proportion[LABELS.index(label)] > 0.9
    assert not found.unexplained


@pytest.mark.parametrize("pair", [("banana", "clove"), ("clove", "mint"), ("lemon", "mint")])
def test_a_pair_and_its_proportions_are_found(pair: tuple[str, str]) -> None:
    found = unmixing(0.02).estimate(response_of({pair[0]: 0.6, pair[1]: 0.4}))
    assert set(found.likeliest) == set(pair)
    first = LABELS.index(pair[0])
    assert found.proportion[first] == pytest.approx(0.6, abs=0.15)
    assert found.low[first] <= 0.6 <= found.high[first]


def test_a_stronger_exposure_is_the_same_smell() -> None:
    found = unmixing().estimate(response_of({"mint": 2.0}))
    assert found.likeliest == ("mint",)


def test_a_smell_that_was_never_taught_is_unexplained() -> None:
    strange = np.array([-1.5, 2.5, -1.0, 1.0, -2.0])
    assert unmixing().estimate(strange).unexplained
    assert not unmixing().estimate(response_of({"clove": 0.5, "lemon": 0.5})).unexplained


def test_smells_that_respond_alike_form_a_group() -> None:
    twins = RESPONSES.copy()
    twins[1] = twins[0] + 0.01
    alike = dataclasses.replace(unmixing(), responses=twins)
    found = alike.estimate(twins[0])
    assert [group.labels for group in found.groups] == [("banana", "clove")]
    assert found.groups[0].presence > 0.9
    assert found.presence[:2].max() < 0.9


def test_uncertainty_makes_the_answer_less_sure() -> None:
    response = response_of({"banana": 0.5, "clove": 0.5})
    sure = unmixing().estimate(response)
    unsure = unmixing().estimate(response, np.full(5, 1.0))
    assert unsure.probability < sure.probability


def test_missing_channels_are_left_out() -> None:
    response = response_of({"mint": 1.0})
    response[3] = np.nan
    assert unmixing().estimate(response).likeliest == ("mint",)
    untaught = RESPONSES.copy()
    untaught[0, 0] = np.nan
    partly = dataclasses.replace(unmixing(), responses=untaught)
    assert partly.estimate(response_of({"mint": 1.0})).likeliest == ("mint",)


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(UnmixingError, match="channels"):
        unmixing().estimate(np.zeros(3))
    with pytest.raises(UnmixingError, match="No channel"):
        unmixing().estimate(np.full(5, np.nan))
    with pytest.raises(UnmixingError, match="one smell at least"):
        Unmixing((), np.zeros((0, 5)), EXPONENTS, np.eye(5), np.zeros(0))


@given(st.permutations(range(5)), st.lists(st.floats(-1, 3), min_size=5, max_size=5))
@settings(deadline=None, max_examples=30)
def test_the_order_of_channels_changes_nothing(order: list[int], values: list[float]) -> None:
    response = np.array(values)
    permuted = Unmixing(
        LABELS, RESPONSES[:, order], EXPONENTS[order], unmixing().spread, np.full(4, 3.0), 10.0
    )
    one, other = unmixing().estimate(response), permuted.estimate(response[order])
    np.testing.assert_allclose(one.presence, other.presence, atol=1e-9)
    np.testing.assert_allclose(one.misfit, other.misfit, rtol=1e-6)


@given(st.floats(0.2, 5.0), st.lists(st.floats(-1, 3), min_size=5, max_size=5))
@settings(deadline=None, max_examples=30)
def test_the_unit_of_signals_changes_nothing(factor: float, values: list[float]) -> None:
    """A board that states another power of conductance scales signals, exponents and spread."""
    response = np.array(values)
    scaled = Unmixing(
        LABELS,
        factor * RESPONSES,
        factor * EXPONENTS,
        factor**2 * unmixing().spread,
        np.full(4, 3.0),
        10.0,
    )
    one, other = unmixing().estimate(response), scaled.estimate(factor * response)
    np.testing.assert_allclose(one.presence, other.presence, atol=1e-9)


def test_the_grid_holds_all_sets_of_up_to_three_with_their_prior() -> None:
    grid = composition_grid(5)
    sizes = grid.member.sum(axis=1)
    assert [int((sizes == size).sum()) for size in range(1, MOST_PARTS + 1)] == [5, 10, 10]
    np.testing.assert_allclose(grid.shares.sum(axis=1), 1.0)
    np.testing.assert_array_equal(grid.shares > 0, grid.member[grid.owner])
    assert np.exp(grid.log_prior).sum() == pytest.approx(1.0)
    assert len(composition_grid(2).shares) == 2 + len(PAIR_SHARES)


def test_presence_and_intervals_are_calibrated_where_the_model_is_true() -> None:
    """Over draws from the model itself, what is believed happens as often as believed."""
    rng = np.random.default_rng(3)
    nose = unmixing(0.1)
    grid = composition_grid(4)
    believed, present, covered = [], [], []
    for row in rng.choice(len(grid.shares), 300, p=np.exp(grid.log_prior)):
        shares = grid.shares[row]
        rest = 0.1 * rng.normal(size=5) * np.sqrt(1 + (shares**2).sum() / 3)
        strength = np.exp(0.5 * rng.normal())
        found = nose.estimate(mixed_response(RESPONSES, strength * shares, EXPONENTS) + rest)
        believed += found.presence.tolist()
        present += (shares > 0).tolist()
        inside = (found.low - 1e-9 <= shares) & (shares <= found.high + 1e-9)
        covered += inside[(shares > 0) & (found.presence > 0.5)].tolist()
    assert np.mean(believed) == pytest.approx(np.mean(present), abs=0.04)
    sure = np.array(believed) > 0.8
    assert np.array(present)[sure].mean() > 0.85
    assert np.mean(covered) > INTERVAL_COVERAGE - 0.05
