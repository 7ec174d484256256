"""The profile's file: written, read, checked, and refused with how to mend it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from calibration.baseline import measure_baseline
from calibration.correction import Compensation, CorrectionSpec
from calibration.rig_profile import (
    Evidence,
    Profile,
    ProfileDamagedError,
    ProfileMissingError,
    ProfileVersionError,
    WrongBoardError,
    load_profile,
    save_profile,
)
from calibration.transfer import Transfer
from hardware.channels import N_GAS
from models.signals import log_signals
from tests.calibration.air import LEVELS, clean_air, frames, odour


def _profile(matrix: np.ndarray | None = None) -> Profile:
    spec = CorrectionSpec(
        LEVELS,
        LEVELS + 0.123456789,
        np.diag(np.linspace(0.8, 1.3, N_GAS)) if matrix is None else matrix,
        np.linspace(0, 2, N_GAS),
        np.full(N_GAS, 1e-4),
        Compensation(humidity=np.full(N_GAS, 0.01)),
    )
    return Profile.create(
        date="2026-11-21T06:00:00Z",
        board="kitchen",
        baseline=measure_baseline(clean_air(120), 1.0),
        model="substances-50",
        transfer=Transfer("affine", spec, {"none": 9.5, "affine": 1.25}),
        references=(Evidence("almond", 120.0, "reference-almond-1.csv"),),
        figures={"accuracy_before": 0.4, "accuracy_after": 0.7},
    )


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile, path = _profile(), tmp_path / "state" / "calibration.yaml"
    save_profile(profile, path)
    again = load_profile(path, board="kitchen")
    assert (again.id, again.references, again.method) == (profile.id, profile.references, "affine")
    assert again.figures == {
        "accuracy_after": 0.7,
        "accuracy_before": 0.4,
        "error_affine": 1.25,
        "error_none": 9.5,
    }
    assert again.baseline is not None
    assert profile.baseline is not None
    assert again.baseline == profile.baseline


@pytest.mark.parametrize("full", [False, True])
def test_a_loaded_profile_corrects_as_the_made_one(tmp_path: Path, *, full: bool) -> None:
    matrix = np.eye(N_GAS) + 0.1 if full else None
    profile, path = _profile(matrix), tmp_path / "calibration.yaml"
    save_profile(profile, path)
    values = frames(odour(1, seconds=80))
    made, loaded = profile.rig_correction(), load_profile(path).rig_correction()
    assert made is not None
    assert loaded is not None
    assert loaded.id == profile.id
    np.testing.assert_array_equal(loaded.apply(values, 1.0), made.apply(values, 1.0))


def test_a_profile_without_a_correction_corrects_nothing(tmp_path: Path) -> None:
    profile = Profile.create(
        date="2026-11-21", board="b", baseline=measure_baseline(clean_air(120), 1.0)
    )
    save_profile(profile, tmp_path / "p.yaml")
    assert load_profile(tmp_path / "p.yaml").rig_correction() is None


@pytest.mark.parametrize("full", [False, True])
def test_its_clean_air_is_what_its_correction_makes_of_that_air(*, full: bool) -> None:
    profile = _profile(np.eye(N_GAS) + 0.1 if full else None)
    correction = profile.rig_correction()
    assert correction is not None
    corrected = log_signals(correction.apply(clean_air(120), 1.0))
    assert profile.clean_air == pytest.approx(np.median(corrected, axis=0), abs=0.04)


def test_the_clean_air_of_a_rig_without_a_correction_is_what_it_measured() -> None:
    baseline = measure_baseline(clean_air(120), 1.0)
    profile = Profile.create(date="2026-11-21", board="b", baseline=baseline)
    assert profile.clean_air == pytest.approx(LEVELS, abs=0.02)
    assert Profile.create(date="2026-11-21", board="b").clean_air is None


def test_a_stored_profile_is_still_read(tmp_path: Path) -> None:
    """The file was written by the first version of the format."""
    stored = Path(__file__).with_name("profile_format_1.yaml")
    path = tmp_path / "calibration.yaml"
    save_profile(load_profile(stored, board="kitchen"), path)
    assert yaml.safe_load(path.read_text("utf-8")) == yaml.safe_load(stored.read_text("utf-8"))


def test_profiles_of_different_content_have_different_ids() -> None:
    assert _profile().id == _profile().id
    assert _profile().id != _profile(np.eye(N_GAS)).id
    assert _profile().id.startswith("2026-11-21-")


def test_a_missing_profile_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileMissingError, match="scentd calibrate"):
        load_profile(tmp_path / "none.yaml")


def test_another_boards_profile_is_refused(tmp_path: Path) -> None:
    save_profile(_profile(), tmp_path / "p.yaml")
    with pytest.raises(WrongBoardError, match="'kitchen', but this board is 'cellar'"):
        load_profile(tmp_path / "p.yaml", board="cellar")


def test_another_version_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    save_profile(_profile(), path)
    path.write_text(path.read_text().replace("version: 1", "version: 7"))
    with pytest.raises(ProfileVersionError, match=r"version 7.*calibrate fit"):
        load_profile(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("gain: ", "gain: 1"), ("board: kitchen", "board: cellar"), ("{", "["), ("baseline", "bass")],
)
def test_a_damaged_profile_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "p.yaml"
    save_profile(_profile(), path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ProfileDamagedError, match=r"p\.yaml"):
        load_profile(path)


def test_a_truncated_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    save_profile(_profile(), path)
    text = path.read_text()
    for end in range(0, len(text) - 1, 97):
        path.write_text(text[:end])
        with pytest.raises(ProfileDamagedError):
            load_profile(path)
