"""training/: what a bundle scores on labelled recordings, by the published protocol.

Needs no torch: the network runs through the bundle, as on the Pi, one window at
a time, because dynamic quantisation shares one scale over a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.decision import log_probabilities
from training.evaluation.scoring import cut_windows, mixture_scores, substance_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data import Dataset

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
    """

    owner: NDArray[np.int64]
    embedding: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    proportions: NDArray[np.float32] | None = None
    presence: NDArray[np.float32] | None = None


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
        return Answers(windows.owner, embedding, logits=stacked("logits"))
    return Answers(
        windows.owner,
        embedding,
        proportions=stacked("proportions"),
        presence=stacked("presence"),
    )


def score(bundle: Bundle, data: Dataset, answers: Answers) -> dict[str, float | int]:
    """Score a bundle's answers: the object that `scent-train evaluate --json` prints.

    Labels of the bundle that are not in `data.labels` are no choice.
    """
    manifest = bundle.manifest
    known = bundle.training_hashes
    result: dict[str, float | int] = {
        "windows": len(answers.owner),
        "recordings": len(data.samples),
    }
    columns = [manifest.labels.index(label) for label in data.labels]
    if answers.logits is not None:
        temperature = manifest.decision.temperature
        log_p = np.stack(
            [log_probabilities(row, temperature) for row in answers.logits[:, columns]]
        )
        result |= substance_scores(log_p, answers.owner, data.targets.argmax(axis=1))
    elif answers.proportions is not None and answers.presence is not None:
        thresholds = np.array(manifest.decision.presence_thresholds)
        present = answers.presence >= thresholds
        target = data.targets[answers.owner]
        result |= mixture_scores(answers.proportions[:, columns], present[:, columns], target)
    result["seen_in_training"] = sum(sample.sha256 in known for sample in data.samples)
    return result
