"""Calibration: how well a smell was learnt, before it is announced.

May import hardware, models, numpy and its neighbours. Must never change what is taught, nor know
a port, a broker or a command.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.enrolment import LearnedExposure, fit_smell, require_space
from calibration.exposures import EnrolmentError
from calibration.recogniser import fit_recogniser
from calibration.response_preview import HeldOutBy, preview_negatives, preview_response
from calibration.smell_set import NEGATIVES
from models.decision_spec import State
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from calibration.smell_set import Smell
    from calibration.smell_store import SmellStore
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.taught_head import TaughtHead

STEP_FRAMES = 50
"""Frames processed at a time, some ten windows: a step takes about as long as two predictions."""


@dataclass(frozen=True, slots=True)
class Preview:
    """How well a smell was learnt.

    Attributes
    ----------
    label: of the smell.
    before: shares of its exposures, or windows, by label, without the smell.
    held_out: the same where the rig was taught the rest: whole sessions or exposures in turn. Empty
        of a single exposure, whose parts are too alike to judge it.
    held_out_by: what was left out.
    taken_from: by label of another taught smell, the share that this one now gets.

    Shares are in descending order.
    """

    label: str
    before: Mapping[str, float]
    held_out: Mapping[str, float]
    held_out_by: HeldOutBy
    taken_from: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """Seconds for which each label was announced in a recording, without a smell and with it."""

    without_s: Mapping[str, float]
    with_s: Mapping[str, float]


def preview_smell(store: SmellStore, label: str) -> Preview:
    """Judge a taught smell, in shadow or promoted, by its stored exposures.

    Raises
    ------
    SmellError: there is none of this label.
    RecordingError, EnrolmentError: its exposures cannot be used.
    """
    smell = store.smells().smell(label)
    exposures = store.taught_exposures(shadow=label)
    if label == NEGATIVES:
        found = preview_negatives(exposures, store.negatives(shadow=label))
        return Preview(label, found.before, found.held_out, found.held_out_by, found.taken_from)
    if any(exposure.label == label for exposure in exposures):
        found = preview_response(exposures, label, store.negatives())
        before: Mapping[str, float] = found.before
        if store.bundles:
            with contextlib.suppress(EnrolmentError):
                before = _preview_by_model(store, smell).before
        return Preview(label, before, found.held_out, found.held_out_by, found.taken_from)
    return _preview_by_model(store, smell)


def _preview_by_model(store: SmellStore, smell: Smell) -> Preview:
    """Judge a smell whose clean air is not known, by the embeddings of the rig's first model."""
    label = smell.label
    exposures = [store.learned_exposure(each) for each in smell.exposures]
    bundle = next(iter(store.bundles.values()))
    head, _ = store.head(shadow=label)
    without = _without(head, label)
    taught = {smell.label for smell in without.taught}
    taken: dict[str, float] = {}
    for other in store.smells().smells:
        if other.label in taught:
            theirs = [store.learned_exposure(each) for each in other.exposures]
            share = _shares(_likeliest(bundle, head, theirs)).get(label)
            if share is not None:
                taken[other.label] = share
    return Preview(
        label=label,
        before=_shares(_likeliest(bundle, without, exposures)),
        held_out=_shares(_held_out(bundle, without, label, exposures)),
        held_out_by=HeldOutBy.EXPOSURE if len(exposures) > 1 else HeldOutBy.NOTHING,
        taken_from={name: taken[name] for name in sorted(taken, key=lambda each: -taken[each])},
    )


class SmellComparison:
    """Processes recordings without a smell and with it; reads the library once, at the beginning.

    Parameters
    ----------
    store: with the smell, in shadow or promoted.
    label: of the smell.
    """

    def __init__(self, store: SmellStore, label: str) -> None:
        self._label = label
        self._bundles = list(store.bundles.values())
        self._heads = {model: store.head(model, shadow=label)[0] for model in store.bundles}
        self._taught = store.taught_exposures(shadow=label)
        self._negatives = store.negatives(shadow=label)
        # That of the store may be needed for other work between two steps.
        self._correction = deepcopy(store.correction)

    def replay(
        self,
        recording: Recording,
        *,
        settings: NoseSettings | None = None,
        assume_exposed: bool = False,
    ) -> Generator[float, None, ReplayComparison]:
        """Process a recording made earlier, in steps.

        Yields the share that is done, so that a running service can do it between two readings.

        Parameters
        ----------
        settings: the rig owner's.
        assume_exposed: the recording lies within one exposure.
        """
        seconds = []
        for done, left_out in enumerate((self._label, None)):
            if self._correction is not None:
                self._correction.reset()
            known = [exposure for exposure in self._taught if exposure.label != left_out]
            unnamed = [] if left_out == NEGATIVES else self._negatives
            nose = Nose(
                self._bundles,
                settings,
                rate_hz=recording.assumed_rate_hz,
                skip_warm_up=True,
                assume_exposed=assume_exposed,
                correction=self._correction,
                heads={model: _without(head, left_out) for model, head in self._heads.items()},
                recogniser=fit_recogniser(known, unnamed) if known else None,
            )
            seconds.append((yield from _seconds_by_label(nose, recording, done / 2)))
        return ReplayComparison(*seconds)


def _without(head: TaughtHead, label: str | None) -> TaughtHead:
    others = tuple(smell for smell in head.taught if smell.label != label)
    return dataclasses.replace(head, taught=others)


def _shares(labels: Iterable[str]) -> dict[str, float]:
    counts = Counter(labels)
    return {name: n / counts.total() for name, n in counts.most_common()}


def _likeliest(
    bundle: Bundle, head: TaughtHead, exposures: Iterable[LearnedExposure]
) -> Iterator[str]:
    """Yield the likeliest label of every window."""
    decision, labels = bundle.manifest.decision, head.labels(bundle.manifest.labels)
    for exposure in exposures:
        scores = head.log_probabilities(
            require_space(bundle),
            exposure.logits,
            exposure.embedding,
            decision.temperature,
            decision.head_temperature,
        )
        yield from (labels[index] for index in scores.argmax(axis=1))


def _held_out(
    bundle: Bundle, head: TaughtHead, label: str, exposures: Sequence[LearnedExposure]
) -> Iterator[str]:
    """Yield the labels of windows by a head that was taught the other exposures."""
    space, variance = require_space(bundle), bundle.manifest.decision.exposure_variance
    for number, exposure in enumerate(exposures):
        others = [other.embedding for place, other in enumerate(exposures) if place != number]
        if others:
            smell = fit_smell(label, others, space, variance)
            tried = dataclasses.replace(head, taught=(*head.taught, smell))
            yield from _likeliest(bundle, tried, [exposure])


def _seconds_by_label(
    nose: Nose, recording: Recording, share_before: float
) -> Generator[float, None, dict[str, float]]:
    """Return how long each label is announced in a live run; yield the share done now and then."""
    total_ms: Counter[str] = Counter()
    label, since_ms, t_ms = None, 0, 0
    for number, (frame, arrival_ms) in enumerate(recording.arrivals()):
        step = nose.process(frame, arrival_ms)
        t_ms = step.t_ms
        for prediction in step.predictions:
            if label is not None:
                total_ms[label] += prediction.t_ms - since_ms
            since_ms = prediction.t_ms
            label = prediction.label if prediction.state is State.RECOGNISED else None
        if number % STEP_FRAMES == STEP_FRAMES - 1:
            yield share_before + number / len(recording) / 2
    if label is not None:
        total_ms[label] += t_ms - since_ms
    return {name: ms / 1000.0 for name, ms in total_ms.most_common()}
