"""Data sets in all their layouts: the training part is found, a test part only by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from hardware.errors import UsageError
from hardware.recording import RecordingWriter
from training.commands._shared import load_recordings
from training.data.dataset import load_mixtures, load_substances
from training.data.layouts import label_name, refuse_test_part, training_part


def record(path: Path, level: float = 300.0) -> None:
    """Write a short recording; `level` makes its bytes unique."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(N_CHANNELS, level, dtype=np.float32)
    with RecordingWriter(path) as recording:
        for row in range(5):
            recording.write(row * 1000, values + row)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The published layout, a recording in each part."""
    root = tmp_path / "SmellNet"
    record(root / "base_data/training/Star Anise/a.csv", 300)
    record(root / "base_data/training/almond/b.csv", 310)
    record(root / "base_data/testing/almond/c.csv", 320)
    record(root / "mixture_data/training_new/almond_20_pear_80.d.csv", 330)
    record(root / "mixture_data/training_seen/almond_20_pear_80.d.csv", 330)
    record(root / "mixture_data/test_seen/almond_20_pear_80.e.csv", 340)
    record(root / "mixture_data/test_unseen/almond_50_peach_50.f.csv", 350)
    (root / "gcms.csv").write_text("label,C\nalmond,3\n")
    return root


@pytest.mark.parametrize("below", [".", "base_data", "base_data/training"])
def test_substances_of_the_published_layout_are_its_training_part(
    published: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_recordings("substance", published / below)
    assert [sample.name for sample in data.samples] == ["Star Anise/a.csv", "almond/b.csv"]
    assert data.labels == ("almond", "star_anise")
    said = capsys.readouterr().err
    if below != "base_data/training":
        assert "base_data/training" in said
        assert "testing" in said


@pytest.mark.parametrize("below", [".", "mixture_data", "mixture_data/training_new"])
def test_mixtures_of_the_published_layout_are_its_new_training_part(
    published: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_recordings("mixture", published / below)
    assert [sample.name for sample in data.samples] == ["almond_20_pear_80.d.csv"]
    assert dict(zip(data.labels, data.samples[0].target, strict=True)) == pytest.approx(
        {"almond": 0.2, "pear": 0.8}
    )
    if below != "mixture_data/training_new":
        left = capsys.readouterr().err.split("left alone: ")[1]
        assert all(name in left for name in ("test_seen", "test_unseen", "training_seen"))


def test_base_and_mixture_side_by_side_are_distinguished(tmp_path: Path) -> None:
    record(tmp_path / "base/almond/a.csv")
    record(tmp_path / "crosssession/nuts/almond/b.csv")
    record(tmp_path / "mixture/almond_20_pear_80.c.csv")
    (tmp_path / "gcms_elements.csv").write_text("label,C\nalmond,3\n")
    assert training_part(tmp_path, "substance").folder == tmp_path / "base"
    assert training_part(tmp_path, "mixture").folder == tmp_path / "mixture"
    assert [s.name for s in load_recordings("substance", tmp_path).samples] == ["almond/a.csv"]


def test_a_users_folders_are_used_as_they_are(tmp_path: Path) -> None:
    names = ("base", "training", "coffee")  # the first two mean something elsewhere
    for number, label in enumerate(names):
        record(tmp_path / label / "a.csv", 300 + 10 * number)
    part = training_part(tmp_path, "substance")
    assert part.folder == tmp_path
    assert load_substances(part.folder).labels == ("base", "coffee", "training")


def test_test_parts_are_refused_for_training_and_can_be_scored(
    published: Path, tmp_path: Path
) -> None:
    record(tmp_path / "crosssession/nuts/almond/b.csv")
    for part in (
        published / "base_data/testing",
        published / "mixture_data/test_seen",
        published / "mixture_data/test_unseen",
        tmp_path / "crosssession",
        tmp_path / "crosssession/nuts",
    ):
        with pytest.raises(UsageError, match="is a test part"):
            refuse_test_part(part)
    for allowed in (published, published / "base_data/training", tmp_path / "testing/my-smells"):
        refuse_test_part(allowed)
    judged = load_recordings("substance", published / "base_data/testing")
    assert [sample.name for sample in judged.samples] == ["almond/c.csv"]


def test_mixtures_may_lie_in_folders(tmp_path: Path) -> None:
    record(tmp_path / "day-1/almond_20_pear_80.a.csv", 300)
    record(tmp_path / "day-2/almond_20_pear_80.a.csv", 310)
    data = load_mixtures(tmp_path)
    assert [sample.name for sample in data.samples] == [
        "day-1/almond_20_pear_80.a.csv",
        "day-2/almond_20_pear_80.a.csv",
    ]
    assert data.samples[0].group != data.samples[1].group


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("star_anise", "star_anise"),
        ("Star Anise", "star_anise"),
        (" star - ANISE ", "star_anise"),
        ("almond", "almond"),
        ("Kaffee №2", "kaffee_№2"),
    ],
)
def test_labels_have_one_spelling(text: str, label: str) -> None:
    assert label_name(text) == label == label_name(label)


def test_spellings_of_one_label_are_one_substance(tmp_path: Path) -> None:
    record(tmp_path / "Star Anise/a.csv", 300)
    record(tmp_path / "star_anise/b.csv", 310)
    data = load_substances(tmp_path, labels=("star_anise", "almond"))
    assert data.labels == ("star_anise", "almond")
    assert [int(sample.target.argmax()) for sample in data.samples] == [0, 0]


@pytest.mark.data
def test_real_recordings_are_found_from_their_root(smellnet: Path) -> None:
    assert training_part(smellnet, "substance").folder == smellnet / "base"
    assert training_part(smellnet, "mixture").folder == smellnet / "mixture"
    labels = sorted(folder.name for folder in (smellnet / "base").iterdir())
    assert [label_name(label) for label in labels] == labels
