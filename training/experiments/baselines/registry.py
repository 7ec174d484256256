"""training/: the baselines by name, and their common interface.

Knows nothing of folds, scores or files. Loads neither torch nor scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from hardware.errors import UsageError
from training.experiments.baselines.deep import Deep, DeepSettings
from training.experiments.baselines.inputs import INPUTS, PUBLISHED
from training.experiments.baselines.rocket import Rocket
from training.experiments.baselines.trees import WindowTrees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray


class BaselineModel(Protocol):
    """A model of windows float32[windows, window, feature]."""

    @property
    def parameters(self) -> int:
        """How many numbers training chose."""

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
    train_stride: rows between its training windows; it is always scored on the protocol's.
    """

    name: str
    kind: str
    inputs: str
    make: Callable[..., BaselineModel]
    train_stride: int = PUBLISHED.stride


_KINDS: dict[str, tuple[str, Callable[..., BaselineModel]]] = {
    "trees": ("ExtraTrees on window statistics", WindowTrees),
    "rocket": ("MiniRocket and ridge", Rocket),
    "mlp": ("MLP", partial(Deep, settings=DeepSettings("mlp", width=128))),
    "cnn": ("CNN", partial(Deep, settings=DeepSettings("cnn"))),
    "lstm": ("LSTM", partial(Deep, settings=DeepSettings("lstm"))),
}
_QUICK = ("trees", "rocket")
"""Tried on a third kind of input as well."""


def _train_stride(name: str, inputs: str) -> int:
    if name == "trees":
        return 25  # trees gain little from windows that overlap by more than three quarters
    if name not in _QUICK and inputs == "ours":
        return 10  # nearly random crops
    return PUBLISHED.stride


def _entries() -> Iterator[BaselineEntry]:
    for name, (kind, make) in _KINDS.items():
        for inputs in INPUTS:
            if inputs != "plate" or name in _QUICK:
                full_name = name if inputs == "ours" else f"{name}-{inputs}"
                yield BaselineEntry(full_name, kind, inputs, make, _train_stride(name, inputs))


BASELINES = {entry.name: entry for entry in _entries()}


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
