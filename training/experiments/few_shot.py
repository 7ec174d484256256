"""training/: new smells from one recording each, by a network that never met them.

Ten substances are kept out of training; the network of the others gives embeddings, and the
class whose mean lies nearest names a window (Mensink et al., IEEE TPAMI 35, 2013; Snell et
al., NeurIPS 2017). So it is told how well enrolment of a new smell will work on a rig. Torch
is imported only while it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError
from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from models.embedding_space import unit_rows
from training.data.dataset import substance_folds
from training.evaluation.evaluate import ask, measured_space
from training.evaluation.intervals import intervals, pooled
from training.evaluation.scoring import substance_tally, values
from training.evaluation.stored_answers import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from models.embedding_space import EmbeddingSpace
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.evaluation.scoring import Tally

FEW_SHOT = "few_shot.json"

EVERY = 5
"""Every fifth label, in alphabetical order from the first, is kept out: ten of fifty, from every
part of the alphabet and so of the shop."""

METHODS = ("euclid", "cosine", "mahalanobis")


class FewShotError(ScentdError):
    """The data does not allow the experiment."""


def cross_teach(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> dict[str, Any]:
    """Train without every fifth substance, then teach those from one recording each.

    Every recording of a kept-out substance teaches once, by its number in the substance, and is
    tested by the others: five lessons where there are five recordings.

    Parameters
    ----------
    config: what to train.
    data: recordings of substances.
    folder: the run folder; the network and its bundle go into its `few-shot`.
    device: torch device.
    on_step: called with step and loss.

    Returns
    -------
    The report, which is also written to `few_shot.json`: per method of comparing embeddings the
    window and recording accuracy among the new substances, and their intervals.

    Raises
    ------
    FewShotError: no mixture can be taught, and too few substances are there.
    """
    from training.export.bundle import Provenance, export_bundle  # noqa: PLC0415 - torch
    from training.fit import train_network  # noqa: PLC0415

    if data.task != "substance" or len(data.labels) <= EVERY:
        raise FewShotError(
            f"Teaching new substances needs recordings of more than {EVERY} single substances, "
            f"got {len(data.labels)} of task {data.task}. Use a substance configuration and data."
        )
    known, fresh = split(data)
    place = folder / "few-shot"
    fitted = train_network(config, known, folder=place, device=device, on_step=on_step)
    provenance = Provenance("scent-train crossval --few-shot", config.name)
    export_bundle(place / "bundle", config, fitted, known, DecisionSpec(), provenance)
    bundle = load_bundle(place / "bundle", precision="int8")
    space, after = measured_space(bundle, known), ask(bundle, fresh)
    lesson_of = substance_folds(fresh)
    report: dict[str, Any] = {
        "model": config.name,
        "protocol": f"{len(fresh.labels)} substances never trained on, taught from one recording "
        "each and tested on their others; w=100, stride 50",
        "substances": list(fresh.labels),
        "recordings": len(fresh.samples),
        "data_sha256": data.sha256,
        "methods": {},
    }
    for method in METHODS:
        placed = comparable(space, after.embedding, method)
        lessons = [
            taught(placed, after.owner, fresh.targets.argmax(axis=1), lesson_of == lesson)
            for lesson in np.unique(lesson_of)
        ]
        whole = pooled([scores for scores, _ in lessons])
        names = [fresh.samples[row].name for _, tested in lessons for row in tested]
        report["methods"][method] = {
            "scores": {name: round(value, 4) for name, value in values(whole).items()},
            "intervals": {name: list(pair) for name, pair in intervals(whole, names).items()},
        }
    write_json(folder / FEW_SHOT, report)
    return report


def split(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the recordings of the substances that train, and of those kept out."""
    fresh = np.arange(len(data.labels)) % EVERY == 0
    return data.select_labels(~fresh), data.select_labels(fresh)


def comparable(
    space: EmbeddingSpace, embedding: NDArray[np.float32], method: str
) -> NDArray[np.float64]:
    """Return embedding[windows, D] where the plain Euclidean distance is that of `method`.

    "euclid" leaves it, "cosine" takes the direction from the mean embedding (Wang et al.
    2019, SimpleShot), "mahalanobis" whitens, as a linear discriminant does.
    """
    if method == "mahalanobis":
        return space.whiten(embedding)
    x = embedding.astype(np.float64) - space.middle
    return unit_rows(x) if method == "cosine" else x


def taught(
    space: NDArray[np.float64],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
    teaches: NDArray[np.bool_],
) -> tuple[Tally, NDArray[np.intp]]:
    """Teach from some recordings and score the others.

    Parameters
    ----------
    space: float[windows, D].
    owner: int[windows], the recording of each.
    truth: int[recordings].
    teaches: bool[recordings], those whose windows make the class means.

    Returns
    -------
    window accuracy (top1) and recording accuracy by the mean distance, and the tested recordings.
    """
    classes = np.unique(truth[teaches])
    teaching = teaches[owner]
    means = np.stack([space[teaching & (truth[owner] == k)].mean(axis=0) for k in classes])
    tested = np.flatnonzero(~teaches & np.isin(truth, classes))
    windows = np.isin(owner, tested)
    distance = ((space[windows, None] - means) ** 2).sum(axis=2)
    scores = substance_tally(
        -distance,
        np.searchsorted(tested, owner[windows]),
        np.searchsorted(classes, truth[tested]),
    )
    return {name: scores[name] for name in ("top1", "recording_top1")}, tested
