"""training/: train each control on the folds, compare it with chance, say what it means.

Knows folds, trees and scores; nothing of files or plots. The same folds, windows and classifier
serve the controls and the honest inputs, so that only what is seen differs.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.dataset import DataError, substance_folds
from training.experiments.audit.controls import CONTROLS, described, excerpts
from training.experiments.baselines.comparison import Scores, scored
from training.experiments.baselines.inputs import OURS, labelled_windows
from training.experiments.baselines.trees import Trees, window_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.evaluation.intervals import Interval
    from training.experiments.baselines.inputs import LabelledWindows

HONEST, SHUFFLED = "honest_trees", "shuffled_labels"
STEPS = (HONEST, *(control.name for control in CONTROLS), SHUFFLED)

LEAKS, CLEAN, TOO_FEW = "leaks", "clean", "too few"
MIN_RECORDINGS = 20
"""Fewer recordings prove nothing: with 4 of two labels, guessing is right everywhere one time in
16, and the interval that the bootstrap then gives has no width at all."""
ENOUGH_SHUFFLED = 200
MAX_SHUFFLES = 10
"""Labels of a small data set are shuffled several times, until so many recordings were judged."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's own figures on the same folds, that controls are held against.

    Attributes
    ----------
    name: the model's.
    top1: share of windows named right.
    recording_top1: share of recordings named right.
    interval: 95 % interval of `top1` over recordings; None where it was not measured.
    elsewhere: `top1` on the same recordings as in simulated other sessions; None as above.
    """

    name: str
    top1: float
    recording_top1: float
    interval: Interval | None = None
    elsewhere: float | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit: a control, or what it is held against.

    Attributes
    ----------
    control: its name.
    inputs: what was seen, in a few words.
    top1, low, high: share of windows named right, with its 95 % interval over recordings.
    recording_top1: share of recordings named right by mean log-probability.
    chance: share of windows that always naming the commonest label gets right.
    verdict: "leaks", "clean" or "too few"; "reference" for honest inputs.
    share_of_skill: how much of the reference's skill above chance this equals; None for it.
    sentence: the verdict in plain words.
    """

    control: str
    inputs: str
    top1: float
    low: float
    high: float
    recording_top1: float
    chance: float
    verdict: str
    share_of_skill: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The whole verdict on a data set."""

    labels: int
    recordings: int
    rows: tuple[AuditRow, ...]
    references: tuple[AuditRow, ...]
    summary: tuple[str, ...]


def verdict_of(low: float, chance: float, recordings: int) -> str:
    """Judge a control by its interval.

    "leaks" where the whole 95 % interval lies above chance, "clean" where it reaches down to it,
    "too few" below `MIN_RECORDINGS` recordings. One of the six controls in seven audits is
    called leaking by luck alone.
    """
    if recordings < MIN_RECORDINGS:
        return TOO_FEW
    return LEAKS if low > chance else CLEAN


def audit(
    data: Dataset,
    *,
    reference: Reference | None = None,
    trees: int = 300,
    jobs: int = 1,
    on_step: Callable[[str], None] = lambda _name: None,
) -> Audit:
    """Audit a data set of substances.

    Parameters
    ----------
    data: labelled recordings.
    reference: a network's figures on the same folds; None holds controls against honest trees.
    trees: per classifier.
    jobs: processor cores, -1 for all.
    on_step: called with the name of each of `STEPS` before it is trained.

    Raises
    ------
    DataError: a label has fewer than two recordings, or there is only one label.
    """
    _check_enough(data)
    judge = _Judge(data, trees, jobs)
    on_step(HONEST)
    honest = judge.score(judge.honest)
    references = _references(honest, judge, reference)
    rows = []
    for control in CONTROLS:
        on_step(control.name)
        scores = judge.score(described(judge.excerpts, control))
        rows.append(
            judge.row(
                control.name, control.inputs, control.subject, control.consequence, scores,
                references[-1],
            )
        )  # fmt: skip
    on_step(SHUFFLED)
    rows.append(
        judge.row(
            SHUFFLED,
            "honest inputs, labels permuted over recordings",
            "Trees on honest inputs whose labels were permuted over the recordings",
            "Windows of one recording lie on both sides of a fold: no score of it can be believed.",
            judge.score_shuffled(),
            references[-1],
        )
    )
    summary = _summary(rows, references, _copies(data))
    return Audit(len(data.labels), len(data.samples), tuple(rows), references, summary)


class _Judge:
    """One data set's windows and folds, and a classifier to try inputs with."""

    def __init__(self, data: Dataset, trees: int, jobs: int) -> None:
        self.data, self._trees, self._jobs = data, trees, jobs
        self.fold_of = substance_folds(data)
        self.windows: LabelledWindows = labelled_windows(data, OURS)
        _check_long_enough(data, self.windows.owner)
        self.excerpts = excerpts(data, OURS, self.windows.owner)
        self.honest = window_statistics(self.windows.x)
        self.recordings = len(np.unique(self.windows.owner))
        self.chance = float(np.bincount(self.windows.label).max() / len(self.windows.label))

    def score(self, rows: NDArray[np.float32]) -> Scores:
        """Score rows float32[windows, number] with the true labels."""
        label = self.windows.label
        return scored(self._held_out(rows, label), self.windows.owner, label)

    def score_shuffled(self) -> Scores:
        """Score honest rows with labels permuted over the recordings of each fold.

        Within a fold, so that every label is still trained on as often as before.
        """
        truth = self.data.targets.argmax(axis=1)
        owner, size = self.windows.owner, len(self.data.samples)
        rng = np.random.default_rng(SEED)
        times = min(MAX_SHUFFLES, math.ceil(ENOUGH_SHUFFLED / size))
        answers, labels, owners = [], [], []
        for time in range(times):
            permuted = truth.copy()
            for fold in np.unique(self.fold_of):
                there = np.flatnonzero(self.fold_of == fold)
                permuted[there] = truth[rng.permutation(there)]
            labels.append(permuted[owner])
            answers.append(self._held_out(self.honest, labels[-1]))
            owners.append(owner + time * size)
        groups = [str(number) for number in np.unique(owner)] * times
        return scored(
            np.concatenate(answers), np.concatenate(owners), np.concatenate(labels), groups
        )

    def row(
        self,
        name: str,
        inputs: str,
        subject: str,
        consequence: str,
        scores: Scores,
        reference: AuditRow,
    ) -> AuditRow:
        """Return a control's line."""
        low, high = scores.interval["top1"]
        top1 = scores.value["top1"]
        verdict = verdict_of(low, self.chance, self.recordings)
        skill = reference.top1 - self.chance
        share = (top1 - self.chance) / skill if skill > 0 else None
        tail = {
            LEAKS: f"{_of_skill(share, reference)}{consequence}",
            CLEAN: "No better than chance: nothing leaks here.",
            TOO_FEW: f"{self.recordings} recordings are too few to tell that from luck: "
            f"have {MIN_RECORDINGS} or more.",
        }[verdict]
        sentence = (
            f"{subject} name {_percent(top1)} of windows right (95 %: {_percent(low)} to "
            f"{_percent(high)}; chance {_percent(self.chance)}). {tail}"
        )
        return AuditRow(
            name,
            inputs,
            round(top1, 4),
            low,
            high,
            round(scores.value["recording_top1"], 4),
            round(self.chance, 4),
            verdict,
            None if share is None else round(share, 4),
            sentence,
        )

    def _held_out(self, rows: NDArray[np.float32], label: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-probabilities of every window by trees that were grown without its fold."""
        n_labels = len(self.data.labels)
        answers = np.empty((len(rows), n_labels))
        fold = self.fold_of[self.windows.owner]
        for number in np.unique(fold):
            forest = Trees(n_labels, trees=self._trees, seed=SEED, jobs=self._jobs)
            forest.fit(rows[fold != number], label[fold != number])
            answers[fold == number] = forest.log_probabilities(rows[fold == number])
        return answers


def _references(scores: Scores, judge: _Judge, model: Reference | None) -> tuple[AuditRow, ...]:
    """Return the honest trees' line and, last, the model's where there is one."""
    low, high = scores.interval["top1"]
    top1, recording = scores.value["top1"], scores.value["recording_top1"]
    sentence = (
        "Trees on changes of log-conductance, which hold no weather and of the level only what "
        "whole counts betray, name "
        f"{_percent(top1)} of windows right (95 %: {_percent(low)} to {_percent(high)}) and "
        f"{_percent(recording)} of recordings."
    )
    inputs = "log-conductance differences over 5, 10, 25 and 50 s of six gas channels"
    trees = AuditRow(
        HONEST,
        inputs,
        round(top1, 4),
        low,
        high,
        round(recording, 4),
        round(judge.chance, 4),
        "reference",
        None,
        sentence,
    )
    if model is None:
        return (trees,)
    low, high = model.interval or (model.top1, model.top1)
    sentence = (
        f"{model.name} names {_percent(model.top1)} of windows right on its folds and "
        f"{_percent(model.recording_top1)} of recordings."
    )
    if model.elsewhere is not None:
        sentence += (
            " As other sessions would have sent the same recordings (another gain and zero per "
            f"channel, one channel lost) it names {_percent(model.elsewhere)}: what lies between "
            "the two, it owes to the session or to the lost channel."
        )
    network = AuditRow(
        model.name,
        "as its manifest says",
        model.top1,
        low,
        high,
        model.recording_top1,
        round(judge.chance, 4),
        "reference",
        None,
        sentence,
    )
    return (trees, network)


def _summary(
    rows: Sequence[AuditRow], references: Sequence[AuditRow], copies: Sequence[str]
) -> tuple[str, ...]:
    """Say in a few sentences how much of a score may be session and not smell."""
    lines = [row.sentence for row in references]
    if copies:
        lines.append(
            f"{len(copies)} recordings are copies, byte for byte, of others: {', '.join(copies)}. "
            "A copy in another fold is known by heart: move them away."
        )
    if all(row.verdict == TOO_FEW for row in rows):
        return (*lines, f"There are too few recordings to judge: have {MIN_RECORDINGS} or more.")
    leaking = [row for row in rows if row.verdict == LEAKS and row.control != SHUFFLED]
    if leaking:
        worst = max(leaking, key=lambda row: row.top1)
        lines.append(
            f"{len(leaking)} of {len(CONTROLS)} controls leak; the strongest, "
            f"{_spoken(worst.control)}, names {_percent(worst.top1)} of windows right. Recordings "
            "of one label share a session here, so whatever tells sessions apart tells labels "
            "apart: so much a score on these folds may owe to the session if the model sees that "
            "input."
        )
    else:
        lines.append("No control does better than chance: these labels share no session.")
    shuffled = next(row for row in rows if row.control == SHUFFLED)
    lines.append(
        "The folds themselves hold: permuted labels cannot be learnt."
        if shuffled.verdict == CLEAN
        else "The folds themselves leak: even permuted labels can be learnt, so windows of one "
        "recording lie on both sides. Mend that before any score is believed."
    )
    lines.append(
        "What no fold of these recordings can show is how much of the honest score is the day: "
        "only recordings of another day can. Record every label on several days."
    )
    return tuple(lines)


def _copies(data: Dataset) -> list[str]:
    """Names of the recordings whose file is the same as an earlier one's."""
    first: dict[str, str] = {}
    return [
        sample.name
        for sample in data.samples
        if first.setdefault(sample.sha256, sample.name) != sample.name
    ]


def _check_enough(data: Dataset) -> None:
    counts = Counter(sample.target.argmax() for sample in data.samples)
    named = {data.labels[int(label)]: count for label, count in counts.items()}
    lonely = sorted(label for label, count in named.items() if count < 2)  # noqa: PLR2004
    if lonely:
        raise DataError(
            "Expected at least two recordings of every label, to train on one and judge on "
            f"another; there is one of {', '.join(lonely)}. Record each of them again, best on "
            "another day, or move its folder away."
        )
    if len(named) < 2:  # noqa: PLR2004
        raise DataError(
            f"Expected at least two labels to tell apart, found {', '.join(named)} alone. Record "
            "another smell, or clean air, at least twice."
        )


def _check_long_enough(data: Dataset, owner: NDArray[np.int64]) -> None:
    silent = sorted(set(range(len(data.samples))) - set(owner.tolist()))
    if silent:
        # A label that lost its recordings here could not be trained on in some fold.
        needed = (OURS.first_step + OURS.min_steps) / OURS.rate_hz
        names = ", ".join(data.samples[number].name for number in silent[:5])
        raise DataError(
            f"Expected recordings of at least {needed:.0f} s; {len(silent)} are shorter: {names}. "
            "Record them again, or move them away."
        )


def _of_skill(share: float | None, reference: AuditRow) -> str:
    if share is None:
        return ""
    whose = "honest trees" if reference.control == HONEST else reference.control
    return f"That equals {_percent(share)} of the skill above chance of {whose}. "


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.1f} %"  # noqa: PLR2004


def _spoken(name: str) -> str:
    return name.replace("_", " ")
