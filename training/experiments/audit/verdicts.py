"""training/: train each control on the folds, compare it with chance, and state the verdict.

Knows folds, trees and scores; nothing of files or plots. The same folds, windows and classifier
serve the controls and the honest inputs, so that only the inputs differ.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from training.data.dataset import DataError, substance_folds
from training.data.inspection import find_problems, inspect_recordings
from training.data.sessions import labels_of_one_session
from training.evaluation.intervals import score_intervals
from training.evaluation.scoring import substance_tally, total_scores
from training.experiments.audit.controls import CONTROLS, ControlTexts, Excerpts, find_excerpts
from training.experiments.baselines.inputs import OURS, cut_input_windows
from training.experiments.baselines.trees import Trees, window_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset

HONEST, SHUFFLED = "honest_trees", "shuffled_labels"
STEPS = (HONEST, *(control.name for control in CONTROLS), SHUFFLED)

LEAKS, CLEAN, TOO_FEW, REFERENCE = "leaks", "clean", "too few", "reference"
MIN_RECORDINGS = 20
"""Fewer recordings prove nothing: with 4 of two labels, guessing is right everywhere one time in
16, and the interval that the bootstrap then gives has no width at all."""
ENOUGH_SHUFFLED = 200
MAX_SHUFFLES = 10
"""Labels of a small data set are shuffled several times, until so many recordings were scored."""
SEED = 0


class AuditScores(NamedTuple):
    """The share of windows named right with its 95 % interval, and that of recordings."""

    top1: float
    low: float
    high: float
    recording_top1: float

    @property
    def interval_text(self) -> str:
        """The interval in words."""
        return f"95 %: {_percent(self.low)} to {_percent(self.high)}"


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A model's scores on the same folds, to compare the controls with.

    `other_session` is its `top1` on the same recordings as in simulated other sessions, if known.
    """

    name: str
    scores: AuditScores
    other_session: float | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit: a control, or a reference.

    Attributes
    ----------
    control, inputs: its name, and the inputs of the classifier in a few words.
    top1, low, high: share of windows named right, with its 95 % interval over recordings.
    recording_top1: share of recordings named right by mean log-probability.
    chance: share of windows that always naming the commonest label gets right.
    verdict, sentence: "leaks", "clean", "too few" or "reference", and the same in words.
    share_of_skill: this skill above chance as a share of the reference's; None for a reference.
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
    """The verdicts on a data set."""

    labels: int
    recordings: int
    rows: tuple[AuditRow, ...]
    references: tuple[AuditRow, ...]
    summary: tuple[str, ...]


def verdict_of(low: float, chance: float, recordings: int) -> str:
    """Judge a control by its interval.

    "leaks" where the whole 95 % interval lies above chance, "clean" where it reaches down to it,
    "too few" below `MIN_RECORDINGS` recordings. By luck alone one of the six controls is called
    leaking in one audit of seven.
    """
    if recordings < MIN_RECORDINGS:
        return TOO_FEW
    return LEAKS if low > chance else CLEAN


def audit(
    data: Dataset,
    *,
    model: ModelFigures | None = None,
    trees: int = 300,
    jobs: int = 1,
    on_step: Callable[[str], None] = lambda _name: None,
) -> Audit:
    """Audit a data set of substances.

    The controls are compared with `model` or, if that is None, with honest trees. `on_step` is
    called with the name of each of `STEPS` before it is trained.

    Raises
    ------
    DataError: a label has fewer than two recordings, or there is only one label.
    """
    _check_enough(data)
    problems = find_problems(data, inspect_recordings(data))
    data = data.at_rate(OURS.rate_hz)
    classifier = _Classifier(data, trees, jobs)
    on_step(HONEST)
    references = [_honest_row(classifier.score(classifier.honest), classifier.chance)]
    if model is not None:
        references.append(_model_row(model, classifier.chance))
    rows = []
    for control in CONTROLS:
        on_step(control.name)
        inputs = np.concatenate([control.describe(one) for one in classifier.excerpts])
        rows.append(_control_row(control, classifier.score(inputs), classifier, references[-1]))
    on_step(SHUFFLED)
    rows.append(_control_row(_SHUFFLED, classifier.score_shuffled(), classifier, references[-1]))
    summary = (*_summary(rows, references, _copies(data)), *problems, _day_sentence(data))
    return Audit(len(data.labels), len(data.samples), tuple(rows), tuple(references), summary)


class _Classifier:
    """Trees trained on a data set's windows and folds, with exchangeable inputs."""

    def __init__(self, data: Dataset, trees: int, jobs: int) -> None:
        self._trees, self._jobs, self._labels = trees, jobs, len(data.labels)
        self._truth = data.targets.argmax(axis=1)
        self._fold_of = substance_folds(data)
        windows = cut_input_windows(data, OURS)
        self._owner = windows.owner
        _check_long_enough(data, windows.owner)
        self.excerpts: list[Excerpts] = find_excerpts(data, OURS, windows.owner)
        self.honest = window_statistics(windows.x)
        self.recordings = len(data.samples)
        self.chance = float(np.bincount(self._truth[windows.owner]).max() / len(windows.owner))

    def score(self, rows: NDArray[np.float32]) -> AuditScores:
        """Score inputs float32[windows, number] with the true labels."""
        return self._score(rows, [self._truth])

    def score_shuffled(self) -> AuditScores:
        """Score honest inputs with labels permuted over the recordings of each fold.

        Within a fold, so that every label is still trained on as often as before.
        """
        rng = np.random.default_rng(SEED)
        truths = []
        for _ in range(min(MAX_SHUFFLES, math.ceil(ENOUGH_SHUFFLED / self.recordings))):
            truths.append(self._truth.copy())
            for fold in np.unique(self._fold_of):
                rows = np.flatnonzero(self._fold_of == fold)
                truths[-1][rows] = self._truth[rng.permutation(rows)]
        return self._score(self.honest, truths)

    def _score(self, rows: NDArray[np.float32], truths: list[NDArray[np.intp]]) -> AuditScores:
        """Score inputs with each of the labellings int[recordings], pooled."""
        tally = substance_tally(
            np.concatenate([self._log_probabilities(rows, truth) for truth in truths]),
            np.concatenate([self._owner + k * self.recordings for k in range(len(truths))]),
            np.concatenate(truths),
        )
        groups = [f"{number:09}" for number in range(self.recordings)] * len(truths)
        scores = total_scores(tally)
        low, high = score_intervals(tally, groups, seed=SEED)["top1"]
        return AuditScores(scores["top1"], low, high, scores["recording_top1"])

    def _log_probabilities(
        self, rows: NDArray[np.float32], truth: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Log-probabilities of every window by trees that were grown without its fold."""
        label, fold = truth[self._owner], self._fold_of[self._owner]
        log_p = np.empty((len(rows), self._labels))
        for number in np.unique(fold):
            forest = Trees(self._labels, trees=self._trees, seed=SEED, jobs=self._jobs)
            forest.fit(rows[fold != number], label[fold != number])
            log_p[fold == number] = forest.log_probabilities(rows[fold == number])
        return log_p


_HONEST = ControlTexts(
    HONEST,
    "log-conductance differences over 5, 10, 25 and 50 s of six gas channels",
    "Trees on changes of log-conductance, which hold no weather and no level but the size of a "
    "whole count,",
)
_SHUFFLED = ControlTexts(
    SHUFFLED,
    "honest inputs, labels permuted over recordings",
    "Trees on honest inputs whose labels were permuted over the recordings",
    "Windows of one recording lie on both sides of a fold: no score of it can be believed.",
)


def _row(
    texts: ControlTexts,
    scores: AuditScores,
    chance: float,
    verdict: str,
    sentence: str,
    share_of_skill: float | None = None,
) -> AuditRow:
    return AuditRow(
        texts.name,
        texts.inputs,
        round(scores.top1, 4),
        scores.low,
        scores.high,
        round(scores.recording_top1, 4),
        round(chance, 4),
        verdict,
        None if share_of_skill is None else round(share_of_skill, 4),
        f"{texts.subject} {sentence}",
    )


def _control_row(
    texts: ControlTexts, scores: AuditScores, classifier: _Classifier, reference: AuditRow
) -> AuditRow:
    chance, recordings = classifier.chance, classifier.recordings
    verdict = verdict_of(scores.low, chance, recordings)
    skill = reference.top1 - chance
    share, of_skill = None, ""
    if skill > 0:
        share = (scores.top1 - chance) / skill
        whose = "honest trees" if reference.control == HONEST else reference.control
        of_skill = f"That equals {_percent(share)} of the skill above chance of {whose}. "
    conclusion = {
        LEAKS: f"{of_skill}{texts.consequence}",
        CLEAN: "No better than chance: nothing leaks here.",
        TOO_FEW: f"{recordings} recordings are too few to exclude luck: have "
        f"{MIN_RECORDINGS} or more.",
    }[verdict]
    sentence = (
        f"name {_percent(scores.top1)} of windows right ({scores.interval_text}; chance "
        f"{_percent(chance)}). {conclusion}"
    )
    return _row(texts, scores, chance, verdict, sentence, share)


def _honest_row(scores: AuditScores, chance: float) -> AuditRow:
    sentence = (
        f"name {_percent(scores.top1)} of windows right ({scores.interval_text}) and "
        f"{_percent(scores.recording_top1)} of recordings."
    )
    return _row(_HONEST, scores, chance, REFERENCE, sentence)


def _model_row(model: ModelFigures, chance: float) -> AuditRow:
    scores = model.scores
    sentence = (
        f"names {_percent(scores.top1)} of windows right on its folds and "
        f"{_percent(scores.recording_top1)} of recordings."
    )
    if model.other_session is not None:
        sentence += (
            " On the same recordings as in other sessions (another gain and zero per channel, one "
            f"channel lost) it names {_percent(model.other_session)}: the difference is owed to "
            "the session or to the lost channel."
        )
    texts = ControlTexts(model.name, "as its manifest says", model.name)
    return _row(texts, scores, chance, REFERENCE, sentence)


def _summary(
    rows: Sequence[AuditRow], references: Sequence[AuditRow], copies: Sequence[str]
) -> tuple[str, ...]:
    """Say in a few sentences how much of a score may be session and not smell."""
    lines = [row.sentence for row in references]
    if copies:
        lines.append(
            f"{len(copies)} recordings are copies, byte for byte, of others: {', '.join(copies)}. "
            "A copy in another fold has been trained on: move them away."
        )
    if all(row.verdict == TOO_FEW for row in rows):
        return (*lines, f"There are too few recordings to judge: have {MIN_RECORDINGS} or more.")
    leaking = [row for row in rows if row.verdict == LEAKS and row.control != SHUFFLED]
    if leaking:
        worst = max(leaking, key=lambda row: row.top1)
        lines.append(
            f"{len(leaking)} of {len(CONTROLS)} controls leak; the strongest, "
            f"{worst.control.replace('_', ' ')}, names {_percent(worst.top1)} of windows right. "
            "Recordings of one label share a session here, so whatever distinguishes sessions "
            "distinguishes labels: a score on these folds may owe that much to the session if the "
            "model sees that input."
        )
    else:
        lines.append("No control does better than chance: these labels share no session.")
    shuffled = next(row for row in rows if row.control == SHUFFLED)
    lines.append(
        "The folds themselves hold: permuted labels cannot be learnt."
        if shuffled.verdict == CLEAN
        else "The folds themselves leak: even permuted labels can be learnt, so windows of one "
        "recording lie on both sides. Repair that before any score is believed."
    )
    return tuple(lines)


def _day_sentence(data: Dataset) -> str:
    """Say whether sessions can be held out; these folds hold out recordings."""
    single = labels_of_one_session(data)
    if len(single) == len(data.labels):
        return (
            "No fold of these recordings can show how much of the honest score is the day: only "
            "recordings of another day can. Record every label on several days."
        )
    return (
        "These folds hold out recordings, not days. How much of the honest score is the day, "
        f"`scent-train crossval --sessions` shows for {len(data.labels) - len(single)} of "
        f"{len(data.labels)} labels."
    )


def _copies(data: Dataset) -> list[str]:
    """Names of the recordings whose file is the same as an earlier one's."""
    first: dict[str, str] = {}
    return [
        sample.name
        for sample in data.samples
        if first.setdefault(sample.sha256, sample.name) != sample.name
    ]


def _check_enough(data: Dataset) -> None:
    counts = Counter(data.labels[int(sample.target.argmax())] for sample in data.samples)
    single = sorted(label for label, count in counts.items() if count < 2)  # noqa: PLR2004
    if single:
        raise DataError(
            "Expected at least two recordings of every label, to train on one and judge on "
            f"another; there is one of {', '.join(single)}. Record each of them again, best on "
            "another day, or move its folder away."
        )
    if len(counts) < 2:  # noqa: PLR2004
        raise DataError(
            f"Expected at least two labels to tell apart, found {', '.join(counts)} alone. Record "
            "another smell, or clean air, at least twice."
        )


def _check_long_enough(data: Dataset, owner: NDArray[np.int64]) -> None:
    short = sorted(set(range(len(data.samples))) - set(owner.tolist()))
    if short:
        # A label that lost its recordings here could not be trained on in some fold.
        needed = (OURS.first_step + OURS.min_steps) / OURS.rate_hz
        names = ", ".join(data.samples[number].name for number in short[:5])
        raise DataError(
            f"Expected recordings of at least {needed:.0f} s; {len(short)} are shorter: {names}. "
            "Record them again, or move them away."
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.1f} %"  # noqa: PLR2004
