"""Trainer: how well a shipped model recognises what the simulator plays.

May import everything below and the trainer's scoring; needs no torch. Every substance is played in
two ways, because the results differ: whole steady exposures by the published protocol, and live
episodes, from clean air on, through the `Nose` that runs on the rig.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import UsageError
from hardware.frames import SensorFrame
from hardware.readings import range_quality
from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD, SUBSTANCE_BOARD, load_board
from models.nose import Nose
from models.softmax import log_softmax
from training.data.dataset import Dataset, Sample
from training.evaluation.network_outputs import run_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hardware.simulator.tables import BoardModel
    from models.bundle import Bundle
    from models.results import Prediction

    Progress = Callable[[Sequence[str]], Iterable[str]]

_STEADY_S = 600.0
"""As long as the published recordings."""


LIVE_EPISODE_S = {"substance": (60.0, 420.0), "mixture": (40.0, 60.0)}
"""By task: seconds of clean air, then of the odour."""


@dataclass(frozen=True, slots=True)
class LiveResult:
    """The results of one odour's live episodes."""

    odour: str
    """As a scenario writes it, without its duration."""
    name: str
    """The right answer: substances sorted and joined by '+'."""
    answers: tuple[str, ...]
    """What was announced at the end of each episode, in the same form, or ''."""
    right_after_s: tuple[float, ...]
    """Seconds from the onset to the right name, for each episode that ended right."""

    @property
    def right(self) -> int:
        """Episodes that ended with the right name."""
        return self.answers.count(self.name)

    @property
    def silent(self) -> int:
        """Episodes that ended with no name."""
        return self.answers.count("")


def board_for(bundle: Bundle) -> BoardModel:
    """Return the board whose recordings a bundle was trained on."""
    return load_board(MIXTURE_BOARD if bundle.manifest.task == "mixture" else SUBSTANCE_BOARD)


def fingerprinted_labels(bundle: Bundle) -> tuple[str, ...]:
    """Return the bundle's labels that its board has fingerprints of.

    Raises
    ------
    UsageError: there are none.
    """
    known = board_for(bundle).fingerprints
    labels = tuple(label for label in bundle.manifest.labels if label in known)
    if not labels:
        raise UsageError(
            f"The simulator has no fingerprint of any label of {bundle.manifest.name}, so there is "
            "nothing to check. Fit its recordings first: scent-train fingerprints --data DIR."
        )
    return labels


def steady_confusion(bundle: Bundle, seeds: int, progress: Progress = iter) -> dict[str, list[str]]:
    """Play whole exposures and return, per substance, the label each was given.

    The score of an exposure is the mean log-probability over the published protocol's windows.
    """
    labels = fingerprinted_labels(bundle)
    board = board_for(bundle)
    confusion: dict[str, list[str]] = {}
    for label in progress(labels):
        samples = tuple(_play_steady(bundle, board, label, seed) for seed in range(seeds))
        answers = run_network(bundle, Dataset("substance", labels, samples))
        if answers.logits is None:
            raise UsageError(f"{bundle.manifest.name} gives no logits; check it by live episodes.")
        log_p = log_softmax(answers.logits, bundle.manifest.decision.temperature)
        confusion[label] = [
            bundle.manifest.labels[int(log_p[answers.owner == seed].mean(axis=0).argmax())]
            for seed in range(seeds)
        ]
    return confusion


def _play_steady(bundle: Bundle, board: BoardModel, label: str, seed: int) -> Sample:
    signal = SyntheticSignal(f"{label}:{_STEADY_S}", seed=seed, board=board)
    target = np.array([one == label for one in bundle.manifest.labels], dtype=np.float32)
    name = f"{label}/{seed}"
    return Sample(name, "", np.array(list(signal)), target, name, signal.rate_hz)


def live_odours(bundle: Bundle) -> tuple[str, ...]:
    """Return what is played live: every substance, and for a mixture model every even pair."""
    labels = fingerprinted_labels(bundle)
    if bundle.manifest.task != "mixture":
        return labels
    return (*labels, *(f"{one}=0.5+{other}=0.5" for one, other in combinations(labels, 2)))


def run_live_episodes(bundle: Bundle, odour: str, seeds: int) -> LiveResult:
    """Play clean air and then an odour to a `Nose`, once per seed."""
    air_s, odour_s = LIVE_EPISODE_S[bundle.manifest.task]
    names = sorted(part.split("=")[0] for part in odour.split("+"))
    right = "+".join(names)
    answers, after_s = [], []
    for seed in range(seeds):
        announced = [
            (prediction.t_ms / 1000 - air_s, _announced(prediction, len(names)))
            for prediction in _play(bundle, f"{AIR}:{air_s},{odour}:{odour_s}", seed)
        ]
        last = announced[-1][1] if announced else ""
        answers.append(last)
        if last == right:
            after_s.append(next(t_s for t_s, name in announced if name == right and t_s > 0))
    return LiveResult(odour, right, tuple(answers), tuple(after_s))


def _play(bundle: Bundle, scenario: str, seed: int) -> Iterator[Prediction]:
    signal = SyntheticSignal(scenario, seed=seed, board=board_for(bundle))
    nose = Nose([bundle], rate_hz=signal.rate_hz)
    for row, values in enumerate(signal):
        quality = range_quality(values)
        frame = SensorFrame(row, round(row * 1000 / signal.rate_hz), values, quality.copy())
        yield from nose.process(frame).predictions


def _announced(prediction: Prediction, n_present: int) -> str:
    """Return the announced label; of a mixture the components with the largest proportions.

    As many as were played, as in the published top-K recall: a mixture model's presence
    thresholds let more components through than there are.
    """
    if prediction.task == "mixture":
        largest = [label for label, _ in prediction.top[:n_present]]
        return "+".join(sorted(largest)) if prediction.components else ""
    return prediction.label or ""


def confusion_table(results: Sequence[LiveResult], steady: dict[str, list[str]]) -> str:
    """Return the confusion table of docs/simulator.md."""
    lines = [
        "| played | steady: right | steady: taken for | live: right | live: no name "
        "| live: taken for | named after |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        answers = steady.get(result.odour, [])
        wrong = [answer for answer in answers if answer != result.odour]
        right = f"{len(answers) - len(wrong)}/{len(answers)}" if answers else ""
        live_wrong = [answer for answer in result.answers if answer not in ("", result.name)]
        after = f"{median(result.right_after_s):.0f} s" if result.right_after_s else ""
        lines.append(
            f"| {result.odour} | {right} | {_count(wrong)} | {result.right}/{len(result.answers)} "
            f"| {result.silent or ''} | {_count(live_wrong)} | {after} |"
        )
    return "\n".join(lines)


def _count(names: Sequence[str]) -> str:
    counted = Counter(names).most_common()
    return ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counted)
