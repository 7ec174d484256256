"""Onset and end of exposures on synthetic episodes."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from hardware.errors import UsageError
from models.exposure import Change, ExposureDetector, Phase
from models.exposure_settings import ExposureSettings

CLEAN_AIR = np.array([100.0, 300.0, 470.0, 820.0, 3.0, 31.0])
SETTINGS = ExposureSettings()


def readings(
    effect: np.ndarray, rate_hz: float, *, noise: float = 0.4, seed: int = 0
) -> np.ndarray:
    """Return board values [n, 12] for an effect in log-conductance, times a gain per channel."""
    rng = np.random.default_rng(seed)
    gains = np.array([0.8, 0.3, 0.5, 0.1, 0.2, 0.3])
    ratio = np.exp(effect[:, None] * gains)
    odds = CLEAN_AIR[:4] / (1023 - CLEAN_AIR[:4]) * ratio[:, :4]
    counts = np.rint(1023 * odds / (1 + odds) + rng.normal(0, noise, (len(effect), 4)))
    ppm = np.rint(CLEAN_AIR[4:] * ratio[:, 4:])
    values = np.full((len(effect), N_CHANNELS), np.nan)
    values[:, :6] = np.hstack([counts, ppm])
    return values


def odour(
    rate_hz: float, air_s: float, on_s: float, after_s: float, size: float = 1.0
) -> np.ndarray:
    """Return the effect of one exposure: rise in 8 s, recovery in 25 s."""
    air = np.zeros(round(air_s * rate_hz))
    rise = 1 - np.exp(-np.arange(round(on_s * rate_hz)) / (8 * rate_hz))
    fall = np.exp(-np.arange(round(after_s * rate_hz)) / (25 * rate_hz))
    return size * np.concatenate([air, rise, fall])


def changes(
    detector: ExposureDetector, values: np.ndarray, rate_hz: float
) -> list[tuple[float, Change]]:
    """Return (seconds, change) for every change."""
    found = []
    for number, row in enumerate(values.tolist()):
        change = detector.update(row, 1 / rate_hz)
        if change is not None:
            found.append((number / rate_hz, change))
    return found


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 10.0])
def test_warm_up_onset_and_end_are_found_at_any_rate(rate_hz: float) -> None:
    detector = ExposureDetector(SETTINGS)
    found = changes(detector, readings(odour(rate_hz, 60, 60, 200), rate_hz), rate_hz)
    times = {change: seconds for seconds, change in found}
    assert [change for _, change in found] == [
        Change.SETTLED, Change.ONSET, Change.ENDED, Change.CLEAN,
    ]  # fmt: skip
    assert 18 <= times[Change.SETTLED] <= 25
    assert 60 <= times[Change.ONSET] <= 68
    assert 125 <= times[Change.ENDED] <= 160
    assert detector.phase is Phase.AMBIENT
    assert detector.air_known


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_of_alternating_counts_is_no_odour(seed: int) -> None:
    detector = ExposureDetector(SETTINGS)
    quiet = readings(np.zeros(3600), 1.0, noise=0.6, seed=seed)
    assert [change for _, change in changes(detector, quiet, 1.0)] == [Change.SETTLED]
    assert detector.phase is Phase.AMBIENT


@pytest.mark.parametrize("direction", [-1, 1])
def test_slow_drift_is_no_odour(direction: int) -> None:
    detector = ExposureDetector(SETTINGS)
    drift = direction * np.linspace(0, 0.5, 4 * 3600)
    found = changes(detector, readings(drift, 1.0), 1.0)
    assert [change for _, change in found] == [Change.SETTLED]


@pytest.mark.parametrize(("before", "after", "is_onset"), [(2, 5, False), (2, 60, True)])
def test_an_mq_part_that_varies_by_a_few_ppm_is_no_odour(
    before: int, after: int, *, is_onset: bool
) -> None:
    still = readings(np.zeros(180), 1.0)
    still[:, 4] = before
    still[120:150, 4] = after
    found = changes(ExposureDetector(SETTINGS), still, 1.0)
    assert (Change.ONSET in [change for _, change in found]) is is_onset


def test_an_odour_that_lowers_the_signal_has_an_onset_too() -> None:
    detector = ExposureDetector(SETTINGS)
    found = changes(detector, readings(-odour(1.0, 60, 60, 0), 1.0), 1.0)
    assert found[-1][1] is Change.ONSET


def test_a_steady_odour_is_never_ambient() -> None:
    detector = ExposureDetector(SETTINGS)
    changes(detector, readings(odour(1.0, 60, 3600, 0), 1.0), 1.0)
    assert detector.phase is Phase.EXPOSED


def test_an_odour_for_half_a_day_becomes_the_new_clean_air() -> None:
    settings = ExposureSettings(steady_max_s=600.0)
    detector = ExposureDetector(settings)
    changes(detector, readings(odour(1.0, 60, 900, 0), 1.0), 1.0)
    assert detector.phase is Phase.AMBIENT


def test_a_second_odour_during_recovery_is_a_new_onset() -> None:
    detector = ExposureDetector(SETTINGS)
    effect = odour(1.0, 60, 60, 40)
    again = effect[-1] + (1 - np.exp(-np.arange(60) / 8.0))
    found = changes(detector, readings(np.concatenate([effect, again]), 1.0), 1.0)
    assert [change for _, change in found] == [
        Change.SETTLED, Change.ONSET, Change.ENDED, Change.ONSET,
    ]  # fmt: skip
    assert detector.phase is Phase.EXPOSED


def test_a_warm_up_is_bounded_whatever_the_signal_does() -> None:
    detector = ExposureDetector(SETTINGS)
    heating = np.linspace(0, 60, 400)
    found = changes(detector, readings(heating, 1.0), 1.0)
    assert found[0][1] is Change.SETTLED
    assert found[0][0] == pytest.approx(SETTINGS.warm_up_max_s, abs=2)
    assert detector.phase is Phase.UNKNOWN


def test_the_warm_up_lasts_until_the_heaters_are_hot() -> None:
    detector = ExposureDetector(SETTINGS)
    heating = 3 * np.exp(-np.arange(200) / 20.0)
    settled_s = next(
        s for s, c in changes(detector, readings(heating, 1.0), 1.0) if c is Change.SETTLED
    )
    assert SETTINGS.warm_up_min_s + 10 < settled_s < SETTINGS.warm_up_max_s


def test_without_quiet_air_beforehand_the_air_is_unknown() -> None:
    detector = ExposureDetector(SETTINGS, skip_warm_up=True)
    assert detector.phase is Phase.UNKNOWN
    wandering = 0.4 * np.sin(np.arange(120) / 6.0)
    changes(detector, readings(wandering, 1.0), 1.0)
    assert detector.phase is Phase.UNKNOWN


def test_air_after_an_exposure_is_known_to_be_clean() -> None:
    detector = ExposureDetector(SETTINGS)
    changes(detector, readings(odour(1.0, 60, 60, 300), 1.0), 1.0)
    assert detector.air_known
    assert detector.phase is Phase.AMBIENT


def test_a_recording_within_one_exposure_stays_exposed() -> None:
    detector = ExposureDetector(SETTINGS, assume_exposed=True)
    assert changes(detector, readings(odour(1.0, 60, 60, 300), 1.0), 1.0) == []
    assert detector.phase is Phase.EXPOSED


def test_missing_channels_do_not_matter() -> None:
    detector = ExposureDetector(SETTINGS)
    values = readings(odour(1.0, 60, 60, 200), 1.0)
    values[:, [1, 4, 5]] = np.nan
    values[70:80, 0] = np.nan
    assert [c for _, c in changes(detector, values, 1.0)][:3] == [
        Change.SETTLED, Change.ONSET, Change.ENDED,
    ]  # fmt: skip


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="warm_up_max_s"):
        ExposureSettings(warm_up_min_s=60, warm_up_max_s=30)


def test_a_small_change_within_an_odour_does_not_prove_clean_air() -> None:
    detector = ExposureDetector(SETTINGS, skip_warm_up=True)
    faint = odour(1.0, 60, 40, 120, size=0.12)
    found = changes(detector, readings(faint, 1.0), 1.0)
    assert Change.ONSET in [change for _, change in found]
    assert Change.ENDED in [change for _, change in found]
    assert not detector.air_known
