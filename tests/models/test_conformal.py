"""Sets and intervals contain the truth as often as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.conformal import margin, set_threshold


@given(n=st.integers(9, 60), seed=st.integers(0, 10**6), coverage=st.floats(0.5, 0.9))
def test_a_threshold_excludes_no_more_cases_than_stated(n: int, seed: int, coverage: float) -> None:
    belief = np.random.default_rng(seed).random(n)
    threshold = set_threshold(belief, coverage)
    assert threshold is not None
    assert (belief >= threshold).mean() >= coverage
    # One case more would be too many: the sets are no larger than necessary.
    assert (belief > threshold).sum() < coverage * (n + 1) + 1e-9


def test_the_next_case_is_covered_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    held = [
        belief[-1] >= (set_threshold(belief[:-1], 0.8) or 0.0)
        for belief in rng.beta(4, 1, (4000, 20))
    ]
    assert np.mean(held) == pytest.approx(0.8, abs=0.02)
    inside = [
        error[-1] <= (margin(error[:-1], 0.8) or 1.0) for error in rng.exponential(1, (4000, 20))
    ]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("n", "enough"), [(8, False), (9, True)])
def test_too_few_cases_give_no_bound(n: int, *, enough: bool) -> None:
    """A coverage of 90 % needs nine cases at least."""
    cases = np.linspace(0.1, 0.9, n)
    assert (set_threshold(cases, 0.9) is not None) == enough
    assert (margin(cases, 0.9) is not None) == enough
    if enough:
        assert set_threshold(cases, 0.9) == cases.min()
        assert margin(cases, 0.9) == cases.max()


def test_predictions_of_one_exposure_do_not_count_as_independent_cases() -> None:
    """Ten exposures with a hundred predictions each give the bound of ten cases."""
    rng = np.random.default_rng(4)
    belief = np.repeat(rng.random(10), 100)
    assert set_threshold(belief, 0.9, cases=10) == belief.min()
    assert set_threshold(belief, 0.95, cases=10) is None
    assert margin(belief, 0.9, cases=10) == belief.max()
    assert set_threshold(belief, 0.9) == np.sort(belief)[99]
