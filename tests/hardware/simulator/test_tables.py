"""The shipped tables are complete, and every odour in them can be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import TableError, load_board, load_playable


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_the_shipped_tables_are_complete(name: str) -> None:
    board = load_board(name)
    assert set(board.fingerprints) | {AIR} == set(board.loadings)
    assert (board.recovery_s > 0).all()
    assert (board.exponent > 0).all()
    for fingerprints in board.fingerprints.values():
        assert all((one.rise_s > 0).all() for one in fingerprints)


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_every_odour_of_the_shipped_table_can_be_played(name: str) -> None:
    for playable in load_playable(name, least_right=0.0):
        signal = SyntheticSignal(f"{playable.odour}:1", board=name)
        assert len(list(signal)) == round(signal.rate_hz)
        assert playable.right <= playable.trials


def test_ten_substances_are_played_so_that_the_shipped_model_recognises_them() -> None:
    playable = load_playable()
    assert len(playable) >= 10
    assert all(one.right_after_s is not None for one in playable)


def test_missing_tables_are_reported_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="scent-train fingerprints"):
        load_board("substances", tmp_path)
