"""training/: hidden smells taught to an open-set network, as a rig is taught new smells.

numpy only. A smell is taught from the first two minutes of one or more of its recordings
(`calibration.enrolment`, `models.taught_head`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.enrolment import fit_smell
from models.decision_spec import DecisionSpec
from models.taught_head import TaughtHead
from training.evaluation.open_set import label_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.taught_head import TaughtSmell
    from training.evaluation.open_set import OpenSetFold

LESSON_S = 120.0
"""How long each exposure is."""
LISTENED_S = 300.0
"""Head temperatures are fitted on this much of a recording."""
HEAD_TEMPERATURES = tuple(float(x) for x in np.round(np.geomspace(1, 1024, 21), 1))


def teach_hidden(
    fold: OpenSetFold, exposures: int
) -> Iterator[tuple[tuple[TaughtSmell, ...], NDArray[np.bool_]]]:
    """Yield smells taught from `exposures` recordings each, and bool[recordings] which those are.

    As many choices as there are recordings of a substance: the k-th takes recordings k, k + 1, ...
    of each, so that every one teaches equally often.
    """
    streams = fold.streams
    usable = streams.active & (streams.ends_s <= LESSON_S)
    number = label_indices(fold.substance, fold.hidden)
    recordings_of = [np.flatnonzero(number == k) for k in range(len(fold.hidden))]
    for first in range(min(map(len, recordings_of))):
        smells = []
        teaches = np.zeros(len(fold.names), dtype=bool)
        for label, recordings in zip(fold.hidden, recordings_of, strict=True):
            chosen = recordings[(first + np.arange(exposures)) % len(recordings)]
            teaches[chosen] = True
            embeddings = [fold.stream_embedding[row, usable[row]] for row in chosen]
            smells.append(fit_smell(label, embeddings, fold.space))
        yield tuple(smells), teaches


def taught_log_probabilities(
    fold: OpenSetFold, head: TaughtHead, windows: NDArray[np.bool_], head_temperature: float
) -> NDArray[np.float64]:
    """Return log-probabilities [chosen windows, known + taught] as the daemon computes them.

    `windows` bool[recordings, windows] chooses among the streamed windows.
    """
    return head.log_probabilities(
        fold.space,
        fold.streams.logits[windows],
        fold.stream_embedding[windows],
        DecisionSpec().temperature,
        head_temperature,
    )


def head_temperature_losses(fold: OpenSetFold) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood of each of `HEAD_TEMPERATURES`.

    One exposure a smell, over all choices of exposures, over held-out recordings of known and of
    taught substances together. Every fourth window: neighbours hardly differ.
    """
    streams = fold.streams
    windows = streams.active & (streams.ends_s <= LISTENED_S)
    windows &= np.arange(len(streams.ends_s)) % 4 == 0
    total = np.zeros(len(HEAD_TEMPERATURES))
    lessons = list(teach_hidden(fold, 1))
    for smells, teaches in lessons:
        head = TaughtHead(smells)
        truth = label_indices(fold.substance, head.labels(fold.labels))
        tested = windows & (~teaches & (truth >= 0))[:, None]
        expected = truth[np.nonzero(tested)[0]]
        for number, head_temperature in enumerate(HEAD_TEMPERATURES):
            log_p = taught_log_probabilities(fold, head, tested, head_temperature)
            total[number] -= log_p[np.arange(len(log_p)), expected].mean()
    return total / max(len(lessons), 1)
