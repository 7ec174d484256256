"""Calibration on a real second board, judged by the days that were no references."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.bundle import load_bundle
from tests.training.exposures import import_fruits5
from training.commands.boards import calibration_table
from training.experiments.real_calibration import CalibratedDay, Names, calibrate_days

if TYPE_CHECKING:
    from pathlib import Path


def test_the_table_has_a_row_for_everything_that_was_asked() -> None:
    names = Names(1, 2, 3, 4)
    lines = calibration_table([CalibratedDay("d", "1 tea", "shift", 5, names, names, None)])
    assert lines[2:] == [
        "| d | 1 tea | shift | 5 | uncalibrated | 1 | 2 | 3 | 4 |",
        "| d | 1 tea | shift | 5 | calibrated | 1 | 2 | 3 | 4 |",
    ]


@pytest.mark.data
def test_a_day_of_references_from_a_slow_board_is_judged_on_the_others(
    smellnet: Path, tmp_path: Path
) -> None:
    data = import_fruits5(smellnet, tmp_path / "fruits")
    chosen = [sample.session in {"20250517", "20250518"} for sample in data.samples]
    days = calibrate_days(load_bundle("substances-50"), data.subset(np.array(chosen)), data.folder)  # type: ignore[arg-type]
    assert [day.references for day in days] == ["3 banana, 3 pineapple", "1 pineapple"]
    both = days[0]
    assert both.taught is not None
    assert (both.recordings, both.taught.right, both.taught.wrong) == (1, 1, 0)
    assert both.after.right >= both.before.right == 0
