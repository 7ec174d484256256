"""training/: the steps that all experiments share: train a fold, store its results, report.

A network is trained into a folder, from which an interrupted training resumes; results are stored
with the identity of what they were computed from, and read again while that stays the same.
torch is imported only where a network is trained.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from training.data.dataset import N_FOLDS
from training.evaluation.scoring import substance_tally
from training.evaluation.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from models.bundle import Bundle
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.data.protocol_windows import Windows
    from training.evaluation.open_set import OpenSetFold
    from training.evaluation.scoring import Tally
    from training.network.mixture_product import MixtureProductNet
    from training.network.product import ProductNet
    from training.network.scentformer import ScentFormer

SUBSTANCE_PROTOCOL = "grouped 5-fold, one recording of every substance held out; w=100, stride 50"


BATCH = 128
"""Windows that are run at once."""


def every_fifth(labels: int, fold: int) -> NDArray[np.bool_]:
    """Return bool[labels]: the labels number fold, fold + 5, ... in alphabetical order.

    Of fifty substances ten, from every part of the alphabet and so of the shop: those that are
    hidden from a network of this fold.
    """
    hidden: NDArray[np.bool_] = np.arange(labels) % N_FOLDS == fold % N_FOLDS
    return hidden


def report_head(config: TrainConfig, data: Dataset, protocol: str) -> dict[str, Any]:
    """Return what every report of a cross-validation says of its model, data and protocol."""
    return {
        "model": config.name,
        "task": config.task,
        "protocol": protocol,
        "precision": "int8",
        "seed": config.seed,
        "data_sha256": data.sha256,
        "labels": list(data.labels),
    }


def train_bundle(
    config: TrainConfig,
    train: Dataset,
    folder: Path,
    command: str,
    *,
    decision: DecisionSpec | None = None,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Bundle:
    """Train a network in `folder`, or resume it, and return its int8 bundle from there."""
    from training.export.bundle import Provenance, export_bundle  # noqa: PLC0415 - torch
    from training.fit import train_network  # noqa: PLC0415

    fitted = train_network(config, train, folder=folder, device=device, on_step=on_step)
    provenance = Provenance(command, config.name)
    place = folder / "bundle"
    export_bundle(place, config, fitted, train, decision or DecisionSpec(), provenance)
    return load_bundle(place, precision="int8")


Result = TypeVar("Result", "FoldPredictions", "OpenSetFold")


def hash_inputs(inputs: Sequence[object]) -> str:
    """Return a hash of the `repr` of everything that decides a result."""
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def load_or_compute(
    path: Path,
    identity: str,
    read: Callable[[Path, str], Result | None],
    compute: Callable[[], Result],
) -> Result:
    """Return the result stored in `path` with the same identity, or compute and store it.

    The identity is that of the result's inputs, see `hash_inputs`.
    """
    result = read(path, identity)
    if result is None:
        result = compute()
        result.save(path, identity)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class FoldPredictions:
    """Predictions of a model for the recordings of a fold that it was not trained on.

    Attributes
    ----------
    recordings: int[R], their numbers in the data set.
    truth: int[R], their labels.
    owner: int[W], the row of `recordings` each window was cut from.
    log_probabilities: float64[W, labels].
    seconds: that training and prediction took, on whatever machine it was.
    extras: further arrays by name.
    """

    recordings: NDArray[np.int64]
    truth: NDArray[np.int64]
    owner: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]
    seconds: float
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)

    def tally(self) -> Tally:
        """Count the scores of substances."""
        return substance_tally(self.log_probabilities, self.owner, self.truth)

    def save(self, path: Path, identity: str) -> None:
        """Write everything to one file, whole or not at all."""
        names = ("recordings", "truth", "owner", "log_probabilities", "seconds")
        save_arrays(
            path, {**{name: getattr(self, name) for name in names}, **self.extras}, identity
        )

    @classmethod
    def read(cls, path: Path, identity: str) -> Self | None:
        """Read the file of `save`; None without one, or with another identity."""
        arrays = load_arrays(path, identity)
        if arrays is None:
            return None
        return cls(
            recordings=arrays.pop("recordings"),
            truth=arrays.pop("truth"),
            owner=arrays.pop("owner"),
            log_probabilities=arrays.pop("log_probabilities"),
            seconds=float(arrays.pop("seconds")),
            extras=arrays,
        )


def run_in_batches(
    network: ScentFormer | MixtureProductNet | ProductNet, windows: Windows, size: int
) -> tuple[Tensor, ...]:
    """Return a torch network's outputs over all windows, on the CPU."""
    import torch  # noqa: PLC0415

    device = next(network.parameters()).device
    outputs = []
    with torch.no_grad():
        for start in range(0, len(windows.x), size):
            rows = slice(start, start + size)
            x = torch.from_numpy(windows.x[rows]).to(device)
            mask = torch.from_numpy(windows.mask[rows]).to(device)
            outputs.append(network(x, mask))
        return tuple(torch.cat(part).cpu() for part in zip(*outputs, strict=True))


def render_markdown_table(head: str, rows: Iterable[str]) -> str:
    """Return a Markdown table of lines whose cells are separated by " | "."""
    rule = "|---" * (head.count(" | ") + 1) + "|"
    return "\n".join([f"| {head} |", rule, *(f"| {row} |" for row in rows)])
