"""What a negative is worth: every use of it is asked the same exposures."""

from __future__ import annotations

import pytest

from tests.calibration.responses import days
from training.commands.rigs import negative_table
from training.experiments.negatives import SMELL, USES, NegativeRow, compare_negatives
from training.experiments.real_rigs import everything, few


@pytest.mark.slow
def test_every_use_is_asked_the_same_exposures() -> None:
    rows = compare_negatives(days(1, 2), few(1))
    assert tuple(row.use for row in rows) == USES
    assert {row.cases for row in rows} == {(24, 24, 48)}


def test_too_few_smells_give_no_row() -> None:
    assert compare_negatives(days(1, 2, without="soap")[:3], everything) == []


def test_the_table_has_a_line_for_every_use() -> None:
    rows = [NegativeRow(use, 0.1, 0.2, 0.9, 0.0, (3, 3, 6)) for use in USES]
    lines = negative_table([("kitchen", "one", row) for row in rows])
    assert len(lines) == 2 + len(USES)
    assert lines[-1] == f"| kitchen | one | {SMELL} | 0.10 | 0.20 | 0.90 | 0.00 | 3, 3, 6 |"
