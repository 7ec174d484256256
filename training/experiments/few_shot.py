"""training/: new smells from one recording each, by a network that was trained without them.

Ten substances are kept out of training; a window's label is that of the nearest class mean in the
embedding of the network of the others (Mensink et al., IEEE TPAMI 35, 2013; Snell et al.,
NeurIPS 2017). This estimates how well enrolment of a new smell will work on a rig. Torch is
imported only while it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.embedding_space import unit_rows
from training.data.dataset import substance_folds
from training.evaluation.intervals import pool_tallies, scores_with_intervals
from training.evaluation.network_outputs import measure_space, run_network
from training.evaluation.scoring import substance_tally
from training.evaluation.storage import write_json
from training.experiments.open_set import require_enough_substances
from training.experiments.runner import every_fifth, train_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from models.embedding_space import EmbeddingSpace
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.evaluation.scoring import Tally

FEW_SHOT = "few_shot.json"
METHODS = ("euclid", "cosine", "mahalanobis")


def run_few_shot(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> dict[str, Any]:
    """Train without every fifth substance, then teach those from one recording each.

    Every recording of a kept-out substance teaches once, by its number in the substance, and is
    tested by the others: five rounds where there are five recordings. The report is also written
    to `few_shot.json` of the run folder: per method of comparing embeddings the window and
    recording accuracy among the new substances, and their intervals.

    Raises
    ------
    OpenSetError: mixtures, or too few substances to keep any out.
    """
    require_enough_substances(data)
    known, new = split_few_shot(data)
    bundle = train_bundle(
        config, known, folder / "few-shot", "scent-train crossval --few-shot",
        device=device, on_step=on_step,
    )  # fmt: skip
    space, outputs = measure_space(bundle, known), run_network(bundle, new)
    truth, round_of = new.targets.argmax(axis=1), substance_folds(new)
    methods = {}
    for method in METHODS:
        points = transform_embedding(space, outputs.embedding, method)
        rounds = [
            teach_and_test(points, outputs.owner, truth, round_of == number)
            for number in np.unique(round_of)
        ]
        names = [new.samples[row].name for _, tested in rounds for row in tested]
        methods[method] = scores_with_intervals(pool_tallies([part for part, _ in rounds]), names)
    report = {
        "model": config.name,
        "protocol": f"{len(new.labels)} substances never trained on, taught from one recording "
        "each and tested on their others; w=100, stride 50",
        "substances": list(new.labels),
        "recordings": len(new.samples),
        "data_sha256": data.sha256,
        "methods": methods,
    }
    write_json(folder / FEW_SHOT, report)
    return report


def split_few_shot(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the recordings of the substances that train, and of those kept out."""
    new = every_fifth(len(data.labels), 0)
    return data.select_labels(~new), data.select_labels(new)


def transform_embedding(
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


def teach_and_test(
    points: NDArray[np.float64],
    owner: NDArray[np.int64],
    truth: NDArray[np.int64],
    teaches: NDArray[np.bool_],
) -> tuple[Tally, NDArray[np.intp]]:
    """Teach from some recordings and score the others.

    The recordings where `teaches` bool[recordings] make the class means of their points[windows,
    D]. Returns the window accuracy (top1), the recording accuracy by the mean distance, and the
    tested recordings.
    """
    classes = np.unique(truth[teaches])
    teaching = teaches[owner]
    means = np.stack([points[teaching & (truth[owner] == k)].mean(axis=0) for k in classes])
    tested = np.flatnonzero(~teaches & np.isin(truth, classes))
    windows = np.isin(owner, tested)
    distance = ((points[windows, None] - means) ** 2).sum(axis=2)
    scores = substance_tally(
        -distance,
        np.searchsorted(tested, owner[windows]),
        np.searchsorted(classes, truth[tested]),
    )
    return {name: scores[name] for name in ("top1", "recording_top1")}, tested
