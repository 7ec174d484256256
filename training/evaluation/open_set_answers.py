"""training/evaluation: stored answers of networks that never met some of the substances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from models.embedding_space import EmbeddingSpace
from models.substance_decision import EvidenceShare
from training.evaluation.stored_answers import kept
from training.evaluation.streaming import Streams

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


FOLDER = "open-set"
"""Of a run folder: where the networks and their answers lie."""


ANSWERS = "answers.npz"


UNKNOWN = -1
"""The truth of a recording whose substance the network never met."""


class OpenSetError(ScentdError):
    """The data does not allow the experiment, or its answers are missing."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenFold:
    """What one network said of recordings that it had not seen.

    Attributes
    ----------
    fold: its number.
    labels: those that it knows, in the order of its logits.
    hidden: those that it never met.
    space: of its embeddings, measured on the windows it was trained on.
    exemplars: float32[training windows, D], the embeddings of those.
    exemplar_label: int[training windows], index in `labels`.
    names: of the recordings asked about.
    substance: of each recording, its true label.
    truth: int[recordings], index in `labels`, UNKNOWN for a hidden substance.
    owner: int[windows], the recording of each of the protocol's windows.
    logits, embedding: float32[windows, ...].
    streams: the same recordings listened to as the daemon does, with embeddings and novelty.
    descriptors: float32[windows, descriptors] of a network with that head, else None.
    """

    fold: int
    labels: tuple[str, ...]
    hidden: tuple[str, ...]
    space: EmbeddingSpace
    exemplars: NDArray[np.float32]
    exemplar_label: NDArray[np.int64]
    names: tuple[str, ...]
    substance: tuple[str, ...]
    truth: NDArray[np.int64]
    owner: NDArray[np.int64]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    streams: Streams
    descriptors: NDArray[np.float32] | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool[recordings]: the network was trained on other recordings of this substance."""
        known: NDArray[np.bool_] = self.truth != UNKNOWN
        return known

    @property
    def of_hidden(self) -> NDArray[np.int64]:
        """int[recordings], index in `hidden`, UNKNOWN for a known substance."""
        number = {name: k for k, name in enumerate(self.hidden)}
        return np.array([number.get(name, UNKNOWN) for name in self.substance], dtype=np.int64)


def read_open_set(folder: Path) -> tuple[OpenFold, ...]:
    """Read the answers that a run folder holds, without any network.

    Raises
    ------
    OpenSetError: there are none.
    """
    found = open_set_of(folder)
    if not found:
        raise OpenSetError(
            f"Expected answers about substances never met in {folder / FOLDER}, found none. Run "
            "`scent-train crossval --open-set` first, with the same --config, --data and --run."
        )
    return found


def open_set_of(folder: Path) -> tuple[OpenFold, ...]:
    """Read the answers that a run folder holds; empty where it holds none."""
    paths = sorted((folder / FOLDER).glob(f"fold-*/{ANSWERS}"))
    return tuple(fold for fold in map(_read, paths) if fold is not None)


def _read(path: Path, key: str | None = None) -> OpenFold | None:
    arrays = kept(path, key)
    if arrays is None:
        return None
    labels = tuple(arrays["labels"].tolist())
    substance = tuple(arrays["substance"].tolist())
    number = {name: k for k, name in enumerate(labels)}
    truth = np.array([number.get(name, UNKNOWN) for name in substance], dtype=np.int64)
    exemplars, exemplar_label = arrays["exemplars"], arrays["exemplar_label"]
    space = EmbeddingSpace.fit(exemplars, exemplar_label, labels)
    return OpenFold(
        fold=int(arrays["fold"]),
        labels=labels,
        hidden=tuple(arrays["hidden"].tolist()),
        space=space,
        exemplars=exemplars,
        exemplar_label=exemplar_label,
        names=tuple(arrays["names"].tolist()),
        substance=substance,
        truth=truth,
        owner=arrays["owner"],
        logits=arrays["logits"],
        embedding=arrays["embedding"],
        streams=Streams(
            arrays["stream_logits"],
            tuple(EvidenceShare(*row) for row in arrays["stream_shares"].tolist()),
            arrays["stream_ends_s"],
            truth,
            arrays["stream_embedding"],
        ).told_in(space),
        descriptors=arrays.get("descriptors"),
    )
