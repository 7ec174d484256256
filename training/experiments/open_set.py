"""training/: networks that never met some substances, and what they say of those.

Network k is trained without every fifth substance (label number % 5 == k) and, of the others,
without fold k's recordings. So it has two kinds of recording to be asked about: of substances that
it knows, and of substances that nobody ever showed it. Their answers are kept in one file a fold,
from which everything about unknown smells is fitted and scored. Imports torch only where a
network has to be trained or quantised.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from training.data.dataset import N_FOLDS, substance_folds
from training.evaluation.evaluate import ask
from training.evaluation.open_set_answers import ANSWERS, FOLDER, OpenFold, OpenSetError, _read
from training.evaluation.stored_answers import keep
from training.evaluation.streaming import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.config import TrainConfig
    from training.data.dataset import Dataset

EVERY = 5
"""Network k never met the labels number k, k + 5, ... in alphabetical order: ten of fifty, from
every part of the alphabet and so of the shop."""


def ask_open_set(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    folds: Sequence[int] = range(N_FOLDS),
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
) -> tuple[OpenFold, ...]:
    """Train the networks that are not there yet and ask each about what it never saw.

    Parameters
    ----------
    config: what to train.
    data: recordings of substances.
    folder: the run folder; networks, bundles and answers go into its `open-set/fold-K`.
    device: torch device.
    folds: which networks.
    on_step: called with fold, step and loss.

    Raises
    ------
    OpenSetError: mixtures, or too few substances to hide any.
    """
    if data.task != "substance" or len(data.labels) <= EVERY:
        raise OpenSetError(
            f"Hiding substances needs recordings of more than {EVERY} single substances, got "
            f"{len(data.labels)} of task {data.task}. Use a substance configuration and data."
        )
    return tuple(
        _one_fold(
            config,
            data,
            fold,
            folder / FOLDER / f"fold-{fold}",
            device=device,
            on_step=lambda step, loss, fold=fold: on_step(fold, step, loss),  # type: ignore[misc]
        )
        for fold in folds
    )


def split(data: Dataset, fold: int) -> tuple[Dataset, Dataset, Dataset]:
    """Return what network `fold` trains on, and what it is asked about: known, and never met.

    The first two have the known labels alone, the third the hidden ones alone.
    """
    hidden = np.arange(len(data.labels)) % EVERY == fold
    held_out = substance_folds(data) == fold
    return (
        data.subset(~held_out).select_labels(~hidden),
        data.subset(held_out).select_labels(~hidden),
        data.select_labels(hidden),
    )


def _one_fold(
    config: TrainConfig,
    data: Dataset,
    fold: int,
    folder: Path,
    *,
    device: str,
    on_step: Callable[[int, float], None],
) -> OpenFold:
    from training.export.bundle import Provenance, export_bundle  # noqa: PLC0415 - torch
    from training.fit import train_network  # noqa: PLC0415

    train, known, hidden = split(data, fold)
    fitted = train_network(config, train, folder=folder, device=device, on_step=on_step)
    provenance = Provenance(f"scent-train crossval --open-set (fold {fold})", config.name)
    manifest = export_bundle(folder / "bundle", config, fitted, train, DecisionSpec(), provenance)
    key = hashlib.sha256(f"{manifest.files['model.onnx']} {data.sha256}".encode()).hexdigest()
    path = folder / ANSWERS
    if (before := _read(path, key)) is not None:
        return before
    bundle = load_bundle(folder / "bundle", precision="int8")
    _keep(path, key, fold, bundle, train, known, hidden)
    after = _read(path, key)
    if after is None:
        raise OpenSetError(f"{path} was just written and cannot be read. Is the disk full?")
    return after


def _keep(
    path: Path,
    key: str,
    fold: int,
    bundle: Bundle,
    train: Dataset,
    known: Dataset,
    hidden: Dataset,
) -> None:
    before = ask(bundle, train)
    parts = [ask(bundle, part) for part in (known, hidden)]
    samples = (*known.samples, *hidden.samples)
    streams = stream(bundle, samples)
    substances = [
        part.labels[int(sample.target.argmax())]
        for part in (known, hidden)
        for sample in part.samples
    ]
    described = [part.descriptors for part in parts if part.descriptors is not None]
    keep(
        path,
        key,
        {
            **({"descriptors": np.concatenate(described)} if described else {}),
            "fold": fold,
            "labels": train.labels,
            "hidden": hidden.labels,
            "exemplars": before.embedding,
            "exemplar_label": train.targets.argmax(axis=1)[before.owner],
            "names": [sample.name for sample in samples],
            "substance": substances,
            "owner": np.concatenate([parts[0].owner, parts[1].owner + len(known.samples)]),
            "logits": np.concatenate([_there(part.logits) for part in parts]),
            "embedding": np.concatenate([part.embedding for part in parts]),
            "stream_logits": streams.logits,
            "stream_embedding": _there(streams.embedding),
            "stream_ends_s": streams.ends_s,
            "stream_shares": [(x.elapsed_s, x.filled, x.fresh) for x in streams.shares],
        },
    )


def _there(values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if values is None:
        raise OpenSetError(
            "Expected logits and embeddings of a substance network, got none of one kind. Export "
            "the bundle again."
        )
    return values
