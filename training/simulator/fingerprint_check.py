"""Trainer: whether a shipped model truly recognises what the simulator plays.

May import everything below and the trainer's scoring; needs no torch. Two questions are asked of
every substance, because they differ: whole steady exposures by the published protocol, and live
episodes, out of clean air, through the same nose that runs on the rig.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import UsageError
from hardware.frames import SensorFrame
from hardware.protocol import range_quality
from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD, PLAYABLE_FILE, SUBSTANCE_BOARD, load_board
from models.nose import Nose
from models.substance_decision import log_probabilities
from training.data.dataset import Dataset, Sample
from training.evaluation.evaluate import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hardware.simulator.tables import BoardModel
    from models.bundle import Bundle
    from models.results import Prediction

    Progress = Callable[[Sequence[str]], Iterable[str]]

_STEADY_S = 600.0
"""As long as the published recordings."""


@dataclass(frozen=True, slots=True)
class LiveTest:
    """How long a live episode is: clean air, then the odour."""

    air_s: float
    odour_s: float


SUBSTANCE_TEST = LiveTest(air_s=60.0, odour_s=420.0)
MIXTURE_TEST = LiveTest(air_s=40.0, odour_s=60.0)


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What became of one odour's live episodes.

    Attributes
    ----------
    odour: as a scenario writes it, without its duration.
    names: what is in it.
    trials: episodes played, each with its own seed.
    answers: what was named at the end of each: substances sorted and joined by '+', or ''.
    right_after_s: seconds from the onset to the right name, for each episode that ended right.
    """

    odour: str
    names: tuple[str, ...]
    trials: int
    answers: tuple[str, ...]
    right_after_s: tuple[float, ...]

    @property
    def right(self) -> int:
        """Episodes that ended with the right name."""
        return self.answers.count("+".join(sorted(self.names)))

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
    UsageError
        There are none.
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
        samples = [_synthetic(bundle, board, label, seed) for seed in range(seeds)]
        answers = ask(bundle, Dataset("substance", labels, tuple(samples)))
        if answers.logits is None:
            raise UsageError(f"{bundle.manifest.name} gives no logits; check it by live episodes.")
        temperature = bundle.manifest.decision.temperature
        log_p = np.stack([log_probabilities(row, temperature) for row in answers.logits])
        confusion[label] = [
            bundle.manifest.labels[int(log_p[answers.owner == seed].mean(axis=0).argmax())]
            for seed in range(seeds)
        ]
    return confusion


def _synthetic(bundle: Bundle, board: BoardModel, label: str, seed: int) -> Sample:
    signal = SyntheticSignal(f"{label}:{_STEADY_S}", seed=seed, board=board)
    target = np.zeros(len(bundle.manifest.labels), dtype=np.float32)
    target[bundle.manifest.labels.index(label)] = 1.0
    name = f"{label}/{seed}"
    return Sample(name, "", np.array(list(signal)), target, name, signal.rate_hz)


def live_odours(bundle: Bundle) -> tuple[str, ...]:
    """Return what is played live: every substance, and for a mixture model every even pair."""
    labels = fingerprinted_labels(bundle)
    if bundle.manifest.task != "mixture":
        return labels
    return (*labels, *(f"{one}=0.5+{other}=0.5" for one, other in combinations(labels, 2)))


def run_live_episodes(bundle: Bundle, odour: str, seeds: int, test: LiveTest) -> LiveResult:
    """Let the nose smell an odour out of clean air, once per seed."""
    names = tuple(part.split("=")[0] for part in odour.split("+"))
    right = "+".join(sorted(names))
    answers, after_s = [], []
    for seed in range(seeds):
        named = [
            (prediction.t_ms / 1000 - test.air_s, _named(prediction, len(names)))
            for prediction in _smell(bundle, f"{AIR}:{test.air_s},{odour}:{test.odour_s}", seed)
        ]
        last = named[-1][1] if named else ""
        answers.append(last)
        if last == right:
            after_s.append(next(t_s for t_s, name in named if name == right and t_s > 0))
    return LiveResult(odour, names, seeds, tuple(answers), tuple(after_s))


def _smell(bundle: Bundle, scenario: str, seed: int) -> list[Prediction]:
    signal = SyntheticSignal(scenario, seed=seed, board=board_for(bundle))
    nose = Nose([bundle], rate_hz=signal.rate_hz)
    said: list[Prediction] = []
    for row, values in enumerate(signal):
        quality = range_quality(values)
        frame = SensorFrame(row, round(row * 1000 / signal.rate_hz), values, quality.copy())
        said += nose.process(frame).predictions
    return said


def _named(prediction: Prediction, n_present: int) -> str:
    """Return what was announced; of a mixture the components with the largest proportions.

    As many as were played, as the published top-K recall counts: a mixture model's presence
    thresholds let through more than there is.
    """
    if prediction.task == "mixture":
        largest = [label for label, _ in prediction.top[:n_present]]
        return "+".join(sorted(largest)) if prediction.components else ""
    return prediction.label or ""


def write_cast(results: Sequence[LiveResult], board: str, folder: Path) -> Path:
    """Put a board's live results into the cast table, leaving the other board's as they are."""
    path = folder / PLAYABLE_FILE
    kept: list[dict[str, str]] = []
    if path.is_file():
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        kept = [row for row in rows if row["board"] != board]
    ranked = sorted(results, key=lambda result: (-result.right / result.trials, result.odour))
    fresh = [
        {
            "board": board,
            "odour": result.odour,
            "trials": str(result.trials),
            "right": str(result.right),
            "silent": str(result.silent),
            "right_after_s": f"{median(result.right_after_s):g}" if result.right_after_s else "",
        }
        for result in ranked
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(fresh[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *fresh], key=lambda row: row["board"]))
    return path


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
        lines.append(
            f"| {result.odour} "
            f"| {_share(len(answers) - len(wrong), len(answers))} | {_listed(wrong)} "
            f"| {_share(result.right, result.trials)} | {result.silent or ''} "
            f"| {_listed(_wrong(result))} "
            f"| {f'{median(result.right_after_s):.0f} s' if result.right_after_s else ''} |"
        )
    return "\n".join(lines)


def _wrong(result: LiveResult) -> list[str]:
    right = "+".join(sorted(result.names))
    return [answer for answer in result.answers if answer not in ("", right)]


def _share(right: int, all_of_them: int) -> str:
    return f"{right}/{all_of_them}" if all_of_them else ""


def _listed(names: Sequence[str]) -> str:
    counted = Counter(names).most_common()
    return ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counted)
