"""training/: which folder of a data set holds the recordings to train on, and how labels are spelt.

Three layouts are read: the published one (`base_data/{training,testing}/LABEL/*.csv`,
`mixture_data/{training_new,training_seen,test_seen,test_unseen}/*.csv`), its halves as
`base/LABEL/*.csv` and `mixture/*.csv`, and any folder of `LABEL/*.csv` or
`LABEL/SESSION/*.csv`. Reads names only, never a recording. A test part is used only if the path
names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from training.data.recording_files import is_recording_name, visible_files

if TYPE_CHECKING:
    from pathlib import Path

TRAINING_PARTS = {
    # `training_seen` is a part of `training_new` (the compositions of the seen test): both together
    # would train on recordings twice and put copies of one into two folds.
    "substance": ("base_data/training", "training", "base"),
    "mixture": (
        "mixture_data/training_new",
        "mixture_data/training_seen",
        "training_new",
        "training_seen",
        "mixture",
    ),
}
"""Where the training part lies below a root or below its half; the first that exists is used."""
TEST_PARTS = ("base_data/testing", "test_seen", "test_unseen", "crosssession", "crosssession/*")
"""Ends of paths whose recordings test models and never train one."""


@dataclass(frozen=True, slots=True)
class TrainingPart:
    """The folder of recordings in a data set.

    `passed_over` has the other parts of the data set, by path below the root.
    """

    folder: Path
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the folder and the other parts."""
        left = f"; left alone: {', '.join(self.passed_over)}" if self.passed_over else ""
        return f"recordings of {self.folder}{left}"


def label_name(text: str) -> str:
    """Return a label in scentd's spelling: lower case, words joined by `_`.

    `Star Anise`, `star-anise` and `star_anise` are one label.
    """
    return re.sub(r"[\s_-]+", "_", text.strip().lower()).strip("_")


def training_part(root: Path, task: str) -> TrainingPart:
    """Return the part of a data set to train on.

    Parameters
    ----------
    root: the root of one of the layouts, or a folder of recordings itself.
    task: "substance" or "mixture".
    """
    for name in TRAINING_PARTS[task]:
        if _holds_recordings(root / name, task):
            others = sorted(
                path.relative_to(root).as_posix()
                for path in (root / name).parent.iterdir()
                if path.is_dir() and path != root / name and not path.name.startswith(".")
            )
            return TrainingPart(root / name, tuple(others))
    return TrainingPart(root)


def refuse_test_part(folder: Path) -> None:
    """Refuse test recordings for training or for choosing settings.

    Raises
    ------
    UsageError: the path leads into a test part of a published layout.
    """
    path = folder.resolve()
    if any(path.match(part) for part in TEST_PARTS):
        raise UsageError(
            f"Expected recordings to train on; {folder} is a test part. The scores of a model that "
            "was trained on it or chosen by it would mean nothing. Name the data set's root or its "
            "training part; `scent-train evaluate` scores this one."
        )


def _holds_recordings(folder: Path, task: str) -> bool:
    """Tell whether there are recordings; those of mixtures may lie at any depth."""
    if not folder.is_dir():
        return False
    files = filter(is_recording_name, visible_files(folder))
    return any(task == "mixture" or path.parent != folder for path in files)
