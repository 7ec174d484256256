"""training/: what a bundle scores on labelled recordings, by the published protocol.

Needs no torch: the network runs through the bundle, as on the Pi, one window at
a time, because dynamic quantisation shares one scale over a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.embedding_space import EmbeddingSpace
from models.softmax import log_softmax
from training.evaluation.scoring import cut_windows, mixture_tally, substance_tally, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data.dataset import Dataset
    from training.evaluation.scoring import Tally

MIXTURE_SECONDS = 60.0
"""Of a mixture recording the first 600 rows at 10 Hz are used, as published."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network said of the protocol's windows of some recordings.

    Attributes
    ----------
    owner: int[windows], the recording of each window.
    logits: float32[windows, labels] (substances), else None.
    proportions, presence: float32[windows, labels] (mixtures), else None.
    embedding: float32[windows, D].
    descriptors: float32[windows, descriptors] of a network with that head, else None.
    """

    owner: NDArray[np.int64]
    embedding: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    proportions: NDArray[np.float32] | None = None
    presence: NDArray[np.float32] | None = None
    descriptors: NDArray[np.float32] | None = None


def ask(
    bundle: Bundle, data: Dataset, progress: Callable[[range], Iterable[int]] = iter
) -> Answers:
    """Run a bundle over the protocol's windows of every recording."""
    spec = bundle.manifest.preprocessing
    limit = round(MIXTURE_SECONDS * spec.rate_hz) if data.task == "mixture" else None
    windows = cut_windows(data.samples, spec, limit)
    outputs = [
        bundle.run(windows.x[row : row + 1], windows.mask[row : row + 1])
        for row in progress(range(len(windows.x)))
    ]

    def stacked(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(output, name) for output in outputs])

    embedding = stacked("embedding")
    if data.task == "substance":
        described = stacked("descriptors") if bundle.manifest.descriptors else None
        return Answers(windows.owner, embedding, logits=stacked("logits"), descriptors=described)
    return Answers(
        windows.owner,
        embedding,
        proportions=stacked("proportions"),
        presence=stacked("presence"),
    )


def measured_space(bundle: Bundle, train: Dataset) -> EmbeddingSpace:
    """Return the space of a bundle's embeddings, measured on the recordings it was trained on."""
    answers = ask(bundle, train)
    label = train.targets.argmax(axis=1)[answers.owner]
    return EmbeddingSpace.fit(answers.embedding, label, train.labels)


def score(bundle: Bundle, data: Dataset, answers: Answers) -> dict[str, float | int]:
    """Score a bundle's answers: the object that `scent-train evaluate --json` prints.

    Labels of the bundle that are not in `data.labels` are no choice.
    """
    known = bundle.training_hashes
    return {
        "windows": len(answers.owner),
        "recordings": len(data.samples),
        **values(tally(bundle, data, answers)),
        "seen_in_training": sum(sample.sha256 in known for sample in data.samples),
    }


def tally(bundle: Bundle, data: Dataset, answers: Answers) -> Tally:
    """Count what every recording adds to the scores of a bundle's answers."""
    decision, known = bundle.manifest.decision, bundle.manifest.labels
    columns = [known.index(label) for label in data.labels]
    if answers.logits is not None:
        log_p = log_softmax(answers.logits[:, columns].astype(np.float64) / decision.temperature)
        return substance_tally(log_p, answers.owner, data.targets.argmax(axis=1))
    if answers.proportions is None or answers.presence is None:
        raise ValueError("answers hold neither logits nor proportions")
    present = answers.presence >= np.array(decision.presence_thresholds)
    return mixture_tally(
        answers.proportions[:, columns],
        present[:, columns],
        data.targets[answers.owner],
        answers.owner,
        len(data.samples),
    )
