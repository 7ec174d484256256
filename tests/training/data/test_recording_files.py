"""Every file of a data folder is read, passed over as hidden, or named."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.test_layouts import record
from training.commands._shared import load_recordings
from training.data.dataset import DataError, load_mixtures, load_substances
from training.data.recording_files import find_recordings


def pack(path: Path) -> None:
    """Compress a file as the service compresses its segments."""
    with gzip.open(path.with_name(f"{path.name}.gz"), "wb") as packed:
        packed.write(path.read_bytes())
    path.unlink()


def test_compressed_deeper_and_packed_recordings_are_read(tmp_path: Path) -> None:
    record(tmp_path / "coffee/a.csv", 300)
    pack(tmp_path / "coffee/a.csv")
    record(tmp_path / "tea/monday/b.csv", 310)
    record(tmp_path / "tea/kitchen/tuesday/c.CSV", 320)
    for number, level in ((1, 330), (2, 340), (4, 350)):
        path = tmp_path / f"mint/r000012-{number:04d}-20261121T072041Z.live.csv"
        record(path, level)
        pack(path)
    data = load_substances(tmp_path)
    assert data.labels == ("coffee", "mint", "tea")
    sessions = {sample.name: sample.session for sample in data.samples}
    assert sessions == {
        "coffee/a.csv.gz": "",
        "mint/r000012-0001-20261121T072041Z.live.csv.gz": "2026-11-21",
        "mint/r000012-0004-20261121T072041Z.live.csv.gz": "2026-11-21",
        "tea/kitchen/tuesday/c.CSV": "kitchen/tuesday",
        "tea/monday/b.csv": "monday",
    }
    assert [len(sample.values) for sample in data.samples] == [5, 10, 5, 5, 5]
    assert data.notices == ()


def test_hidden_and_system_files_are_passed_over(tmp_path: Path) -> None:
    record(tmp_path / "coffee/a.csv")
    for name in (
        ".ipynb_checkpoints/a-checkpoint.csv", "coffee/._a.csv", "coffee/.DS_Store",
        "coffee/.ipynb_checkpoints/a.csv", "__MACOSX/coffee/._a.csv", "coffee/Thumbs.db",
        "coffee/~$a.csv",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x00\x05\x16\x07")
    data = load_substances(tmp_path)
    assert (data.labels, data.notices) == (("coffee",), ())
    (tmp_path / "mixtures").mkdir()
    record(tmp_path / "mixtures/almond_20_pear_80.a.csv")
    (tmp_path / "mixtures/._almond_20_pear_80.a.csv").write_bytes(b"\x00")
    assert len(load_mixtures(tmp_path / "mixtures").samples) == 1


def test_what_is_not_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "coffee/a.csv")
    record(tmp_path / "loose.csv")
    record(tmp_path / "coffee/b.csv")
    pack(tmp_path / "coffee/b.csv")
    record(tmp_path / "coffee/b.csv")
    (tmp_path / "tea").mkdir()
    (tmp_path / "mint").mkdir()
    (tmp_path / "mint/a.xlsx").write_text("")
    data = load_recordings("substance", tmp_path)
    assert [sample.name for sample in data.samples] == ["coffee/a.csv", "coffee/b.csv"]
    named = capsys.readouterr().err
    for text in ("loose.csv", "coffee/b.csv.gz", "mint/a.xlsx", "No label", "mint, tea"):
        assert text in named


def test_a_folder_without_recordings_says_what_lies_there(tmp_path: Path) -> None:
    record(tmp_path / "a.csv")
    assert find_recordings(tmp_path).recordings == ()
    with pytest.raises(DataError, match=r"beside the folders of labels.*a\.csv"):
        load_substances(tmp_path)


def test_one_recording_under_two_labels_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "coffee/a.csv")
    record(tmp_path / "tea/b.csv")
    with pytest.raises(DataError, match="same file, byte for byte"):
        load_substances(tmp_path)


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    record(tmp_path / "data/coffee/a.csv")
    record(tmp_path / "elsewhere/b.csv", 310)
    (tmp_path / "data/coffee/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/tea").symlink_to(tmp_path / "elsewhere")
    data = load_substances(tmp_path / "data")
    assert [sample.name for sample in data.samples] == ["coffee/a.csv", "tea/b.csv"]


def test_joined_segments_are_the_readings_of_both(tmp_path: Path) -> None:
    for number, level in ((1, 330), (2, 340)):
        record(tmp_path / f"mint/r000012-{number:04d}-20261121T072041Z.live.csv", level)
    sample = load_substances(tmp_path).samples[0]
    np.testing.assert_array_equal(sample.values[:, 0], [*range(330, 335), *range(340, 345)])


def test_what_columns_were_taken_for_and_rows_left_out_are_noticed(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        path = tmp_path / "coffee" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("time(ms),NO2,C2H5OH,VOC,CO,note\n" + "0,1,2,3,4,x\n" * 3 + "5,6\n")
    notices = load_substances(tmp_path).notices
    assert any(text.startswith("coffee/a.csv and 1 more: ignored: note") for text in notices)
    assert any("1 row left out that cannot be read" in text for text in notices)
    assert any("time from column 'time(ms)'" in text for text in notices)
