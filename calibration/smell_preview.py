"""Calibration: what a taught smell would have said, before it is let say anything.

May import hardware, models, numpy and its neighbours. Must never change what is taught, nor know
a port, a broker or a command.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.enrolment import fit_smell, require_space
from models.decision_spec import State
from models.nose import Nose, NoseSettings
from models.taught_head import TaughtHead

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.enrolment import LearnedExposure
    from calibration.smell_store import SmellStore
    from hardware.recording import Recording
    from models.bundle import Bundle

MAX_LISTED = 3
"""Labels named in a list of confusions."""

STEP_FRAMES = 50
"""Frames heard at a time, some ten windows: a step takes about as long as two predictions."""


@dataclass(frozen=True, slots=True)
class Confusions:
    """What windows of a smell were called: the share of each label, the largest first."""

    shares: tuple[tuple[str, float], ...]

    @classmethod
    def count(cls, labels: Sequence[str]) -> Confusions:
        """Count labels, one per window."""
        total = max(1, len(labels))
        return cls(tuple((name, n / total) for name, n in Counter(labels).most_common()))

    def share(self, label: str) -> float:
        """Return the share of a label."""
        return dict(self.shares).get(label, 0.0)

    def others(self, label: str) -> tuple[tuple[str, float], ...]:
        """Return the likeliest labels but this one."""
        return tuple(pair for pair in self.shares if pair[0] != label)[:MAX_LISTED]


@dataclass(frozen=True, slots=True)
class Preview:
    """How well a smell was learnt.

    Attributes
    ----------
    label: of the smell.
    exposures, windows: that taught it.
    before: what its windows were called without it.
    held_out: what windows were called by a head taught from the others: exposures in turn, or
        the halves of the only one. The halves are alike, so that is a bound from above.
    by_exposures: whether whole exposures were held out.
    taken_from: by label of another taught smell, the share of its windows that now is called so.
    """

    label: str
    exposures: int
    windows: int
    before: Confusions
    held_out: Confusions
    by_exposures: bool
    taken_from: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """Seconds that labels stood in a recording, without a smell and with it."""

    without_s: Mapping[str, float]
    with_s: Mapping[str, float]


def preview_smell(store: SmellStore, label: str) -> Preview:
    """Judge a taught smell, in shadow or promoted, by the exposures that are kept.

    Raises
    ------
    SmellError: none is called so.
    RecordingError, EnrolmentError: its exposures cannot be used.
    """
    smells = store.smells()
    smell = smells.smell(label)
    head, _ = store.head(shadow=label)
    without = _without(head, label)
    bundle = store.bundle
    lessons = [store.learned_exposure(exposure) for exposure in smell.exposures]
    taken = []
    for other in smells.smells:
        if other.label != label and any(known.label == other.label for known in head.taught):
            heard = [store.learned_exposure(exposure) for exposure in other.exposures]
            called = Confusions.count([n for each in heard for n in _called(bundle, head, each)])
            if called.share(label) > 0:
                taken.append((other.label, called.share(label)))
    return Preview(
        label=label,
        exposures=len(lessons),
        windows=sum(map(len, lessons)),
        before=Confusions.count([n for each in lessons for n in _called(bundle, without, each)]),
        held_out=Confusions.count(list(_held_out(bundle, without, label, lessons))),
        by_exposures=len(lessons) > 1,
        taken_from=tuple(sorted(taken, key=lambda pair: -pair[1])),
    )


def compare_replay(
    store: SmellStore,
    label: str,
    recording: Recording,
    *,
    settings: NoseSettings | None = None,
    assume_exposed: bool = False,
) -> Generator[float, None, ReplayComparison]:
    """Let the nose hear a recording without a smell and with it, in steps.

    Yields the share that is done, so that a running service can do it between two readings.

    Parameters
    ----------
    store: with the smell, in shadow or promoted.
    label: of the smell.
    recording: of the past.
    settings: the rig owner's.
    assume_exposed: the recording lies within one exposure.
    """
    head, _ = store.head(shadow=label)
    seconds = []
    for number, each in enumerate((_without(head, label), head)):
        if store.correction is not None:
            store.correction.reset()
        nose = Nose(
            [store.bundle],
            settings,
            rate_hz=recording.nominal_rate_hz if recording.timestamp_ms is None else None,
            skip_warm_up=True,
            assume_exposed=assume_exposed,
            correction=store.correction,
            heads={store.model: each},
        )
        steps = _seconds_by_label(nose, recording)
        while True:
            try:
                yield (number + next(steps)) / 2
            except StopIteration as end:
                seconds.append(end.value)
                break
    return ReplayComparison(*seconds)


def _without(head: TaughtHead, label: str) -> TaughtHead:
    others = tuple(smell for smell in head.taught if smell.label != label)
    return TaughtHead(others, head.hidden, head.renamed)


def _called(bundle: Bundle, head: TaughtHead, lesson: LearnedExposure) -> list[str]:
    """Return the likeliest label of every window."""
    return _likeliest(bundle, head, lesson.logits, lesson.embedding)


def _likeliest(
    bundle: Bundle,
    head: TaughtHead,
    logits: NDArray[np.float32],
    embedding: NDArray[np.float32],
) -> list[str]:
    decision, labels = bundle.manifest.decision, head.labels(bundle.manifest.labels)
    said = head.log_probabilities_many(
        require_space(bundle), logits, embedding, decision.temperature, decision.head_temperature
    )
    return [labels[index] for index in said.argmax(axis=1)]


def _held_out(
    bundle: Bundle, head: TaughtHead, label: str, lessons: Sequence[LearnedExposure]
) -> Iterator[str]:
    """Yield what windows are called by a head taught from the windows held against them."""
    parts = [(lesson.embedding, lesson.logits) for lesson in lessons]
    if len(parts) == 1:
        half = len(lessons[0]) // 2
        cuts = (slice(None, half), slice(half, None))
        parts = [(lessons[0].embedding[cut], lessons[0].logits[cut]) for cut in cuts if half]
    space, variance = require_space(bundle), bundle.manifest.decision.exposure_variance
    for number, (embedding, logits) in enumerate(parts):
        others = [each for place, (each, _) in enumerate(parts) if place != number]
        if others:
            smell = fit_smell(label, others, space, variance)
            tried = TaughtHead((*head.taught, smell), head.hidden, head.renamed)
            yield from _likeliest(bundle, tried, logits, embedding)


def _seconds_by_label(nose: Nose, recording: Recording) -> Generator[float, None, dict[str, float]]:
    """Return how long each label stood, as a live run would have said it; yield now and then."""
    stood: Counter[str] = Counter()
    label, since_ms, t_ms = None, 0, 0
    for number, frame in enumerate(recording.frames()):
        step = nose.process(frame, number * 1000.0 / recording.nominal_rate_hz)
        t_ms = step.t_ms
        for said in step.predictions:
            if label is not None:
                stood[label] += said.t_ms - since_ms
            since_ms = said.t_ms
            label = said.label if said.state is State.RECOGNISED else None
        if number % STEP_FRAMES == STEP_FRAMES - 1:
            yield number / len(recording)
    if label is not None:
        stood[label] += t_ms - since_ms
    return {name: ms / 1000.0 for name, ms in stood.most_common()}
