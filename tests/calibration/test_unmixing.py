"""An unmixing is fitted to what a rig was taught: singles, dilutions and mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.unmixing import (
    Priors,
    TaughtResponse,
    fit_unmixing,
    plateau,
)
from hardware.channels import (
    GAS_EXPONENTS,
    GAS_INDICES,
    MQ_FLOOR_PPM,
    N_GAS,
    channel_index,
)
from hardware.mixing_law import mixed_response
from models.unmixing import Unmixing, UnmixingError

GROVE = Priors.of_channels(range(4))
SMELLS = {
    "banana": np.array([0.9, 1.2, 0.9, 0.5]),
    "clove": np.array([1.3, 1.6, 1.4, 0.6]),
    "lemon": np.array([1.9, 2.8, 2.3, 3.4]),
    "mint": np.array([0.5, 1.4, 0.7, 1.8]),
}
LABELS = sorted(SMELLS)


def taught(
    strengths: dict[str, float],
    session: str = "day 1",
    *,
    exponents: np.ndarray = GROVE.exponents,
    noise: float = 0.0,
    seed: int = 0,
) -> TaughtResponse:
    rng = np.random.default_rng([seed, *map(ord, session + "".join(strengths))])
    law = mixed_response(
        [SMELLS[label] for label in strengths], list(strengths.values()), exponents
    )
    return TaughtResponse(strengths, session, law + noise * rng.normal(size=4))


def singles(session: str = "day 1", *, noise: float = 0.0, seed: int = 0) -> list[TaughtResponse]:
    return [taught({label: 1.0}, session, noise=noise, seed=seed) for label in LABELS]


def test_singles_taught_once_give_their_responses() -> None:
    fitted = fit_unmixing(singles(), GROVE, session="day 1")
    assert fitted.labels == tuple(LABELS)
    for label, response in zip(fitted.labels, fitted.responses, strict=True):
        assert response == pytest.approx(SMELLS[label], abs=0.05)
    assert fitted.exponents == pytest.approx(GROVE.exponents)


def test_a_mixture_of_smells_taught_once_is_unmixed() -> None:
    fitted = fit_unmixing(singles(noise=0.03), GROVE)
    found = fitted.estimate(taught({"clove": 0.5, "mint": 0.5}).response)
    assert {"clove", "mint"} & set(found.likeliest)
    assert not found.unexplained
    only = fitted.estimate(SMELLS["lemon"])
    assert only.likeliest == ("lemon",)


def test_a_smell_can_be_taught_by_its_mixtures_alone() -> None:
    mixtures = [
        taught({"banana": share, "mint": 1.0 - share}) for share in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    fitted = fit_unmixing(mixtures, GROVE, session="day 1")
    assert fitted.responses[0] == pytest.approx(SMELLS["banana"], abs=0.2)
    assert fitted.responses[1] == pytest.approx(SMELLS["mint"], abs=0.1)


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_dilution_pair_refines_the_exponents(factor: float) -> None:
    true = factor * GROVE.exponents
    plain = [taught({label: 1.0}, exponents=true) for label in LABELS]
    diluted = [taught({"lemon": strength}, exponents=true) for strength in (0.1, 0.1, 0.25)]
    before = fit_unmixing(plain, GROVE).exponents
    after = fit_unmixing(plain + diluted, GROVE).exponents
    assert np.all(np.abs(np.log(after / true)) < 0.5 * np.abs(np.log(before / true)))


def test_the_offset_of_a_session_is_learned_where_something_was_taught_in_it() -> None:
    shift = np.array([0.4, 0.3, 0.5, 0.1])
    today = [
        one._replace(session="day 2", response=one.response + shift)
        for one in singles()
        if "mint" not in one.strengths
    ]
    asked = SMELLS["mint"] + shift
    known = fit_unmixing(singles() + today, GROVE, session="day 2")
    unknown = fit_unmixing(singles() + today, GROVE)
    assert known.responses[LABELS.index("mint")] == pytest.approx(asked, abs=0.1)
    assert np.trace(known.spread) < np.trace(unknown.spread)
    assert known.estimate(asked).likeliest == ("mint",)


def test_more_exposures_are_trusted_more() -> None:
    once = fit_unmixing(singles(noise=0.03), GROVE, session="day 1")
    often = fit_unmixing(
        [one for seed in range(6) for one in singles(noise=0.03, seed=seed)],
        GROVE,
        session="day 1",
    )
    assert often.freedom > once.freedom
    assert often.exposures.min() > once.exposures.max()
    assert np.trace(often.spread) < np.trace(once.spread)


def test_a_channel_whose_clean_air_is_not_resolved_says_less_on_another_day() -> None:
    alcohol = GAS_INDICES.index(channel_index("Alcohol"))
    priors = Priors.of_channels([0, 3, alcohol])

    def fit(ppm: float) -> Unmixing:
        air = np.array([-1.0, -1.0, np.log(ppm)])
        responses = {"clove": [1.3, 0.6, 1.0], "mint": [0.5, 1.8, 2.0]}
        exposures = [
            TaughtResponse({label: 1.0}, "day 1", np.array(response), air)
            for label, response in responses.items()
        ]
        return fit_unmixing(exposures, priors)

    resolved, below = (np.sqrt(np.diag(fit(ppm).spread)) for ppm in (5.0, MQ_FLOOR_PPM))
    assert below[2] > 2.0 * resolved[2]
    assert below[:2] == pytest.approx(resolved[:2])


def test_a_channel_missing_in_every_exposure_is_not_used() -> None:
    gone = []
    for one in singles():
        response = one.response.copy()
        response[2] = np.nan
        gone.append(one._replace(response=response))
    fitted = fit_unmixing(gone, GROVE)
    assert np.isnan(fitted.responses[:, 2]).all()
    assert fitted.estimate(SMELLS["lemon"]).likeliest == ("lemon",)


@given(st.permutations(range(8)))
@settings(deadline=None, max_examples=20)
def test_the_order_of_exposures_changes_nothing(order: list[int]) -> None:
    exposures = singles(noise=0.05) + singles("day 2", noise=0.05)
    one = fit_unmixing(exposures, GROVE)
    other = fit_unmixing([exposures[k] for k in order], GROVE)
    np.testing.assert_allclose(one.responses, other.responses, atol=1e-6)
    np.testing.assert_allclose(one.spread, other.spread, atol=1e-6)


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(UnmixingError, match="Teach a smell"):
        fit_unmixing([], GROVE)
    with pytest.raises(UnmixingError, match="strength"):
        fit_unmixing([TaughtResponse({"banana": 0.0}, "day 1", np.zeros(4))], GROVE)
    with pytest.raises(UnmixingError, match="4 channels"):
        fit_unmixing([TaughtResponse({"banana": 1.0}, "day 1", np.zeros(3))], GROVE)


def test_the_table_has_an_exponent_for_every_gas_channel() -> None:
    assert len(GAS_EXPONENTS) == N_GAS
    assert all(0.1 < exponent <= 1.0 for exponent in GAS_EXPONENTS)
    assert Priors.of_channels().exponents == pytest.approx(GAS_EXPONENTS)


def test_a_plateau_is_the_mean_of_the_last_seconds_without_gaps() -> None:
    rows = np.column_stack([np.arange(100.0), np.full(100, np.nan)])
    rows[-2, 0] = np.nan
    assert plateau(rows, 2.0, last_s=2.0)[0] == pytest.approx(np.mean([96.0, 97.0, 99.0]))
    assert np.isnan(plateau(rows, 2.0)[1])
