"""What is peculiar about recordings, in words."""

from __future__ import annotations

from pathlib import Path

from hardware.recording import read_recording
from training.data.notices import RecordingNotices, describe_oddities


def test_notes_that_differ_in_their_numbers_are_one(tmp_path: Path) -> None:
    """The published recordings once gave 107 lines about two channels."""
    notices = RecordingNotices()
    for name, rows in (("a.csv", 30), ("b.csv", 40)):
        path = tmp_path / name
        path.write_text("timestamp_ms,NO2,Benzene\n" + "0,300,-5\n" * rows, encoding="utf-8")
        notices.add(name, read_recording(path))
    (text,) = notices.sentences()
    assert text.startswith("a.csv and 1 more: Benzene is outside")


def test_only_what_was_found_is_named() -> None:
    counts = {"recordings": 12, "rows": 7200, "recordings_with_tenths": 0}
    assert describe_oddities(12, counts) == "12 recordings, 7200 readings"


def test_every_peculiarity_is_a_phrase_with_its_number() -> None:
    counts = {
        "recordings": 2,
        "recordings_out_of_time_order": 1,
        "recordings_resampled": 2,
        "rows": 1,
        "rows_Gas_Resistance_out_of_range": 1,
        "rows_Benzene_saturated": 40,
    }
    assert describe_oddities(2, counts) == (
        "2 recordings, 1 reading; not in time order: 1 recording; at another rate than the "
        "model's, converted: 2 recordings; Gas_Resistance out of range: 1 reading; Benzene "
        "saturated: 40 readings"
    )
