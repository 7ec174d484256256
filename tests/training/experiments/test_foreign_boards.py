"""Tests for boards unlike that of a model's training."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.bundle import load_bundle
from training.commands.boards import comparison_table, played_table
from training.data.dataset import load_substances
from training.experiments.foreign_boards import (
    TESTS,
    ComparedTest,
    Played,
    compare_tests,
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
