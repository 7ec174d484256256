"""What the unmixing of a rig says of single smells of another day."""

from __future__ import annotations

from tests.calibration.responses import days
from training.commands.unmix import singles_table
from training.experiments.unmixed_singles import unmix_singles


def test_a_single_smell_is_called_another_or_several_no_more_often_than_by_the_recogniser() -> None:
    rows = {row.source: row for row in unmix_singles("made up", days(1, 2, 3, 4))}
    assert list(rows) == ["recogniser", "unmixing alone", "mixture"]
    recogniser, mixture = rows["recogniser"], rows["mixture"]
    assert mixture.exposures == 16
    assert mixture.right[-1] >= 0.9
    for others, several, limit in zip(
        mixture.another, mixture.several, recogniser.another, strict=True
    ):
        assert others + several <= limit
    assert "| made up | mixture | " in "\n".join(singles_table([mixture]))
