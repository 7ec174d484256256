"""The store of taught smells: versions, damage, names, and other models."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from calibration.exposures import EnrolmentError
from calibration.recogniser import fit_recogniser
from calibration.smell_set import MAX_EXPOSURES, NEGATIVES, SmellError, StoreDamagedError
from calibration.smell_store import SmellStore
from hardware.errors import UsageError
from hardware.recording import RecordingError
from models.decision_spec import DecisionSpec
from tests.calibration.smells import (
    AIR,
    LEMON,
    PETROL,
    TAR,
    likeliest,
    record_smell,
    smell_readings,
    teach,
    teachable_bundle,
    write_recording,
)
from tests.models.test_board_identity import bundle_with_board, training_levels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle


def test_taught_and_shipped_smells_are_recognised(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    assert likeliest(store, tmp_path, PETROL) == "petrol"
    assert likeliest(store, tmp_path, LEMON) == "lemon"


def test_the_exposure_variance_comes_from_the_manifest(
    tmp_path: Path,
) -> None:
    for stated in (0.0, 3.0):
        place = tmp_path / str(stated)
        own = teachable_bundle(place, decision=DecisionSpec(exposure_variance=stated))
        store = SmellStore(place / "state", [own])
        teach(store, place)
        (petrol,) = store.head()[0].taught
        assert petrol.variance == 1.0 + stated


def test_a_new_smell_is_in_shadow_until_it_is_promoted(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path, promote=False)
    assert store.head()[0].taught == ()
    assert [smell.label for smell in store.head(shadow="petrol")[0].taught] == ["petrol"]
    store.promote("petrol")
    assert [smell.label for smell in store.head()[0].taught] == ["petrol"]


def test_negatives_need_known_clean_air_and_keep_their_label(
    store: SmellStore, tmp_path: Path
) -> None:
    with pytest.raises(EnrolmentError, match="clean air"):
        store.enroll(NEGATIVES, record_smell(tmp_path, (0.0, 0.0, 0.0, 0.004)), source="test")
    assert store.smells().smells == ()
    recording = write_recording(tmp_path / "tar.csv", smell_readings(TAR, 60, before=90))
    smells, _ = store.enroll(NEGATIVES, recording, source="test", start_ms=90_000)
    assert smells.taught == ()
    assert store.negatives() == []
    assert len(store.negatives(shadow=NEGATIVES)) == 1
    store.promote(NEGATIVES)
    assert len(store.negatives()) == 1
    for old, new in ((NEGATIVES, "tar"), ("lemon", NEGATIVES)):
        with pytest.raises(SmellError, match="no smell"):
            store.rename(old, new)


def test_more_exposures_refine_a_smell_and_keep_it_in_shadow_or_promoted(
    store: SmellStore, tmp_path: Path
) -> None:
    teach(store, tmp_path, promote=False)
    teach(store, tmp_path, seed=1, promote=False)
    (smell,) = store.smells().smells
    assert smell.shadow
    assert len(smell.exposures) == 2
    teach(store, tmp_path, seed=2)
    assert not store.smells().smell("petrol").shadow
    teach(store, tmp_path, seed=3, promote=False)
    assert not store.smells().smell("petrol").shadow
    assert store.head()[0].taught[0].exposures == 4


def test_the_same_exposure_twice_counts_once(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path)
    assert store.head()[0].taught[0].exposures == 1


def test_exposures_of_a_smell_are_bounded_and_the_oldest_is_removed(
    store: SmellStore, tmp_path: Path
) -> None:
    for seed in range(MAX_EXPOSURES + 1):
        teach(store, tmp_path, seed=seed)
    kept = store.smells().smell("petrol").exposures
    assert len(kept) == MAX_EXPOSURES
    assert kept[0] == store.smells().smell("petrol").exposures[0]
    first = record_smell(tmp_path, PETROL, seed=0)
    np.testing.assert_raises(
        AssertionError,
        np.testing.assert_array_equal,
        store.recording(kept[0]).values,
        first.values,
    )


def test_rollback_undoes_one_change_after_the_other(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, "tar", TAR)
    store.forget("petrol")
    assert [smell.label for smell in store.rollback().smells] == ["petrol", "tar"]
    assert likeliest(store, tmp_path, PETROL) == "petrol"
    assert [smell.label for smell in store.rollback().smells] == ["petrol"]
    assert store.rollback().smells == ()
    with pytest.raises(SmellError, match="nothing to go back"):
        store.rollback()


def test_smells_can_be_taught_after_a_rollback(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    store.rollback()
    teach(store, tmp_path, "tar", TAR)
    assert [smell.label for smell in store.smells().smells] == ["tar"]
    assert store.rollback().smells == ()


@pytest.mark.parametrize("damage", [b"", b"\x00\xff\x00", b"smells: [", b"format: 99\n", b"[1, 2]"])
def test_a_damaged_index_is_an_error_and_rollback_repairs_it(
    store: SmellStore, tmp_path: Path, damage: bytes
) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, "tar", TAR)
    (store.folder / "index.yaml").write_bytes(damage)
    with pytest.raises(StoreDamagedError, match="--rollback"):
        store.smells()
    with pytest.raises(StoreDamagedError):
        teach(store, tmp_path, seed=5)
    assert [smell.label for smell in store.rollback().smells] == ["petrol", "tar"]
    assert likeliest(store, tmp_path, TAR) == "tar"


def test_damaged_embeddings_are_computed_again_from_the_readings(
    store: SmellStore, tmp_path: Path
) -> None:
    teach(store, tmp_path)
    before = store.head()[0].taught[0].mean
    caches = list((store.folder / "exposures").glob("*.npz"))
    for cache in caches:
        cache.write_bytes(cache.read_bytes()[:100])
    np.testing.assert_array_equal(store.head()[0].taught[0].mean, before)
    for cache in caches:
        cache.unlink()
    np.testing.assert_array_equal(store.head()[0].taught[0].mean, before)


def test_lost_exposures_affect_their_smell_alone_and_are_reported(
    store: SmellStore, tmp_path: Path
) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, "tar", TAR)
    (lost,) = store.smells().smell("petrol").exposures
    for path in (store.folder / "exposures").glob(f"{lost.id}*"):
        path.unlink()
    head, problems = store.head()
    assert [smell.label for smell in head.taught] == ["tar"]
    assert len(problems) == 1
    assert "petrol" in problems[0]
    with pytest.raises(RecordingError):
        store.recording(lost)


def test_another_version_of_the_model_learns_from_the_stored_readings(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    spec = bundle.manifest.preprocessing
    newer = teachable_bundle(
        tmp_path / "newer",
        version="2.0.0",
        preprocessing=dataclasses.replace(spec, scale=(0.1,) * 4),
    )
    moved = SmellStore(tmp_path / "state", [newer])
    np.testing.assert_allclose(
        moved.head()[0].taught[0].mean, store.head()[0].taught[0].mean / 2, atol=0.05
    )


def test_a_new_calibration_computes_the_embeddings_again(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    class Halved:
        """Corrects a rig whose CO answers twice as strongly."""

        id = "halved"
        model = None

        def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
            corrected = values.copy()
            level = np.log(values[3] / (1023 - values[3]))
            corrected[3] = 1023 / (1 + np.exp(-(1.39 + (level - 1.39) / 2)))
            return corrected

        def reset(self) -> None:
            """Nothing is remembered."""

    teach(store, tmp_path)
    calibrated = SmellStore(tmp_path / "state", [bundle], Halved())
    ratio = calibrated.head()[0].taught[0].mean[3] / store.head()[0].taught[0].mean[3]
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_files_of_forgotten_smells_are_removed_with_the_last_version_that_holds_them(
    store: SmellStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration.smell_versions.MAX_VERSIONS", 2)
    teach(store, tmp_path)
    store.forget("petrol")
    assert len(list((store.folder / "exposures").iterdir())) == 3
    store.hide("mint")
    store.unhide("mint")
    assert list((store.folder / "exposures").iterdir()) == []
    assert len(list((store.folder / "versions").iterdir())) == 2


def test_a_refused_exposure_leaves_nothing_behind(store: SmellStore, tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="too short"):
        store.enroll("petrol", record_smell(tmp_path, PETROL, seconds=10), source="test")
    assert store.smells().version == 0
    assert list((store.folder / "exposures").iterdir()) == []


def test_names_are_valid_and_unique_among_taught_smells(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    teach(store, tmp_path, "tar", TAR)
    with pytest.raises(SmellError, match="tar"):
        store.rename("petrol", "tar")
    for name in ("", "  ", "a\nb", "x" * 65):
        with pytest.raises(UsageError, match="printable"):
            teach(store, tmp_path, name)
    store.rename("petrol", "fuel")
    assert likeliest(store, tmp_path, PETROL) == "fuel"


def test_a_taught_smell_goes_before_a_shipped_label_of_its_name(
    store: SmellStore, tmp_path: Path
) -> None:
    teach(store, tmp_path, "lemon", PETROL, promote=False)
    assert likeliest(store, tmp_path, LEMON) == "lemon"
    store.promote("lemon")
    assert likeliest(store, tmp_path, PETROL) == "lemon"
    assert "lemon (hidden)" in store.head()[0].labels(("lemon", "mint", "garlic"))
    store.forget("lemon")
    assert likeliest(store, tmp_path, LEMON) == "lemon"


def test_a_rig_without_a_model_is_taught_above_clean_air(tmp_path: Path) -> None:
    store = SmellStore(tmp_path / "state")
    teach(store, tmp_path)
    (exposure,) = store.taught_exposures()
    assert exposure.label == "petrol"
    recogniser = fit_recogniser([exposure])
    assert recogniser is not None
    assert recogniser.labels == ("petrol",)


def test_without_clean_air_and_without_a_model_nothing_is_learnt(tmp_path: Path) -> None:
    store = SmellStore(tmp_path / "state")
    steady = write_recording(tmp_path / "steady.csv", np.tile(AIR, (120, 1)))
    with pytest.raises(EnrolmentError, match="minute of clean air"):
        store.enroll("petrol", steady, source="test")
    assert store.smells().version == 0
    assert list((store.folder / "exposures").iterdir()) == []


def test_an_exposure_of_another_board_is_refused(store: SmellStore, tmp_path: Path) -> None:
    teach(store, tmp_path)
    values = smell_readings(PETROL, seed=3)
    values[:, :3] = 1023 / (1 + 3.0 * (1023 / values[:, :3] - 1))
    other = write_recording(tmp_path / "other.csv", values)
    with pytest.raises(EnrolmentError, match="clean air is another's"):
        store.enroll("petrol", other, source="test")
    assert len(store.smells().smell("petrol").exposures) == 1


def test_exposures_belong_to_the_session_that_is_named_or_to_the_day(
    store: SmellStore, tmp_path: Path
) -> None:
    store.enroll("petrol", record_smell(tmp_path, PETROL), source="test", session="kitchen")
    teach(store, tmp_path, seed=1)
    named, today = store.smells().smell("petrol").exposures
    assert named.sitting == "kitchen"
    assert today.sitting == today.date[:10]
    assert {each.session for each in store.taught_exposures()} == {"kitchen", today.date[:10]} - (
        set() if not store.smells().smell("petrol").shadow else {today.date[:10]}
    )


def test_what_an_earlier_version_taught_each_model_is_taken_over(
    store: SmellStore, tmp_path: Path, bundle: Bundle
) -> None:
    teach(store, tmp_path)
    store.hide("mint")
    content = yaml.safe_load((store.folder / "index.yaml").read_text(encoding="utf-8"))
    for smell in content["smells"]:
        for exposure in smell["exposures"]:
            del exposure["session"]
    old = tmp_path / "older" / "smells" / "toy-substance"
    shutil.copytree(store.folder / "exposures", old / "exposures")
    del content["sha256"]
    content |= {"format": 1, "model": "toy-substance"}
    (old / "index.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    taken_over = SmellStore(tmp_path / "older", [bundle])
    assert likeliest(taken_over, tmp_path, PETROL) == "petrol"
    assert taken_over.smells().hidden == ("mint",)
    teach(taken_over, tmp_path, "tar", TAR)
    assert [smell.label for smell in taken_over.smells().smells] == ["petrol", "tar"]
    assert likeliest(taken_over, tmp_path, PETROL) == "petrol"


def test_shipped_labels_are_hidden_shown_and_renamed_by_either_name(store: SmellStore) -> None:
    store.rename("mint", "menthe")
    assert store.hide("menthe").hidden == ("mint",)
    assert store.unhide("mint").hidden == ()
    assert store.rename("menthe", "mint").renamed == {}
    with pytest.raises(SmellError, match="not hidden"):
        store.unhide("mint")
    for change in (store.hide, store.forget, store.promote):
        with pytest.raises(SmellError, match="nobody"):
            change("nobody")


@pytest.mark.parametrize(("shift", "learnt"), [(0.0, True), (2.0, False)])
def test_embeddings_of_a_board_that_the_model_does_not_know_teach_nothing(
    tmp_path: Path, shift: float, *, learnt: bool
) -> None:
    """Without clean air beforehand nothing else is left to learn."""
    bundle = bundle_with_board(tmp_path, decision=DecisionSpec(head_temperature=0.1))
    levels = training_levels()[0] + np.array([shift, -shift, shift, -shift])
    values = np.tile(AIR, (120, 1))
    values[:, :4] = np.rint(1023 / (1 + np.exp(-levels)))
    steady = write_recording(tmp_path / "steady.csv", values)
    store = SmellStore(tmp_path / "state", [bundle])
    if learnt:
        store.enroll("petrol", steady, source="test")
        assert store.smells().version == 1
        return
    with pytest.raises(EnrolmentError, match="minute of clean air"):
        store.enroll("petrol", steady, source="test")
