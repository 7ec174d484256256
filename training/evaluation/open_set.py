"""training/: the outputs of networks that were trained without some of the substances.

numpy only. `training.experiments.open_set` trains the networks and writes one file for each;
everything about unknown smells is fitted and scored from these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from models.embedding_space import EmbeddingSpace
from training.evaluation.network_outputs import WindowOutputs
from training.evaluation.storage import load_arrays, save_arrays
from training.evaluation.streaming import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

OPEN_SET_FOLDER = "open-set"
"""Of a run folder: holds the networks and their outputs."""
OUTPUTS_FILE = "answers.npz"

UNKNOWN = -1
"""The truth of a recording of a hidden substance."""


class OpenSetError(ScentdError):
    """The data does not allow the experiment, or its outputs are missing."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenSetFold:
    """The outputs of one network for recordings that it was not trained on.

    Attributes
    ----------
    fold: its number.
    labels: the known substances, in the order of its logits.
    hidden: the substances that it was trained without.
    exemplars: float32[training windows, D], embeddings.
    exemplar_label: int[training windows], index in `labels`.
    space: of its embeddings, measured on the exemplars.
    names: of the recordings.
    substance: of each recording, its true label.
    outputs: for the protocol's windows of the recordings.
    streams: the same recordings streamed, with embeddings and novelty; their `truth` is the index
        in `labels`, UNKNOWN for a hidden substance.
    """

    fold: int
    labels: tuple[str, ...]
    hidden: tuple[str, ...]
    exemplars: NDArray[np.float32]
    exemplar_label: NDArray[np.int64]
    space: EmbeddingSpace
    names: tuple[str, ...]
    substance: tuple[str, ...]
    outputs: WindowOutputs
    streams: Streams

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool[recordings]: the network was trained on other recordings of this substance."""
        known: NDArray[np.bool_] = self.streams.truth != UNKNOWN
        return known

    @property
    def stream_embedding(self) -> NDArray[np.float32]:
        """float32[recordings, windows, D]."""
        if self.streams.embedding is None:
            raise ValueError("open-set streams have embeddings")
        return self.streams.embedding

    def save(self, path: Path, identity: str) -> None:
        """Write everything but the space and the novelty to one file, whole or not at all."""
        names = ("fold", "labels", "hidden", "exemplars", "exemplar_label", "names", "substance")
        arrays = {name: getattr(self, name) for name in names}
        arrays |= self.outputs.to_arrays() | self.streams.to_arrays()
        save_arrays(path, arrays, identity)


def label_indices(substance: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the index in `labels` of each substance, UNKNOWN where it is none of them."""
    index = {name: number for number, name in enumerate(labels)}
    return np.array([index.get(name, UNKNOWN) for name in substance], dtype=np.int64)


def read_open_set(folder: Path) -> tuple[OpenSetFold, ...]:
    """Read the outputs in a run folder, without any network.

    Raises
    ------
    OpenSetError: there are none.
    """
    found = find_open_set(folder)
    if not found:
        raise OpenSetError(
            "Expected predictions about substances that were not trained on in "
            f"{folder / OPEN_SET_FOLDER}, found none. Run `scent-train crossval --open-set` first, "
            "with the same --config, --data and --run."
        )
    return found


def find_open_set(folder: Path) -> tuple[OpenSetFold, ...]:
    """Read the outputs in a run folder; empty where it has none."""
    paths = sorted((folder / OPEN_SET_FOLDER).glob(f"fold-*/{OUTPUTS_FILE}"))
    return tuple(fold for fold in map(read_open_set_fold, paths) if fold is not None)


def read_open_set_fold(path: Path, identity: str | None = None) -> OpenSetFold | None:
    """Read the file of `OpenSetFold.save`; None without one, or with another identity."""
    arrays = load_arrays(path, identity)
    if arrays is None:
        return None
    labels = tuple(arrays["labels"].tolist())
    substance = tuple(arrays["substance"].tolist())
    space = EmbeddingSpace.fit(arrays["exemplars"], arrays["exemplar_label"], labels)
    streams = Streams.from_arrays(arrays, label_indices(substance, labels))
    return OpenSetFold(
        fold=int(arrays["fold"]),
        labels=labels,
        hidden=tuple(arrays["hidden"].tolist()),
        exemplars=arrays["exemplars"],
        exemplar_label=arrays["exemplar_label"],
        space=space,
        names=tuple(arrays["names"].tolist()),
        substance=substance,
        outputs=WindowOutputs.from_arrays(arrays),
        streams=streams.with_novelty(space),
    )
