"""The shipped tables are complete, and every odour in them can be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import TableError, load_board


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_the_shipped_tables_are_complete(name: str) -> None:
    board = load_board(name)
    assert set(board.fingerprints) | {AIR} == set(board.loadings)
    assert (board.recovery_s > 0).all()
    for fingerprints in board.fingerprints.values():
        assert all((one.rise_s > 0).all() for one in fingerprints)


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_every_substance_of_the_shipped_tables_can_be_played(name: str) -> None:
    for substance in load_board(name).substances:
        signal = SyntheticSignal(f"{substance}:1", board=name)
        assert len(list(signal)) == round(signal.rate_hz)


def test_missing_tables_are_reported_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="scent-train fingerprints"):
        load_board("substances", tmp_path)
