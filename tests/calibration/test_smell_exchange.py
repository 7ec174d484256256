"""Taught smells taken from one rig to another."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from calibration.smell_exchange import (
    ImportChoices,
    check_import,
    export_smells,
    import_smells,
)
from calibration.smell_origin import RigIdentity
from calibration.smell_set import NEGATIVES, SmellError, SmellSet
from calibration.smell_store import SmellStore
from hardware.channels import CHANNEL_NAMES
from tests.calibration.smells import (
    PETROL,
    TAR,
    Shifted,
    exposed_values,
    likeliest,
    smell_readings,
    teach,
    write_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hardware.recording import Recording
    from models.bundle import Bundle


HERE = RigIdentity("kitchen", "kitchen board")
"""Of two rigs that have one board after another."""


def test_smells_move_to_a_new_state_folder_of_the_board(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, seed=1)
    export_smells(store, tmp_path / "smells.zip", HERE)
    other = SmellStore(tmp_path / "other", [bundle])
    import_smells(other, tmp_path / "smells.zip", HERE)
    (smell,) = other.smells().smells
    assert smell.shadow
    other.promote("petrol")
    np.testing.assert_allclose(
        other.head()[0].taught[0].mean, store.head()[0].taught[0].mean, rtol=1e-6
    )
    assert likeliest(other, tmp_path, PETROL) == "petrol"
    before = other.smells()
    (again,) = import_smells(other, tmp_path / "smells.zip", HERE).smells
    assert other.smells() == before  # no version of the library for what changes nothing
    assert (len(again.new), again.known) == (0, 2)
    assert len(other.smells().smell("petrol").exposures) == 2


def test_a_rig_takes_back_what_it_forgot(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    export_smells(store, tmp_path / "smells.zip")
    store.forget("petrol")
    plan = import_smells(store, tmp_path / "smells.zip")
    assert "taught to this rig" in plan.comparison.why
    assert "petrol" in store.smells()


def exposed(folder: Path, *, level: float = 0.0, co: bool = True, seed: int = 0) -> Recording:
    """Return a smell above known clean air, of a board whose air lies at another level."""
    values = exposed_values(level, seed)
    if not co:
        values[:, 3] = np.nan
    return write_recording(folder / f"exposed-{level}-{co}-{seed}.csv", values)


def enroll(store: SmellStore, label: str, recording: Recording) -> None:
    store.enroll(label, recording, source="test", start_ms=90_000, promote=True)


@pytest.fixture
def file(tmp_path: Path, bundle: Bundle) -> Path:
    """Export coffee of the kitchen's board."""
    kitchen = SmellStore(tmp_path / "kitchen", [bundle])
    enroll(kitchen, "coffee", exposed(tmp_path))
    export_smells(kitchen, tmp_path / "kitchen.zip", HERE)
    return tmp_path / "kitchen.zip"


def test_a_file_carries_clean_air_session_and_board(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        board = yaml.safe_load(archive.read("board.yaml"))
        index = yaml.safe_load(archive.read("index.yaml"))
    assert (board["rig"], board["board"], board["rate_hz"]) == ("kitchen", "kitchen board", 1.0)
    assert board["channels"] == list(CHANNEL_NAMES)
    assert board["clean_air"]["NO2"] == pytest.approx(np.log(100 / 923), abs=0.02)
    (exposure,) = index["smells"][0]["exposures"]
    assert exposure["clean_air"]["source"] in ("start", "ambient")
    assert exposure["clean_air"]["signals"]["VOC"] == pytest.approx(board["clean_air"]["VOC"])


def test_smells_of_a_board_with_like_clean_air_are_taken(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    enroll(store, "soap", exposed(tmp_path, level=0.3, seed=1))
    plan = import_smells(store, file, RigIdentity("attic", "another name"))
    assert plan.comparison.same
    assert "another name" in plan.comparison.why
    assert not store.smells().smell("coffee").exposures[0].other_board


def test_smells_of_another_board_are_refused_unless_they_are_wanted(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    enroll(store, "soap", exposed(tmp_path, level=2.5, seed=1))
    with pytest.raises(
        SmellError, match=r"clean air is another board's.*NO2 by 2\.5.*--other-board"
    ):
        import_smells(store, file, HERE)
    assert "coffee" not in store.smells()
    import_smells(store, file, HERE, ImportChoices(other_board=True))
    coffee = store.smells().smell("coffee")
    assert coffee.shadow
    assert coffee.exposures[0].other_board
    assert coffee.exposures[0].sitting.startswith("kitchen ")
    store.promote("coffee")
    enroll(store, "tea", exposed(tmp_path, level=2.4, seed=2))  # this board is still the own one


def test_without_anything_to_compare_nothing_is_taken_for_this_board(
    file: Path, store: SmellStore
) -> None:
    with pytest.raises(SmellError, match="neither taught nor calibrated"):
        import_smells(store, file, RigIdentity("attic", "attic board"))
    assert check_import(store, file, HERE).problem == ""


def test_smells_that_need_a_channel_which_the_board_lacks_are_refused(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    enroll(store, "soap", exposed(tmp_path, co=False))
    for choices in (ImportChoices(), ImportChoices(other_board=True)):
        with pytest.raises(SmellError, match="learnt with CO, which this board does not have"):
            import_smells(store, file, HERE, choices)


def test_two_smells_of_one_name_need_a_choice(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    enroll(store, "coffee", exposed(tmp_path, seed=5))
    with pytest.raises(SmellError, match=r"--merge.*--rename coffee=NAME"):
        import_smells(store, file)
    import_smells(store, file, choices=ImportChoices(rename={"coffee": "mocha"}))
    assert {smell.label for smell in store.smells().smells} == {"coffee", "mocha"}
    store.rollback()
    import_smells(store, file, choices=ImportChoices(merge=True))
    assert len(store.smells().smell("coffee").exposures) == 2
    assert not store.smells().smell("coffee").shadow
    with pytest.raises(SmellError, match="holds no smell called cofee"):
        import_smells(store, file, choices=ImportChoices(rename={"cofee": "mocha"}))


def test_another_board_is_never_merged_with_this_one(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    enroll(store, "coffee", exposed(tmp_path, level=2.5))
    with pytest.raises(SmellError, match="not merged"):
        import_smells(store, file, choices=ImportChoices(merge=True, other_board=True))


def test_a_smell_keeps_its_own_exposures_when_others_are_merged(
    store: SmellStore, tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration.smell_exchange.MAX_EXPOSURES", 2)
    other = SmellStore(tmp_path / "other", [bundle])
    for seed in (0, 1):
        teach(store, tmp_path, seed=seed)
        teach(other, tmp_path, seed=50 + seed)
    store.forget("petrol", store.smells().smell("petrol").exposures[0].id)
    export_smells(other, tmp_path / "smells.zip", HERE)
    file, merge = tmp_path / "smells.zip", ImportChoices(merge=True)
    (plan,) = import_smells(store, file, HERE, merge).smells
    assert (len(plan.new), plan.left_out) == (1, 1)
    assert len(store.smells().smell("petrol").exposures) == 2


def test_what_one_rig_exports_after_a_calibration_is_still_known_to_it(
    tmp_path: Path, bundle: Bundle
) -> None:
    store = SmellStore(tmp_path / "state", [bundle])
    enroll(store, "coffee", exposed(tmp_path))
    store.use_correction(Shifted())
    export_smells(store, tmp_path / "smells.zip", HERE)
    (plan,) = import_smells(store, tmp_path / "smells.zip", HERE).smells
    assert (len(plan.new), plan.known) == (0, 1)


def test_one_exposure_under_two_names_is_taken_once(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(twice, "w") as target:
        for name in source.namelist():
            if name != "index.yaml":
                target.writestr(name, source.read(name))
        smells = SmellSet.from_yaml(source.read("index.yaml"), "index.yaml")
        (coffee,) = smells.smells
        doubled = replace(coffee, exposures=coffee.exposures * 3)
        both = (doubled, replace(coffee, label="tea"))
        target.writestr("index.yaml", replace(smells, smells=both).to_yaml())
    first, second = import_smells(store, twice, HERE).smells
    assert (len(first.new), len(second.new), second.known) == (1, 0, 1)
    assert [smell.label for smell in store.smells().smells] == ["coffee"]


def test_a_file_of_an_earlier_version_says_nothing_of_its_board(
    file: Path, store: SmellStore, tmp_path: Path
) -> None:
    old = tmp_path / "old.zip"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            if name != "board.yaml":
                target.writestr(name, source.read(name))
    with pytest.raises(SmellError, match="an earlier version wrote the file"):
        import_smells(store, old, HERE)
    import_smells(store, old, HERE, ImportChoices(other_board=True))


def test_negatives_move_too_and_have_no_effect_until_they_are_promoted(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    recording = write_recording(tmp_path / "tar.csv", smell_readings(TAR, 60, before=90))
    store.enroll(NEGATIVES, recording, source="test", start_ms=90_000, promote=True)
    export_smells(store, tmp_path / "smells.zip", HERE)
    other = SmellStore(tmp_path / "other", [bundle])
    import_smells(other, tmp_path / "smells.zip", HERE)
    (smell,) = other.smells().smells
    assert smell.is_negative
    assert other.negatives() == []
    other.promote(NEGATIVES)
    assert len(other.negatives()) == 1


def test_a_file_that_is_no_export_is_refused_and_changes_nothing(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    good = tmp_path / "good.zip"
    export_smells(store, good, HERE)
    other = SmellStore(tmp_path / "other", [bundle])
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "cut.zip", "w") as cut:
        for name in source.namelist():
            cut.writestr(name, source.read(name)[: 100 if name.endswith("csv") else None])
    for name in ("text.zip", "missing.zip", "cut.zip"):
        with pytest.raises(SmellError, match="xport it again"):
            import_smells(other, tmp_path / name, HERE)
    assert other.smells().version == 0


def test_exported_readings_are_corrected_once(tmp_path: Path, bundle: Bundle) -> None:
    here = SmellStore(tmp_path / "here", [bundle], Shifted())
    teach(here, tmp_path)
    export_smells(here, tmp_path / "smells.zip", HERE)
    there = SmellStore(tmp_path / "there", [bundle], Shifted())
    import_smells(there, tmp_path / "smells.zip", HERE)
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
