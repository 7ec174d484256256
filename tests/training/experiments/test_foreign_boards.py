"""Tests for boards unlike that of a model's training."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.bundle import load_bundle
from training.commands.boards import comparison_table, known_table, played_table
from training.data.dataset import load_substances
from training.experiments.foreign_boards import (
    TESTS,
    ComparedTest,
    Known,
    Played,
    compare_tests,
    count_known,
    import_boards,
    play_board,
)

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.dataset import Dataset


@pytest.fixture(scope="module")
def boards(smellnet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = smellnet.parent / "rigs"
    if not folder.is_dir():
        pytest.skip("SCENTD_DATA holds no rigs/")
    return import_boards(folder, tmp_path_factory.mktemp("boards"))


def some(data: Dataset, every: int) -> Dataset:
    return data.subset(np.arange(len(data.samples)) % every == 0)


def test_tables_have_a_row_for_every_result() -> None:
    result = ComparedTest("m", "levels", 0.05, {"fruits5": 1.0})
    played = Played("m", "fruits5", 25, 25, 25, 0, 0)
    assert "| m | levels | 0.050 | 1.00 |" in comparison_table([result])
    assert "| m | fruits5 | 25 | 25 | 25 | 0 | 0 |" in played_table([played])
    known = Known("m", "fruits5", 25, (0.0, 0.5, 1.0), 1.0)
    assert "| m | fruits5 | 25 | 0.000 | 0.500 | 1.000 | 1.000 |" in known_table([known])
    json.dumps([dataclasses.asdict(result), dataclasses.asdict(played)])


@pytest.mark.data
class TestOnRealRecordings:
    """Needs SCENTD_DATA."""

    def test_the_test_in_use_finds_every_other_board(
        self, smellnet: Path, boards: dict[str, Dataset]
    ) -> None:
        data = some(load_substances(smellnet / "base"), 2)
        results = compare_tests(load_bundle("substances-50"), data, {}, boards)
        assert len(results) == len(TESTS)
        used = next(result for result in results if result.test.endswith("(used)"))
        assert used.own <= 0.1
        assert {used.found[name] for name in boards} == {1.0}

    def test_other_boards_are_given_no_name_and_the_own_is(
        self, smellnet: Path, boards: dict[str, Dataset]
    ) -> None:
        bundle = load_bundle("substances-50")
        for name, data in boards.items():
            played = play_board(bundle, name, some(data, 5))
            assert played.fed == played.foreign == played.recordings
            assert played.named == 0
        own = play_board(bundle, "own", some(load_substances(smellnet / "base"), 50))
        assert own.foreign <= 1
        assert own.named >= 4

    def test_a_network_of_another_rig_names_nothing_on_other_boards(
        self, boards: dict[str, Dataset]
    ) -> None:
        bundle = load_bundle("fruits-5")
        assert [
            play_board(bundle, name, boards[name]).named for name in ("ai-nose", "sidharth")
        ] == [0, 0]
        own = play_board(bundle, "own", some(boards["fruits5"], 5))
        assert own.named == own.fed == 5
        assert own.foreign == 0

    def test_most_recordings_of_the_own_board_are_known_and_none_of_others(
        self, smellnet: Path, boards: dict[str, Dataset]
    ) -> None:
        data = some(load_substances(smellnet / "base"), 2)
        known = count_known(load_bundle("substances-50"), data, boards)
        assert known[0].after[-1] >= 0.8
        assert {row.ever for row in known[1:]} == {0.0}

    def test_clean_air_tells_boards_apart_where_it_is_known(
        self, boards: dict[str, Dataset]
    ) -> None:
        others = {name: boards[name] for name in ("ai-nose", "sidharth")}
        results = compare_tests(load_bundle("fruits-5"), boards["fruits5"], {}, others)
        used = results[-1]
        assert used.test.startswith("clean air")
        assert used.own <= 0.08
        assert {used.found[name] for name in others} == {1.0}
