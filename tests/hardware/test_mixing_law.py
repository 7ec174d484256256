"""The mixing law: a power of summed concentrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hardware.mixing_law import doses, mixed_response, mixed_slopes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

EXPONENT = np.array([0.2, 0.25, 0.3, 0.65, 0.5, 1.0])
SMALLEST_RESPONSE = 1e-6
"""A converter's step is 4000 times larger; what is much smaller is lost to rounding."""
_response = st.just(0.0) | st.floats(SMALLEST_RESPONSE, 4) | st.floats(-3, -SMALLEST_RESPONSE)
_responses = st.lists(_response, min_size=len(EXPONENT), max_size=len(EXPONENT)).map(np.array)


@given(_responses)
def test_one_gas_at_full_concentration_has_its_own_response(response: Vector) -> None:
    np.testing.assert_allclose(mixed_response([response], [1.0], EXPONENT), response, atol=1e-9)


@given(_responses, st.floats(min_value=0.05, max_value=0.95))
def test_two_parts_of_one_gas_respond_as_that_gas(response: Vector, share: float) -> None:
    split = mixed_response([response, response], [share, 1 - share], EXPONENT)
    np.testing.assert_allclose(split, response, atol=1e-9)


def test_the_exponent_is_the_slope_at_high_concentration() -> None:
    response = np.full(len(EXPONENT), 1.5)
    low, high = (mixed_response([response], [c], EXPONENT) for c in (1e4, 1e6))
    np.testing.assert_allclose((high - low) / np.log(100), EXPONENT, rtol=1e-3)


@given(_responses, st.floats(min_value=0.01, max_value=10), st.floats(min_value=1.01, max_value=5))
def test_more_of_a_gas_gives_every_channel_a_larger_response(
    response: Vector, concentration: float, factor: float
) -> None:
    little = mixed_response([response], [concentration], EXPONENT)
    much = mixed_response([response], [concentration * factor], EXPONENT)
    assert np.all(np.abs(much) >= np.abs(little) - 1e-12)
    assert np.all(np.sign(much[response != 0]) == np.sign(response[response != 0]))


def test_an_oxidising_and_a_reducing_gas_cancel() -> None:
    up, down = np.full(len(EXPONENT), 1.0), np.full(len(EXPONENT), -1.0)
    np.testing.assert_allclose(mixed_response([up, down], [1, 1], EXPONENT), 0, atol=1e-12)


def test_clean_air_gives_no_response() -> None:
    np.testing.assert_array_equal(mixed_response([], [], EXPONENT), np.zeros(len(EXPONENT)))


def test_many_mixtures_at_once_equal_one_after_the_other() -> None:
    responses = np.random.default_rng(0).uniform(-1, 2, (3, len(EXPONENT)))
    amounts = np.array([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 2.0, 0.1]])
    together = mixed_response(responses, amounts, EXPONENT)
    alone = [mixed_response(responses, one, EXPONENT) for one in amounts]
    np.testing.assert_allclose(together, alone)


def test_a_tenth_of_a_strong_smell_dominates_a_weak_one() -> None:
    strong, weak = np.full(len(EXPONENT), 2.5), np.full(len(EXPONENT), 0.5)
    mixed = mixed_response([strong, weak], [0.1, 0.9], EXPONENT)[:3]
    assert np.all(np.abs(mixed - strong[:3]) < np.abs(mixed - weak[:3]))


def test_a_dose_has_the_sign_of_its_response() -> None:
    signs = np.sign(doses(np.array([[-1.0, 0.0, 1.0]]), EXPONENT[:3]))
    np.testing.assert_array_equal(signs, [[-1, 0, 1]])


@given(_responses, _responses, st.floats(min_value=0.05, max_value=0.95))
def test_the_slopes_are_those_of_small_steps(one: Vector, other: Vector, share: float) -> None:
    responses, shares = np.array([one, other]), np.array([[share, 1.0 - share], [1.0, 0.0]])
    slopes = mixed_slopes(responses, shares, EXPONENT)
    step = np.where(responses >= 0, 1e-7, -1e-7)  # away from the corner at 0
    for gas in range(2):
        moved = responses.copy()
        moved[gas] += step[gas]
        change = mixed_response(moved, shares, EXPONENT) - mixed_response(
            responses, shares, EXPONENT
        )
        np.testing.assert_allclose(slopes[:, gas], change / step[gas], atol=1e-4)
