"""Calibration: how well the rig's recogniser will know a smell, from the exposures of its library.

May import models and calibration. Pure: exposures in, shares out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from calibration.recogniser import (
    MOST_FOLDS,
    fit_discriminant,
    fit_recogniser,
    prepare_exposures,
    with_negatives,
)
from models.recogniser import RigDecision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from calibration.recogniser import TaughtExposure
    from models.recogniser import Recogniser

UNRECOGNISED = "unrecognised"
"""Stands in shares for what is none of the taught smells, or not certain."""

RIGHT_BY_SESSIONS = (0.87, 0.88, 0.88, 0.92)
"""Share of exposures of another day whose most probable smell is right 120 s after the onset, on
the rig fruits5: taught by one exposure a smell in one, two and three sessions, and by all exposures
of the other sessions (`scent-train rigs`, column "likeliest right"). Of 25 exposures, so that
neighbouring figures differ by less than their standard error."""

NAMED_FROM_ONE_EXPOSURE = (0.90, 0.47, 0.0)
"""Share of exposures of another day or room that are named rightly in the end on the rigs fruits5,
ai-nose and sidharth, each smell taught by one exposure (`scent-train rigs`, column "named right").
A single exposure cannot tell more by itself: parts of it resemble each other, so that on fruits5
one half of its rows named the other half in every case, while another day was named less often."""

FINISHED_SESSIONS = len(RIGHT_BY_SESSIONS)


class HeldOutBy(StrEnum):
    """What is left out of teaching to judge a smell; `NOTHING` with a single exposure."""

    SESSION = "session"
    EXPOSURE = "exposure"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ResponsePreview:
    """How well the rig's recogniser knows a smell.

    Attributes
    ----------
    before: share of its exposures by label, without the smell.
    held_out: share of what was left out, by label; empty where nothing was.
    held_out_by: what was left out.
    taken_from: by label of another smell, the share of its rows that this one gets.
    """

    before: dict[str, float]
    held_out: dict[str, float]
    held_out_by: HeldOutBy
    taken_from: dict[str, float]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to teach next.

    Attributes
    ----------
    label: the smell that another session would help most.
    sessions: in which it was taught so far.
    gain: by which the share of right likeliest smells on another day is expected to grow.
    """

    label: str
    sessions: int
    gain: float


def preview_response(
    exposures: Sequence[TaughtExposure], label: str, negatives: Sequence[TaughtExposure] = ()
) -> ResponsePreview:
    """Judge a smell among all that are taught.

    Parameters
    ----------
    exposures: of the promoted smells and of `label`.
    label: of the smell.
    negatives: exposures that are none of the smells.
    """
    own = [exposure for exposure in exposures if exposure.label == label]
    others = [exposure for exposure in exposures if exposure.label != label]
    before = [UNRECOGNISED] * len(own)
    if others:
        before = _decisions(fit_recogniser(others, negatives), own)
    by = _held_out_by(own)
    held_out: list[str] = []
    for taught, judged in _parts(exposures, label, by):
        held_out += _decisions(fit_recogniser(taught, negatives), judged)
    # Which smell is likeliest needs no limit of novelty and no certainty, which take most of a fit.
    taken = _taken_from(fit_discriminant(prepare_exposures(exposures)), others, label)
    return ResponsePreview(_shares(before), _shares(held_out), by, taken)


def preview_negatives(
    exposures: Sequence[TaughtExposure], negatives: Sequence[TaughtExposure]
) -> ResponsePreview:
    """Judge exposures that are none of the taught smells.

    `before` says what they would be called without themselves, `taken_from` which share of each
    smell's exposures, with their session held out, loses its right name because of them.
    """
    before = [UNRECOGNISED] * len(negatives)
    if exposures:
        before = _decisions(fit_recogniser(exposures), negatives)
    lost: dict[str, list[bool]] = {}
    for session in sorted({each.session for each in exposures})[-MOST_FOLDS:]:
        taught = [each for each in exposures if each.session != session]
        if not taught:
            continue
        judged = [each for each in exposures if each.session == session]
        without = fit_recogniser(taught)
        names = (_decisions(one, judged) for one in (without, with_negatives(without, negatives)))
        for exposure, name, later in zip(judged, *names, strict=True):
            lost.setdefault(exposure.label, []).append(name == exposure.label != later)
    shares = {label: sum(cases) / len(cases) for label, cases in lost.items() if any(cases)}
    taken = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    return ResponsePreview(_shares(before), {}, HeldOutBy.NOTHING, taken)


def _taken_from(
    recogniser: Recogniser, others: Sequence[TaughtExposure], label: str
) -> dict[str, float]:
    """Return the share of the rows of every other smell that are likeliest of this one."""
    place = recogniser.labels.index(label)
    rows: dict[str, list[bool]] = {}
    for exposure in others:
        scores = recogniser.row_log_probabilities(exposure.rows.features())
        rows.setdefault(exposure.label, []).extend(scores.argmax(axis=1) == place)
    shares = {name: sum(taken) / len(taken) for name, taken in rows.items() if any(taken)}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def advise(exposures: Sequence[TaughtExposure]) -> Advice | None:
    """Return which smell to teach on another day; None where all were taught on enough days."""
    sessions: dict[str, set[str]] = {}
    for exposure in exposures:
        sessions.setdefault(exposure.label, set()).add(exposure.session)
    if not sessions:
        return None
    label = min(sorted(sessions), key=lambda name: len(sessions[name]))
    count = len(sessions[label])
    if count >= FINISHED_SESSIONS:
        return None
    return Advice(label, count, round(RIGHT_BY_SESSIONS[count] - RIGHT_BY_SESSIONS[count - 1], 2))


def _held_out_by(own: Sequence[TaughtExposure]) -> HeldOutBy:
    if len({exposure.session for exposure in own}) > 1:
        return HeldOutBy.SESSION
    return HeldOutBy.EXPOSURE if len(own) > 1 else HeldOutBy.NOTHING


def _parts(
    exposures: Sequence[TaughtExposure], label: str, by: HeldOutBy
) -> Iterator[tuple[list[TaughtExposure], list[TaughtExposure]]]:
    """Yield what is taught and what is judged, in turn."""
    if by is HeldOutBy.SESSION:
        sessions = sorted({each.session for each in exposures if each.label == label})
        for session in sessions[-MOST_FOLDS:]:
            taught = [each for each in exposures if each.session != session]
            judged = [e for e in exposures if e.session == session and e.label == label]
            if taught:
                yield taught, judged
        return
    if by is HeldOutBy.EXPOSURE:
        own = [each for each in exposures if each.label == label]
        others = [each for each in exposures if each.label != label]
        for number, left_out in enumerate(own[-MOST_FOLDS:], max(0, len(own) - MOST_FOLDS)):
            yield [*others, *own[:number], *own[number + 1 :]], [left_out]


def _decisions(recogniser: Recogniser, exposures: Iterable[TaughtExposure]) -> list[str]:
    """Return what the rig announces of each exposure in the end."""
    names = []
    for exposure in exposures:
        decision = RigDecision(recogniser)
        decision.add(exposure.rows)
        names.append(decision.announced or UNRECOGNISED)
    return names


def _shares(names: Sequence[str]) -> dict[str, float]:
    return {name: count / len(names) for name, count in Counter(names).most_common()}
