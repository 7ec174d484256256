"""Labels beside a recording never overlap, are bounded and whole, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.errors import UsageError
from hardware.labels import checked_label, folder_name
from hardware.recording_labels import (
    LabelledStretch,
    LabelsError,
    RecordingLabels,
    change_labels,
    labels_path,
    read_labels,
    write_labels,
)
from hardware.segment_names import recording_date

TEA = LabelledStretch(1000, 5000, "tea", "page")
STRETCHES = st.builds(
    lambda start, length, label: LabelledStretch(start, start + length, label),
    st.integers(0, 100),
    st.integers(1, 50),
    st.sampled_from(["tea", "coffee"]),
)


def label_at(labels: RecordingLabels, t_ms: float) -> str | None:
    return next((s.label for s in labels.stretches if s.start_ms < t_ms < s.end_ms), None)


@given(st.lists(STRETCHES, max_size=8))
def test_the_latest_label_of_every_moment_counts(stretches: list[LabelledStretch]) -> None:
    labels = RecordingLabels()
    for stretch in stretches:
        labels = labels.with_stretch(stretch)
    for moment in range(151):
        covering = [s.label for s in stretches if s.start_ms < moment + 0.5 < s.end_ms]
        assert label_at(labels, moment + 0.5) == (covering[-1] if covering else None)


def test_labels_are_read_as_written_and_none_leave_no_file(tmp_path: Path) -> None:
    recording = tmp_path / "a.csv.gz"
    assert read_labels(recording) == RecordingLabels()
    change_labels(recording, lambda labels: labels.with_stretch(TEA))
    assert labels_path(recording) == tmp_path / "a.csv.labels.yaml"
    assert read_labels(tmp_path / "a.csv").stretches == (TEA,)
    change_labels(recording, lambda labels: labels.without(0, 9000))
    assert not labels_path(recording).exists()


@pytest.mark.parametrize(
    "text",
    [
        "][",
        "format: 2\nstretches: []\n",
        "format: 1\nstretches: [{start_ms: 5, end_ms: 5, label: tea, author: ''}]\n",
        "format: 1\nstretches: [{start_ms: 0, end_ms: 5, label: '', author: ''}]\n",
        "format: 1\nstretches: [{start_ms: 0, end_ms: 5, label: tea, smell: x}]\n",
        "format: 1\nstretches: [{start_ms: 0, end_ms: 9, label: tea},"
        " {start_ms: 5, end_ms: 12, label: tea}]\n",
        "#" * 300_000,
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv.labels.yaml").write_text(text)
    with pytest.raises(LabelsError, match=r"a\.csv\.labels\.yaml"):
        read_labels(tmp_path / "a.csv")


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("format: 1\nstretches: []\n")
    (tmp_path / "a.csv.labels.yaml").symlink_to(tmp_path / "other")
    with pytest.raises(LabelsError):
        read_labels(tmp_path / "a.csv")
    write_labels(tmp_path / "a.csv", RecordingLabels((TEA,)))
    assert (tmp_path / "other").read_text() == "format: 1\nstretches: []\n"


def test_too_many_stretches_are_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    full = tuple(LabelledStretch(10 * n, 10 * n + 5, "tea") for n in range(500))
    write_labels(tmp_path / "a.csv", RecordingLabels(full))
    with pytest.raises(LabelsError, match="at most 500"):
        change_labels(
            tmp_path / "a.csv", lambda labels: labels.with_stretch(LabelledStretch(9000, 9001, "x"))
        )
    assert read_labels(tmp_path / "a.csv").stretches == full


def test_the_lead_ends_at_the_stretch_before() -> None:
    first, second = LabelledStretch(10_000, 20_000, "tea"), LabelledStretch(50_000, 90_000, "x")
    labels = RecordingLabels((first, second))
    assert labels.lead_start_ms(first) == 0
    assert labels.lead_start_ms(second) == 20_001
    assert labels.lead_start_ms(second, 10_000) == 40_000


@pytest.mark.parametrize("label", ["", " ", "x" * 65, "a\nb", "\x00"])
def test_what_cannot_be_a_name_is_refused(label: str) -> None:
    with pytest.raises(UsageError):
        checked_label(label)


@given(st.text(max_size=70))
def test_a_folders_name_is_one_folder(text: str) -> None:
    try:
        label = checked_label(text)
    except UsageError:
        return
    name = folder_name(label)
    assert Path("a", name).parent == Path("a")
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("r000001-0002-20260131T120000Z.live.csv.gz", "2026-01-31"),
        ("tea-20260131T120000Z.csv", "2026-01-31"),
        ("r000001-0002-20260131T120000Z-60000-90000.csv", "2026-01-31"),
        ("tea.csv", None),
    ],
)
def test_the_date_of_a_recording_is_in_its_name(name: str, date: str | None) -> None:
    assert recording_date(Path(name)) == date
