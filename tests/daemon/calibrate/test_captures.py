"""The store of captures: found again, bounded, and explained when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.board.history import ReadingSpan
from daemon.calibrate.captures import BASELINE, INDEX, MAX_CAPTURES, Captures, CapturesError
from hardware.checksum_line import with_checksum


def readings(seconds: int) -> ReadingSpan:
    t_ms = np.arange(seconds, dtype=np.int64) * 1000
    return ReadingSpan(np.full((seconds, 12), 5, np.float32), t_ms)


def test_captures_are_stored_and_the_oldest_clean_air_is_removed(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "calibration")
    assert captures.all() == ()
    for seconds in range(61, 61 + MAX_CAPTURES["baseline"]):
        captures.keep(readings(seconds).write, "baseline", None, seconds)
    captures.keep(readings(90).write, "reference", "mint", 89.0)
    captures.keep(readings(91).write, "reference", "mint", 90.0)
    newest = captures.keep(readings(70).write, "baseline", None, 69.0)
    found = Captures(tmp_path / "calibration")
    kept = found.baselines()
    assert kept[-1] == newest
    assert [item.seconds for item in kept[:-1]] == [*range(62, 61 + MAX_CAPTURES["baseline"])]
    assert [(item.label, item.seconds) for item in found.references()] == [
        ("mint", 89.0),
        ("mint", 90.0),
    ]
    assert len(found.recording(found.references()[1])) == 91
    assert len(list((tmp_path / "calibration").glob("*.csv"))) == MAX_CAPTURES["baseline"] + 2


def test_references_are_removed_by_label_and_all_together(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    for label in ("mint", "lemon", "mint"):
        captures.keep(readings(60).write, "reference", label, 59.0)
    with pytest.raises(CapturesError, match=r"no reference of 'tea'\. References: lemon, mint"):
        captures.forget("tea")
    assert len(captures.forget("mint")) == 2
    assert [item.label for item in captures.all()] == ["lemon"]
    captures.forget()
    assert captures.all() == ()
    assert list(tmp_path.glob("*.csv")) == []


@pytest.mark.parametrize("text", ["captures: [", "captures: {}", "format: 9\ncaptures: []"])
def test_the_error_of_a_damaged_index_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(CapturesError, match="Move it away"):
        Captures(tmp_path).all()


def keep(captures: Captures) -> None:
    captures.keep(lambda path: path.write_bytes(b"readings"), BASELINE, None, 60.0)


def test_nothing_is_written_through_a_link_in_the_place_of_the_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "calibration").symlink_to(elsewhere)
    with pytest.raises(OSError, match="calibration is a link"):
        keep(Captures(tmp_path / "calibration"))
    assert list(elsewhere.iterdir()) == []


def test_an_index_that_names_files_elsewhere_is_refused_and_they_stay(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "calibration")
    keep(captures)
    (captured,) = captures.all()
    victim = tmp_path / "victim.csv"
    victim.write_bytes(b"kept")
    index = captures.folder / INDEX
    text = index.read_bytes().rpartition(b"sha256:")[0]
    index.write_bytes(with_checksum(text.replace(captured.file.encode(), b"../victim.csv")))
    with pytest.raises(CapturesError, match="file must be the name of a capture"):
        captures.forget()
    assert victim.exists()


def test_an_index_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "calibration")
    keep(captures)
    index = captures.folder / INDEX
    index.write_bytes(index.read_bytes().replace(b"60.0", b"61.0"))
    with pytest.raises(CapturesError, match="its checksum is wrong"):
        captures.all()
