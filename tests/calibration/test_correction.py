"""The live correction of readings, which is independent of chunking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.correction import (
    DELAY_S,
    Compensation,
    CorrectionSpec,
    RigCorrection,
    estimator_taps,
    to_readings,
)
from hardware.channels import GAS_INDICES, N_GAS
from models.signals import log_signals
from tests.calibration.air import LEVELS, clean_air, frames, odour


def _spec(**changes: object) -> CorrectionSpec:
    spec = CorrectionSpec(
        middle=LEVELS,
        target=LEVELS + 0.3,
        matrix=np.diag(np.full(N_GAS, 1.2)),
        response_s=np.linspace(0.0, 3.0, N_GAS),
        wander=np.full(N_GAS, 1e-3),
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def test_to_readings_inverts_log_signals() -> None:
    values = clean_air(20)
    assert to_readings(log_signals(values)) == pytest.approx(values[:, GAS_INDICES], rel=1e-5)


def test_identity_changes_nothing() -> None:
    values = frames(odour(1))
    corrected = RigCorrection("x", CorrectionSpec.identity()).apply(values, 1.0)
    np.testing.assert_array_equal(corrected, values)


def test_gain_and_shift_are_removed_to_a_step_of_the_converter() -> None:
    truth = odour(2)
    measured = frames((truth - LEVELS - 0.3) / 1.2 + LEVELS)
    spec = _spec(response_s=np.zeros(N_GAS), wander=np.zeros(N_GAS))
    corrected = log_signals(RigCorrection("x", spec).apply(measured, 1.0))
    grove = slice(0, 4)
    assert np.abs(corrected - truth - 0.3 + 0.3)[:, grove].max() < 0.02


def test_a_slower_channel_is_sped_up_and_delayed() -> None:
    truth = odour(3)
    keep = np.exp(-1.0 / 2.0)
    slow = truth.copy()
    for row in range(1, len(slow)):
        slow[row] = keep * slow[row - 1] + (1 - keep) * truth[row]
    still = {"target": LEVELS, "matrix": np.eye(N_GAS)}
    spec = _spec(response_s=np.full(N_GAS, 2.0), **still)
    corrected = log_signals(RigCorrection("x", spec).apply(frames(slow), 1.0))
    delay = round(DELAY_S)
    error = np.std(corrected[20 + delay :, :4] - truth[20:-delay, :4], axis=0)
    uncorrected = np.std(slow[20:, :4] - truth[20:, :4], axis=0)
    assert (error < 0.6 * uncorrected).all()


def test_corrected_readings_are_rounded_as_by_boards() -> None:
    corrected = RigCorrection("x", _spec()).apply(frames(odour(4)), 1.0)
    assert (corrected[:, :7] == np.rint(corrected[:, :7])).all()


def test_taps_of_every_channel_sum_to_one_at_any_rate() -> None:
    for dt_s in (0.1, 1.0, 5.0):
        assert estimator_taps(_spec(), dt_s).sum(axis=0) == pytest.approx(np.ones(N_GAS))


def test_missing_readings_stay_missing_and_change_no_other_channel() -> None:
    whole = frames(odour(5))
    incomplete = whole.copy()
    incomplete[50:80, 1] = np.nan
    matrix = _spec().matrix.copy()
    corrector = RigCorrection("x", _spec(matrix=matrix))
    expected, got = corrector.apply(whole, 1.0), corrector.apply(incomplete, 1.0)
    assert np.isnan(got[50:80, 1]).all()
    assert np.isnan(got).sum() == 30
    others = [index for index in range(12) if index != 1]
    np.testing.assert_array_equal(got[:, others], expected[:, others])


def test_a_channel_missing_in_a_full_matrix_leaves_the_others_finite() -> None:
    rng = np.random.default_rng(0)
    incomplete = frames(odour(5))
    incomplete[:, 1] = np.nan
    spec = _spec(matrix=np.eye(N_GAS) + 0.05 * rng.standard_normal((N_GAS, N_GAS)))
    corrected = RigCorrection("x", spec).apply(incomplete, 1.0)
    assert np.isnan(corrected[:, 1]).all()
    assert np.isfinite(np.delete(corrected, 1, axis=1)).all()


def test_the_effect_of_humidity_is_removed() -> None:
    dry, humid = clean_air(60), clean_air(60)
    effect = np.full(N_GAS, 0.2)
    humid[:, GAS_INDICES] = to_readings(log_signals(dry) + effect)
    humid[:, 9] = 38.5
    spec = dataclasses.replace(
        CorrectionSpec.identity(), compensation=Compensation(humidity=effect)
    )
    corrected = RigCorrection("x", spec).apply(humid, 1.0)
    np.testing.assert_allclose(corrected[:, :4], dry[:, :4], atol=1.0)


def test_a_hung_bme680_changes_nothing() -> None:
    values = clean_air(30)
    hung = values.copy()
    hung[10:, 9], hung[10:, 10] = 100.0, np.nan
    spec = dataclasses.replace(
        CorrectionSpec.identity(), compensation=Compensation(humidity=np.full(N_GAS, 0.2))
    )
    corrected = RigCorrection("x", spec).apply(hung, 1.0)
    np.testing.assert_array_equal(corrected[:, :7], values[:, :7])


def test_the_frame_given_is_not_changed() -> None:
    frame = clean_air(1)[0]
    frame.flags.writeable = False
    before = frame.copy()
    RigCorrection("x", _spec())(frame, 0.0)
    np.testing.assert_array_equal(frame, before)


def test_the_history_restarts_after_a_gap() -> None:
    corrector = RigCorrection("x", _spec(response_s=np.zeros(N_GAS)))
    low, high = clean_air(30)[0], frames(LEVELS[np.newaxis] + 1.0)[0]
    for _ in range(30):
        settled = corrector(high, 1.0)
    corrector.reset()
    for _ in range(30):
        corrector(low, 1.0)
    np.testing.assert_array_equal(corrector(high, 60.0), settled)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dt_s=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    holes=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 11)), max_size=8),
    cut=st.integers(1, 59),
)
def test_any_chunking_gives_the_bits_of_the_whole(
    seed: int, dt_s: float, holes: list[tuple[int, int]], cut: int
) -> None:
    values = frames(odour(seed, seconds=60))
    for row, column in holes:
        values[row, column] = np.nan
    whole = RigCorrection("x", _spec()).apply(values, dt_s)
    stream = RigCorrection("x", _spec())
    first = np.stack([stream(frame, dt_s) for frame in values[:cut]])
    rest = np.stack([stream(frame.copy(), dt_s) for frame in values[cut:]])
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    # Later readings do not change earlier ones.
    np.testing.assert_array_equal(
        RigCorrection("x", _spec()).apply(values[:cut], dt_s), whole[:cut]
    )
    gone = np.isnan(values[:, GAS_INDICES])
    np.testing.assert_array_equal(np.isnan(whole[:, GAS_INDICES]), gone)
