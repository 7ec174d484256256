"""Rig transfer: the correction of a rig with other gains and shifts, fitted on references."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.correction import Compensation, CorrectionSpec
from calibration.rig_reference import ONSET_S, ResponseExcerpt, RigReference, TransferError
from calibration.transfer import MIN_PAIRED, Transfer, fit_transfer, mismatch
from hardware.channels import N_GAS
from models.signals import log_signals
from tests.calibration.air import LEVELS, frames, odour

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = tuple(f"odour-{number}" for number in range(12))
GAIN = np.array([1.3, 0.8, 1.2, 0.75, 1.25, 0.8, 1.1, 0.85])
SHIFT = np.array([0.4, -0.3, 0.2, 0.5, -0.4, 0.3, -0.2, 0.3])


@pytest.fixture(scope="module")
def reference() -> RigReference:
    return RigReference.measure(
        {
            label: [frames(odour(number, take=take)) for take in range(4)]
            for number, label in enumerate(LABELS)
        }
    )


def _skewed(number: int, take: int = 9) -> ResponseExcerpt:
    signal = LEVELS + SHIFT + (odour(number, take=take) - LEVELS) / GAIN
    return ResponseExcerpt.from_readings(LABELS[number], frames(signal), 1.0)


@pytest.fixture(scope="module")
def fitted(reference: RigReference) -> Callable[[int], Transfer]:
    """Fit the rig from its first exposures, once for all tests."""
    return cache(
        lambda count: fit_transfer([_skewed(number) for number in range(count)], reference)
    )


def test_four_references_find_gain_and_shift(fitted: Callable[[int], Transfer]) -> None:
    error = np.log(np.diagonal(fitted(4).spec.matrix) / GAIN)
    assert fitted(4).method in ("affine", "paced")
    assert np.abs(error).mean() < 0.5 * np.abs(np.log(GAIN)).mean()


def test_other_exposures_look_as_on_the_training_rig(
    reference: RigReference, fitted: Callable[[int], Transfer]
) -> None:
    others = [_skewed(number) for number in range(5, 12)]
    before = np.mean([mismatch(CorrectionSpec.identity(), x, reference) for x in others])
    after = np.mean([mismatch(fitted(4).spec, x, reference) for x in others])
    assert after < 0.6 * before


def test_a_rig_like_the_training_rig_gets_almost_no_correction(reference: RigReference) -> None:
    same = [
        ResponseExcerpt.from_readings(LABELS[number], frames(odour(number, take=9)), 1.0)
        for number in range(4)
    ]
    transfer = fit_transfer(same, reference)
    assert transfer.errors[transfer.method] <= transfer.errors["none"]
    np.testing.assert_allclose(np.diagonal(transfer.spec.matrix), np.ones(N_GAS), atol=0.2)


def test_the_chosen_method_is_never_worse_than_none_on_exposures_left_out(
    reference: RigReference,
) -> None:
    # References that contradict each other: every label is another one's.
    muddled = [
        ResponseExcerpt(LABELS[(number + 5) % 12], _skewed(number).signal) for number in range(4)
    ]
    transfer = fit_transfer(muddled, reference)
    assert transfer.errors[transfer.method] <= transfer.errors["none"]


def test_channels_are_combined_only_from_six_references_on(
    fitted: Callable[[int], Transfer],
) -> None:
    assert "standardised" not in fitted(MIN_PAIRED - 1).errors
    assert "standardised" in fitted(MIN_PAIRED).errors


def test_standardisation_wins_where_channels_leak_into_each_other(
    reference: RigReference,
) -> None:
    leak = np.eye(N_GAS)
    leak[0, 3], leak[2, 1] = 0.6, -0.6
    exposures = [
        ResponseExcerpt(
            LABELS[number],
            _skewed(number).signal
            + (odour(number, take=9)[ONSET_S:] - LEVELS) @ (leak - np.eye(N_GAS)).T,
        )
        for number in range(10)
    ]
    assert fit_transfer(exposures, reference).method == "standardised"


def test_a_single_reference_gives_a_shift_only(reference: RigReference) -> None:
    single = fit_transfer([_skewed(0)], reference)
    assert single.method == "shift"
    np.testing.assert_array_equal(single.spec.matrix, np.eye(N_GAS))


def test_one_atypical_reference_has_little_weight(reference: RigReference) -> None:
    good = [_skewed(number) for number in range(4)]
    odd = ResponseExcerpt(LABELS[4], _skewed(4).signal + np.linspace(-1.5, 1.5, N_GAS))
    error = np.log(np.diagonal(fit_transfer([*good, odd], reference).spec.matrix) / GAIN)
    assert np.abs(error).mean() < 0.5 * np.abs(np.log(GAIN)).mean()


def test_a_channel_without_readings_is_not_corrected(reference: RigReference) -> None:
    exposures = [_skewed(number) for number in range(2)]
    for exposure in exposures:
        exposure.signal[:, 7] = np.nan
    spec = fit_transfer(exposures, reference).spec
    assert (spec.matrix[7, 7], spec.target[7] - spec.middle[7]) == (1.0, 0.0)


def test_a_reference_is_restored_from_the_arrays_of_a_bundle(reference: RigReference) -> None:
    again = RigReference.from_arrays(reference.labels, reference.to_arrays())
    assert again is not None
    np.testing.assert_array_equal(again.mean, reference.mean)
    assert RigReference.from_arrays(reference.labels, {}) is None


def test_compensation_is_part_of_the_correction(reference: RigReference) -> None:
    air = Compensation(humidity=np.full(N_GAS, 0.1))
    spec = fit_transfer([_skewed(0)], reference, air).spec
    assert spec.compensation is air


def test_a_fast_board_is_averaged_to_a_reading_a_second() -> None:
    fast = np.repeat(frames(odour(0, seconds=120)), 10, axis=0)
    slow = frames(odour(0, seconds=120))
    np.testing.assert_allclose(
        ResponseExcerpt.from_readings("x", fast, 10.0).signal,
        ResponseExcerpt.from_readings("x", slow, 1.0).signal,
        atol=1e-4,
    )


def test_a_slow_board_is_interpolated_between_its_readings() -> None:
    signal = odour(0, seconds=240)
    t_ms = np.arange(0, 240, 3) * 1000
    excerpt = ResponseExcerpt.from_readings("x", frames(signal[::3]), 1 / 3, t_ms=t_ms)
    whole = ResponseExcerpt.from_readings("x", frames(signal), 1.0)
    assert len(excerpt.signal) == pytest.approx(240 - ONSET_S, abs=3)
    # The MQ parts send whole ppm.
    difference = excerpt.features[:, 0] - whole.features[:, 0]
    assert np.abs(difference).max() < 0.05


def test_the_onset_is_left_out_as_far_as_enough_remains() -> None:
    values = frames(odour(0))
    for seconds, kept in ((300, 255), (120, 100), (100, 100)):
        signal = ResponseExcerpt.from_readings("x", values[:seconds], 1.0).signal
        np.testing.assert_array_equal(signal, log_signals(values[:seconds])[seconds - kept :])


@pytest.mark.parametrize(("seconds", "rate_hz"), [(60, 1.0), (200, 0.1)])
def test_a_short_or_slow_exposure_is_refused(seconds: int, rate_hz: float) -> None:
    with pytest.raises(TransferError, match="at least 100 s"):
        ResponseExcerpt.from_readings("x", frames(odour(0, seconds=seconds)), rate_hz)


def test_labels_that_the_model_does_not_know_are_refused(reference: RigReference) -> None:
    stranger = ResponseExcerpt("durian", _skewed(0).signal)
    with pytest.raises(TransferError, match="does not know durian"):
        fit_transfer([stranger], reference)
    with pytest.raises(TransferError, match="needs references"):
        fit_transfer([], reference)
