"""training/: the outputs of a bundle for labelled recordings, by the published protocol.

Needs no torch: the network runs through the bundle, as on the Pi, one window at
a time, because dynamic quantisation shares one scale over a batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.rig_reference import RigReference
from models.embedding_space import EmbeddingSpace
from models.softmax import log_softmax
from training.data.protocol_windows import scored_windows
from training.evaluation.scoring import mixture_tally, substance_tally, total_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data.dataset import Dataset
    from training.evaluation.scoring import Tally


@dataclass(frozen=True, slots=True, eq=False)
class WindowOutputs:
    """The outputs of a network for the protocol's windows of some recordings.

    Attributes
    ----------
    owner: int[windows], the recording of each window.
    embedding: float32[windows, D].
    logits: float32[windows, labels] (substances), else None.
    proportions, presence: float32[windows, labels] (mixtures), else None.
    descriptors: float32[windows, descriptors] of a network with that head, else None.
    """

    owner: NDArray[np.int64]
    embedding: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    proportions: NDArray[np.float32] | None = None
    presence: NDArray[np.float32] | None = None
    descriptors: NDArray[np.float32] | None = None

    def require(self, name: str) -> NDArray[np.float32]:
        """Return an array by name; a network of the other task has none.

        Raises
        ------
        ValueError: it is None.
        """
        values: NDArray[np.float32] | None = getattr(self, name)
        if values is None:
            raise ValueError(f"these outputs have no {name}: they are of another kind of network")
        return values

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, without those that are None."""
        fields = ((item.name, getattr(self, item.name)) for item in dataclasses.fields(self))
        return {name: values for name, values in fields if values is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> WindowOutputs:
        """Return the outputs that `to_arrays` gave; other arrays are ignored."""
        names = (item.name for item in dataclasses.fields(cls))
        return cls(**{name: arrays[name] for name in names if name in arrays})


def run_network(
    bundle: Bundle, data: Dataset, progress: Callable[[range], Iterable[int]] = iter
) -> WindowOutputs:
    """Run a bundle's network over the protocol's windows of every recording."""
    windows = scored_windows(data, bundle.manifest.preprocessing)
    outputs = [
        bundle.run(windows.x[row : row + 1], windows.mask[row : row + 1])
        for row in progress(range(len(windows.x)))
    ]
    names = ["embedding"]
    names += ["logits"] if data.task == "substance" else ["proportions", "presence"]
    names += ["descriptors"] if data.task == "substance" and bundle.manifest.descriptors else []
    stacked = {name: np.concatenate([getattr(one, name) for one in outputs]) for name in names}
    return WindowOutputs(windows.owner, **stacked)


def measure_space(bundle: Bundle, train: Dataset) -> EmbeddingSpace:
    """Return the space of a bundle's embeddings, measured on the recordings it was trained on."""
    outputs = run_network(bundle, train)
    label = train.targets.argmax(axis=1)[outputs.owner]
    return EmbeddingSpace.fit(outputs.embedding, label, train.labels)


def measure_rig(data: Dataset) -> RigReference:
    """Measure the rig that made the recordings of single substances."""
    truth = data.targets.argmax(axis=1)
    return RigReference.measure(
        {
            label: [data.samples[row].values for row in np.flatnonzero(truth == number)]
            for number, label in enumerate(data.labels)
        },
        data.samples[0].rate_hz,
    )


def score_bundle(bundle: Bundle, data: Dataset, outputs: WindowOutputs) -> dict[str, float | int]:
    """Score a bundle's outputs: the object that `scent-train evaluate --json` prints.

    Only the labels of `data` are candidates, even if the bundle has more.
    """
    known = bundle.training_hashes
    return {
        "windows": len(outputs.owner),
        "recordings": len(data.samples),
        **total_scores(tally_bundle(bundle, data, outputs)),
        "seen_in_training": sum(sample.sha256 in known for sample in data.samples),
    }


def tally_bundle(bundle: Bundle, data: Dataset, outputs: WindowOutputs) -> Tally:
    """Count what every recording adds to the scores of a bundle's outputs."""
    decision, known = bundle.manifest.decision, bundle.manifest.labels
    columns = [known.index(label) for label in data.labels]
    if outputs.logits is not None:
        log_p = log_softmax(outputs.logits[:, columns], decision.temperature)
        return substance_tally(log_p, outputs.owner, data.targets.argmax(axis=1))
    present = outputs.require("presence") >= np.array(decision.presence_thresholds)
    return mixture_tally(
        outputs.require("proportions")[:, columns],
        present[:, columns],
        data.targets[outputs.owner],
        outputs.owner,
        len(data.samples),
    )
