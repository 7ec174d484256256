"""A clean-air baseline: its figures, and the captures that it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.baseline import (
    BaselineError,
    fit_compensation,
    is_clean_air,
    measure_baseline,
)
from calibration.correction import to_readings
from hardware.channels import GAS_INDICES, N_GAS
from hardware.mq_curves import MQ_CURVES
from models.signals import GAS_NAMES, log_signals
from tests.calibration.air import LEVELS, clean_air, frames


def test_clean_air_gives_every_channels_level_and_noise() -> None:
    baseline = measure_baseline(clean_air(120, noise=0.02), 1.0)
    assert tuple(baseline.channels) == GAS_NAMES
    assert baseline.signal[:4] == pytest.approx(LEVELS[:4], abs=0.02)
    assert baseline.channels["CO"].noise == pytest.approx(0.02, rel=0.3)
    assert baseline.environment["Humidity"] == 28.5


def test_r0_is_the_resistance_in_clean_air_over_the_makers_ratio() -> None:
    values = clean_air(120)
    values[:, 4] = 2.0
    channel = measure_baseline(values, 1.0).channels["Alcohol"]
    curve = MQ_CURVES["Alcohol"]
    # The firmware's own arithmetic, forwards: ppm of Rs over the R0 that it assumes.
    assert channel.rs_kohm is not None
    assert channel.r0_kohm is not None
    assert curve.a * (channel.rs_kohm / curve.r0_kohm) ** curve.b == pytest.approx(2.0)
    assert channel.r0_kohm * 3.6 == pytest.approx(channel.rs_kohm)


def test_a_part_at_the_firmwares_clean_air_has_the_firmwares_r0() -> None:
    curve = MQ_CURVES["LPG"]
    ppm = curve.a * curve.clean_air_ratio**curve.b
    assert curve.resistance_kohm(ppm) / curve.clean_air_ratio == pytest.approx(curve.r0_kohm)


def test_a_channel_that_the_rig_lacks_is_left_out() -> None:
    values = clean_air(120)
    values[:, 10] = np.nan
    baseline = measure_baseline(values, 1.0)
    assert "Gas_Resistance" not in baseline.channels
    assert np.isnan(baseline.signal[GAS_NAMES.index("Gas_Resistance")])


def test_a_short_capture_is_refused() -> None:
    with pytest.raises(BaselineError, match="needs 60 s, this capture has 30 s"):
        measure_baseline(clean_air(30), 1.0)


def test_a_channel_still_warming_up_is_named() -> None:
    drifting = LEVELS + np.outer(np.arange(180), np.eye(N_GAS)[1]) * 0.002
    with pytest.raises(BaselineError, match=r"C2H5OH drifts by 12\.\d% a minute") as refusal:
        measure_baseline(frames(drifting), 1.0)
    assert "VOC" not in str(refusal.value)


def test_an_odour_during_the_capture_is_named() -> None:
    puff = LEVELS + np.outer(np.exp(-(((np.arange(180) - 90) / 15) ** 2)), np.eye(N_GAS)[2]) * 0.6
    with pytest.raises(BaselineError, match=r"VOC moves by .* an odour"):
        measure_baseline(frames(puff), 1.0)


def test_clean_air_of_another_hour_is_distinguished_from_a_faint_odour() -> None:
    baseline = measure_baseline(clean_air(120), 1.0)
    assert is_clean_air(clean_air(300, seed=1), baseline)
    for channel in range(N_GAS):
        if GAS_NAMES[channel] not in MQ_CURVES:  # theirs are whole ppm: a step is coarser than air
            faint = frames(np.tile(LEVELS + 0.2 * np.eye(N_GAS)[channel], (300, 1)))
            assert not is_clean_air(faint, baseline)


def test_a_channel_that_fails_intermittently_is_named() -> None:
    values = clean_air(120)
    values[::5, 3] = np.nan
    with pytest.raises(BaselineError, match="CO is unusable in 20% of the readings"):
        measure_baseline(values, 1.0)


def test_a_board_without_gas_channels_is_refused() -> None:
    values = clean_air(120)
    values[:, GAS_INDICES] = np.nan
    with pytest.raises(BaselineError, match="no usable gas channel"):
        measure_baseline(values, 1.0)


def test_a_single_glitch_does_not_spoil_a_capture() -> None:
    values = clean_air(120)
    values[60, 0] += 1.0
    measure_baseline(values, 1.0)


def test_the_effect_of_humidity_is_fitted_on_clean_air() -> None:
    humidity = np.linspace(20.0, 60.0, 600)
    effect = np.linspace(-0.1, 0.1, N_GAS)
    values = frames(LEVELS + np.outer((humidity - 28.5) / 10, effect))
    values[:, 9] = humidity
    fitted = fit_compensation([values[:300], values[300:]], 1.0)
    assert fitted.humidity[:4] == pytest.approx(effect[:4], abs=0.02)
    assert not fitted.temperature.any()
    removed = log_signals(values) - fitted.offsets(values)
    assert np.ptp(removed[:, 0]) < 0.2 * np.ptp(log_signals(values)[:, 0])


def test_no_effect_of_humidity_is_fitted_on_steady_air() -> None:
    assert fit_compensation([clean_air(300)], 1.0).is_zero


def test_a_single_step_of_the_converter_is_no_drift() -> None:
    # One count in a hundred flips once: a step, and no more than that.
    values = frames(np.tile(LEVELS, (90, 1)))
    values[50:, 0] += 1
    assert to_readings(log_signals(values))[0, 0] == values[0, 0]
    measure_baseline(values, 1.0)
