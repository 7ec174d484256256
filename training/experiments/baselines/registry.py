"""training/: the baselines by name, and their common interface.

Knows nothing of folds, scores or files. Loads neither torch nor scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from hardware.errors import UsageError
from training.experiments.baselines.deep import Deep, DeepSettings
from training.experiments.baselines.inputs import PUBLISHED
from training.experiments.baselines.rocket import Rocket
from training.experiments.baselines.trees import WindowTrees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

_DENSE_STRIDE = 10
"""Networks on our inputs train on windows this many rows apart: nearly random crops."""

_QUICK = ("trees", "rocket")
"""Tried on a third kind of input as well."""


class BaselineModel(Protocol):
    """A model of windows float32[windows, window, feature]."""

    train_stride: int
    """Rows between the windows it is trained on; it is always scored on the protocol's."""

    @property
    def parameters(self) -> int:
        """Numbers that training chose."""

    def fit(self, x: NDArray[np.float32], label: NDArray[np.int64]) -> None:
        """Train from scratch on windows with their labels int[windows]."""

    def log_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64[windows, labels]."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """A baseline and its inputs.

    Attributes
    ----------
    name: as on the command line.
    kind: a description in a few words.
    inputs: a key of `inputs.INPUTS`.
    make: called with the number of labels, `seed` and `jobs`.
    """

    name: str
    kind: str
    inputs: str
    make: Callable[..., BaselineModel]


def _deep(settings: DeepSettings, train_stride: int) -> Callable[..., BaselineModel]:
    return partial(Deep, settings=settings, train_stride=train_stride)


def _entries() -> dict[str, BaselineEntry]:
    kinds: tuple[tuple[str, str, Callable[[int], Callable[..., BaselineModel]]], ...] = (
        ("trees", "ExtraTrees on window statistics", lambda _stride: WindowTrees),
        ("rocket", "MiniRocket and ridge", lambda _stride: Rocket),
        ("mlp", "MLP", partial(_deep, DeepSettings("mlp", width=128))),
        ("cnn", "CNN", partial(_deep, DeepSettings("cnn"))),
        ("lstm", "LSTM", partial(_deep, DeepSettings("lstm"))),
    )
    entries = []
    for name, kind, make in kinds:
        entries.append(BaselineEntry(name, kind, "ours", make(_DENSE_STRIDE)))
        if name in _QUICK:
            entries.append(BaselineEntry(f"{name}-plate", kind, "plate", make(_DENSE_STRIDE)))
        entries.append(
            BaselineEntry(f"{name}-published", kind, "published", make(PUBLISHED.stride))
        )
    return {entry.name: entry for entry in entries}


BASELINES = _entries()


def select_baselines(names: Sequence[str]) -> list[BaselineEntry]:
    """Return the baselines of these names, in the registry's order.

    Raises
    ------
    UsageError: a name is none of them.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise UsageError(
            f"Expected names of baselines, got {', '.join(unknown)}. There are: "
            f"{', '.join(BASELINES)}."
        )
    return [entry for name, entry in BASELINES.items() if name in names]
