"""What a taught smell would have said, before it is let say anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.smell_preview import ReplayComparison, compare_replay, preview_smell
from calibration.smell_set import SmellError
from calibration.smell_store import SmellStore
from models.bundle import Bundle
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
    store = SmellStore(tmp_path / "state", bundle)
    store.enroll("petrol", record_smell(tmp_path, PETROL), source="test")
    return store


def heard_again(store: SmellStore, label: str, recording: Recording) -> ReplayComparison:
    """Return what a recording came to, once all steps are done."""
    steps = compare_replay(store, label, recording)
    shares = []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as end:
            assert shares == sorted(shares)
            said: ReplayComparison = end.value
            return said


def test_a_smell_in_shadow_is_judged_without_being_said(store: SmellStore) -> None:
    told = preview_smell(store, "petrol")
    assert not told.by_exposures
    assert told.held_out.share("petrol") == 1.0
    assert told.before.share("petrol") == 0.0
    assert sum(share for _, share in told.before.shares) == pytest.approx(1.0)
    assert store.smells().smell("petrol").shadow


def test_with_two_exposures_whole_ones_are_held_out(store: SmellStore, tmp_path: Path) -> None:
    # What was called petrol the second time is mint, as petrol alone can tell.
    store.enroll("petrol", record_smell(tmp_path, MINT), source="test")
    told = preview_smell(store, "petrol")
    assert told.by_exposures
    assert told.held_out.others("petrol")[0] == ("mint", 0.5)
    store.rollback()
    store.enroll("petrol", record_smell(tmp_path, PETROL, seed=1), source="test")
    assert preview_smell(store, "petrol").held_out.share("petrol") == 1.0


def test_confusions_with_shipped_labels_are_named(store: SmellStore, tmp_path: Path) -> None:
    almost_lemon = (0.019, 0.001, 0.0, 0.0)
    store.enroll("lime", record_smell(tmp_path, almost_lemon), source="test")
    assert preview_smell(store, "lime").before.shares[0][0] == "lemon"


def test_what_a_smell_takes_from_another_taught_one_is_told(
    store: SmellStore, tmp_path: Path
) -> None:
    store.promote("petrol")
    store.enroll("diesel", record_smell(tmp_path, PETROL, seed=2), source="test")
    ((label, share),) = preview_smell(store, "diesel").taken_from
    assert label == "petrol"
    assert 0 < share < 1


def test_the_past_is_heard_without_the_smell_and_with_it(store: SmellStore, tmp_path: Path) -> None:
    air, petrol, lemon = (
        smell_readings(LEMON, 0, before=120),
        smell_readings(PETROL, 60, seed=5),
        smell_readings(LEMON, 60, seed=6),
    )
    past = write_recording(tmp_path / "past.csv", np.concatenate([air, petrol, air, air, lemon]))
    told = heard_again(store, "petrol", past)
    assert "petrol" not in told.without_s
    assert told.with_s["petrol"] > 10
    assert told.with_s["lemon"] == pytest.approx(told.without_s["lemon"], abs=10)


def test_an_unknown_smell_cannot_be_rehearsed(store: SmellStore) -> None:
    with pytest.raises(SmellError, match="Taught: petrol"):
        preview_smell(store, "soap")
