"""Taught smells taken from one rig to another."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.smell_exchange import export_smells, import_smells
from calibration.smell_set import NEGATIVES, SmellError
from calibration.smell_store import SmellStore
from tests.calibration.smells import (
    PETROL,
    TAR,
    likeliest,
    smell_readings,
    teach,
    write_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle


def test_smells_move_to_another_rig(store: SmellStore, tmp_path: Path, bundle: Bundle) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, seed=1)
    export_smells(store, tmp_path / "smells.zip")
    other = SmellStore(tmp_path / "other", [bundle])
    (smell,) = import_smells(other, tmp_path / "smells.zip").smells
    assert smell.shadow
    other.promote("petrol")
    np.testing.assert_allclose(
        other.head()[0].taught[0].mean, store.head()[0].taught[0].mean, rtol=1e-6
    )
    assert likeliest(other, tmp_path, PETROL) == "petrol"
    import_smells(other, tmp_path / "smells.zip")
    assert len(other.smells().smell("petrol").exposures) == 2


def test_negatives_move_too_and_have_no_effect_until_they_are_promoted(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    recording = write_recording(tmp_path / "tar.csv", smell_readings(TAR, 60, before=90))
    store.enroll(NEGATIVES, recording, source="test", start_ms=90_000, promote=True)
    export_smells(store, tmp_path / "smells.zip")
    other = SmellStore(tmp_path / "other", [bundle])
    (smell,) = import_smells(other, tmp_path / "smells.zip").smells
    assert smell.is_negative
    assert other.negatives() == []
    other.promote(NEGATIVES)
    assert len(other.negatives()) == 1


def test_an_import_refines_what_is_taught_already(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    export_smells(store, tmp_path / "smells.zip")
    other = SmellStore(tmp_path / "other", [bundle])
    teach(other, tmp_path, seed=1)
    (smell,) = import_smells(other, tmp_path / "smells.zip").smells
    assert len(smell.exposures) == 2
    assert not smell.shadow


def test_a_file_that_is_no_export_is_refused_and_changes_nothing(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    good = tmp_path / "good.zip"
    export_smells(store, good)
    other = SmellStore(tmp_path / "other", [bundle])
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "cut.zip", "w") as cut:
        for name in source.namelist():
            cut.writestr(name, source.read(name)[: 100 if name.endswith("csv") else None])
    for name in ("text.zip", "missing.zip", "cut.zip"):
        with pytest.raises(SmellError, match="xport it again"):
            import_smells(other, tmp_path / name)
    assert other.smells().version == 0


def test_exported_readings_are_corrected_once(tmp_path: Path, bundle: Bundle) -> None:
    class Shifted:
        """Corrects a rig whose NO2 reads 50 counts too much."""

        id = "shifted"
        model = None

        def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
            corrected = values.copy()
            corrected[0] -= 50
            return corrected

        def reset(self) -> None:
            """Nothing is remembered."""

    here = SmellStore(tmp_path / "here", [bundle], Shifted())
    teach(here, tmp_path)
    export_smells(here, tmp_path / "smells.zip")
    there = SmellStore(tmp_path / "there", [bundle], Shifted())
    import_smells(there, tmp_path / "smells.zip")
    there.promote("petrol")
    (own,), (imported,) = here.smells().smells[0].exposures, there.smells().smells[0].exposures
    np.testing.assert_allclose(
        there.recording(imported).values[:, 0], here.recording(own).values[:, 0] - 50
    )
    for path in (there.folder / "exposures").glob("*.npz"):
        path.unlink()
    np.testing.assert_allclose(
        there.head()[0].taught[0].mean, here.head()[0].taught[0].mean, atol=0.01
    )
