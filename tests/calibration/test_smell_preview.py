"""Previews of taught smells before they are announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.recogniser import fit_recogniser
from calibration.response_preview import UNRECOGNISED, preview_negatives
from calibration.smell_preview import ReplayComparison, SmellComparison, preview_smell
from calibration.smell_set import SmellError
from calibration.smell_store import SmellStore
from models.bundle import Bundle
from tests.calibration.responses import days, decide, exposure
from tests.calibration.smells import (
    LEMON,
    MINT,
    PETROL,
    record_smell,
    smell_readings,
    write_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hardware.recording import Recording


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle) -> SmellStore:
    store = SmellStore(tmp_path / "state", [bundle])
    store.enroll("petrol", record_smell(tmp_path, PETROL), source="test")
    return store


def replay(store: SmellStore, label: str, recording: Recording) -> ReplayComparison:
    """Return the comparison, once all steps are done."""
    steps = SmellComparison(store, label).replay(recording)
    shares = []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as end:
            assert shares == sorted(shares)
            comparison: ReplayComparison = end.value
            return comparison


def test_a_smell_in_shadow_is_previewed_without_being_promoted(store: SmellStore) -> None:
    preview = preview_smell(store, "petrol")
    assert preview.held_out_by == "nothing"
    assert preview.held_out == {}
    assert "petrol" not in preview.before
    assert sum(preview.before.values()) == pytest.approx(1.0)
    assert store.smells().smell("petrol").shadow


def test_whole_exposures_are_held_out_where_there_are_two(
    store: SmellStore, tmp_path: Path
) -> None:
    # The second exposure taught as petrol is one of mint.
    store.enroll("petrol", record_smell(tmp_path, MINT), source="test")
    preview = preview_smell(store, "petrol")
    assert preview.held_out_by == "exposure"
    assert preview.held_out.get("petrol", 0.0) < 1.0
    store.rollback()
    store.enroll("petrol", record_smell(tmp_path, PETROL, seed=1), source="test")
    assert preview_smell(store, "petrol").held_out["petrol"] >= 0.5


def test_confusions_with_shipped_labels_are_named(store: SmellStore, tmp_path: Path) -> None:
    almost_lemon = (0.019, 0.001, 0.0, 0.0)
    store.enroll("lime", record_smell(tmp_path, almost_lemon), source="test")
    assert next(iter(preview_smell(store, "lime").before)) == "lemon"


def test_windows_taken_from_another_taught_smell_are_reported(
    store: SmellStore, tmp_path: Path
) -> None:
    store.promote("petrol")
    store.enroll("diesel", record_smell(tmp_path, PETROL, seed=2), source="test")
    ((label, share),) = preview_smell(store, "diesel").taken_from.items()
    assert label == "petrol"
    assert 0 < share < 1


def test_a_recording_is_replayed_without_the_smell_and_with_it(
    store: SmellStore, tmp_path: Path
) -> None:
    air, petrol, lemon = (
        smell_readings(LEMON, 0, before=120),
        smell_readings(PETROL, 60, seed=5),
        smell_readings(LEMON, 60, seed=6),
    )
    earlier = write_recording(
        tmp_path / "earlier.csv", np.concatenate([air, petrol, air, air, lemon])
    )
    preview = replay(store, "petrol", earlier)
    assert "petrol" not in preview.without_s
    assert preview.with_s["petrol"] > 10
    assert preview.with_s["lemon"] == pytest.approx(preview.without_s["lemon"], abs=10)


def test_an_unknown_smell_cannot_be_previewed(store: SmellStore) -> None:
    with pytest.raises(SmellError, match="Taught: petrol"):
        preview_smell(store, "soap")


def test_negatives_say_what_they_were_called_and_which_smells_lose_their_name() -> None:
    taught = days(1, 2, 3, without="lemon")
    called = preview_negatives(taught, [exposure("lemon", 4)])
    decision = decide(fit_recogniser(taught), exposure("lemon", 4))
    assert list(called.before) == [decision.announced or UNRECOGNISED]
    assert called.taken_from == {}
    same = preview_negatives(taught, [exposure("mint", 3, number=number) for number in (1, 2)])
    assert same.before == {"mint": 1.0}
    assert same.taken_from["mint"] > 0.0
    assert preview_negatives([], [exposure("lemon", 4)]).before == {UNRECOGNISED: 1.0}
