"""The journal keeps its newest records through restarts, power cuts and damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.review.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


def test_records_are_there_again_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state" / "kept.jsonl", 10)
    assert journal.read() == []
    for number in range(3):
        journal.append({"number": number}, durable=True)
    again = Journal(tmp_path / "state" / "kept.jsonl", 10)
    assert again.read() == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_the_file_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "kept.jsonl", 10)
    for number in range(95):
        journal.append({"number": number}, durable=False)
    assert len((tmp_path / "kept.jsonl").read_bytes().splitlines()) <= 20
    assert [record["number"] for record in journal.read()] == list(range(85, 95))


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b'{"number":1}\nnonsense\n[1]\n{"number":2}\n{"num')
    journal = Journal(path, 10)
    assert journal.read() == [{"number": 1}, {"number": 2}]
    journal.append({"number": 3}, durable=True)
    assert Journal(path, 10).read() == [{"number": 1}, {"number": 2}, {"number": 3}]


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "kept.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        Journal(tmp_path / "kept.jsonl", 10).append({}, durable=True)
    assert (tmp_path / "elsewhere").read_text() == ""
