"""The curve of an exposure has few points, lies above the readings before it, and skips gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.exposure_curve import exposure_curve
from tests.calibration.smells import PETROL, smell_readings, write_recording

if TYPE_CHECKING:
    from pathlib import Path

CO, VOC = 3, 2


def test_a_curve_is_the_response_above_the_readings_before(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "a.csv", smell_readings(PETROL, 120, before=60))
    curve = exposure_curve(recording, 60_000, 30)
    assert len(curve["t_s"]) == 30
    assert curve["t_s"][0] < 0 < curve["t_s"][-1]
    # The signal rises by .02 a second; the last point is the mean of the last six readings.
    assert abs(curve["CO"][-1] - 0.02 * 116.5) < 0.02
    assert max(abs(value) for value in curve["VOC"]) < 0.02


def test_absent_channels_have_no_curve_and_gaps_are_none(tmp_path: Path) -> None:
    values = smell_readings(PETROL, 60)
    values[:, VOC] = np.nan
    values[20:40, CO] = np.nan
    curve = exposure_curve(write_recording(tmp_path / "a.csv", values), 0, 6)
    assert "VOC" not in curve
    assert [value is None for value in curve["CO"]] == [False, False, True, True, False, False]


def test_a_recording_shorter_than_the_points_gives_every_reading(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "a.csv", smell_readings(PETROL, 5))
    assert len(exposure_curve(recording, 0, 120)["t_s"]) == 5
