"""training/: the option that names folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import UsageError
from training.data.dataset import folds_of

if TYPE_CHECKING:
    from training.data.dataset import Dataset


def words(text: str) -> list[str]:
    """Return the words of a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def chosen_folds(text: str | None, data: Dataset) -> list[int]:
    """Return the folds that an option names, all of the data's for None.

    Raises
    ------
    UsageError: the data does not have a fold, or no second recording of any label.
    """
    existing = [int(fold) for fold in np.unique(folds_of(data)) if fold >= 0]
    if len(existing) < 2:  # noqa: PLR2004 - one to train on, one to judge on
        raise UsageError(
            "Expected at least two recordings of a label, to train on one and judge on another; "
            "found one of each. Record every label again."
        )
    if text is None:
        return existing
    named = words(text)
    wrong = [word for word in named if not word.isdigit() or int(word) not in existing]
    if wrong or not named:
        raise UsageError(
            f"Expected --folds among {', '.join(map(str, existing))}, got {text!r}. A data set has "
            "as many folds as the label with most recordings has recordings, five at most."
        )
    return sorted({int(word) for word in named})
