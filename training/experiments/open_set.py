"""training/: networks that are trained without some substances, and their outputs for those.

Network k is trained without every fifth substance (label number % 5 == k) and, of the others,
without fold k's recordings. So there are two kinds of recording to test it on: of substances that
it knows, and of substances that are hidden from it. The outputs go into one file a fold, from
which everything about unknown smells is fitted and scored. Imports torch only where a network has
to be trained or quantised.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from models.embedding_space import EmbeddingSpace
from training.data.dataset import N_FOLDS, substance_folds
from training.engines import SERIAL
from training.evaluation.network_outputs import run_network
from training.evaluation.open_set import (
    OPEN_SET_FOLDER,
    OUTPUTS_FILE,
    OpenSetError,
    OpenSetFold,
    label_indices,
    read_open_set_fold,
)
from training.evaluation.streaming import stream_recordings
from training.experiments.runner import every_fifth, hash_inputs, load_or_compute, train_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.bundle import Bundle
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.engines import Engine


def train_open_set(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    folds: Sequence[int] = range(N_FOLDS),
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
    engine: Engine = SERIAL,
) -> tuple[OpenSetFold, ...]:
    """Train the networks that are missing and run each on what it was not trained on.

    Networks, bundles and outputs go into `open-set/fold-K` of the run folder. `on_step` is called
    with fold, step and loss. The folds run on `engine`.

    Raises
    ------
    OpenSetError: mixtures, or too few substances to hide any.
    """
    require_enough_substances(data)
    follow = engine.follow(on_step)
    calls = [
        partial(_train_and_run, config, data, folder, device, fold, partial(follow, fold))
        for fold in folds
    ]
    return tuple(engine.in_order(calls))


def _train_and_run(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    device: str,
    fold: int,
    on_step: Callable[[int, float], None],
) -> OpenSetFold:
    parts = split_open_set(data, fold)
    place = folder / OPEN_SET_FOLDER / f"fold-{fold}"
    bundle = train_bundle(
        config, parts[0], place, f"scent-train crossval --open-set (fold {fold})",
        device=device, on_step=on_step,
    )  # fmt: skip
    return load_or_compute(
        place / OUTPUTS_FILE,
        hash_inputs([bundle.manifest.files["model.onnx"], data.sha256]),
        read_open_set_fold,
        partial(_run_fold, bundle, fold, *parts),
    )


def require_enough_substances(data: Dataset) -> None:
    """Raise OpenSetError unless every fifth substance can be hidden from a training."""
    if data.task != "substance":
        raise OpenSetError(
            "Substances can be hidden from a training of single substances only, and these "
            "recordings are of mixtures. Leave this option out: without it, crossval holds out "
            "whole component sets."
        )
    if len(data.labels) <= N_FOLDS:
        raise OpenSetError(
            f"Hiding every fifth substance needs recordings of more than {N_FOLDS} substances; "
            f"here are {len(data.labels)} ({', '.join(data.labels)}). Record "
            f"{N_FOLDS + 1 - len(data.labels)} more, or leave this option out: `crossval` and "
            "`export` work without it, and the bundle then calls no smell `unrecognised`."
        )


def split_open_set(data: Dataset, fold: int) -> tuple[Dataset, Dataset, Dataset]:
    """Return the recordings that train network `fold`, and those that test it: known, hidden.

    The first two have the known labels alone, the third the hidden ones alone.
    """
    hidden = every_fifth(len(data.labels), fold)
    held_out = substance_folds(data) == fold
    return (
        data.subset(~held_out).select_labels(~hidden),
        data.subset(held_out).select_labels(~hidden),
        data.select_labels(hidden),
    )


def _run_fold(
    bundle: Bundle, fold: int, train: Dataset, known: Dataset, hidden: Dataset
) -> OpenSetFold:
    trained = run_network(bundle, train)
    exemplar_label = train.targets.argmax(axis=1)[trained.owner]
    space = EmbeddingSpace.fit(trained.embedding, exemplar_label, train.labels)
    both = dataclasses.replace(known, samples=(*known.samples, *hidden.samples))
    substance = tuple(
        part.labels[int(sample.target.argmax())]
        for part in (known, hidden)
        for sample in part.samples
    )
    streams = dataclasses.replace(
        stream_recordings(bundle, both.samples), truth=label_indices(substance, train.labels)
    )
    return OpenSetFold(
        fold=fold,
        labels=train.labels,
        hidden=hidden.labels,
        exemplars=trained.embedding,
        exemplar_label=exemplar_label,
        space=space,
        names=tuple(sample.name for sample in both.samples),
        substance=substance,
        outputs=run_network(bundle, both),
        streams=streams.with_novelty(space),
    )
