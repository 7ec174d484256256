"""training/experiments: what a taught rig recognises on another day, on recordings of real rigs.

Whole sessions (days or rooms) are held out. The rig's own recogniser is taught from the others and
follows the exposures of the held-out one, as the running service does: the same search for the
onset and clean air, the same recogniser and the same decision. Needs neither torch nor a model.
May import `hardware.foreign`, `models` and `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from calibration.exposures import Readings, find_exposure
from calibration.recogniser import TaughtExposure, fit_recogniser, prepare_exposure
from hardware.foreign.mapping import shipped_format
from hardware.foreign.reading import read_foreign
from models.recogniser import Recogniser, RigDecision
from models.response import ROW_S
from models.signals import log_signals
from training.data.dataset import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.foreign.reading import ForeignRecording

MOMENTS_S = (60.0, 120.0, 240.0, float("inf"))
"""Seconds after the onset at which the decision is read; the last one is the end."""

DRAWS = 12
"""Random choices of the taught exposures, where fewer are taught than there are."""

LEAST_SMELLS = 2


@dataclass(frozen=True, slots=True)
class RealRig:
    """Recordings of one rig.

    Attributes
    ----------
    name: of the rig, of its folder and of its format.
    pattern: of the files in the folder.
    clean_air: label of the recordings of clean air, which stand for the rig's calibration in that
        session; None where each recording begins in clean air.
    merge: label by the beginning of a published label: kinds of one smell.
    """

    name: str
    pattern: str
    clean_air: str | None = None
    merge: tuple[str, ...] = ()

    def label(self, published: str) -> str:
        """Return the label that is asked for."""
        return next((kind for kind in self.merge if published.startswith(kind)), published)


RIGS = (
    RealRig("fruits5", "*.json"),
    RealRig("ai-nose", "*/*.csv", clean_air="background", merge=("spirit", "tea")),
    RealRig("sidharth", "*.csv", clean_air="air"),
)


@dataclass(frozen=True, slots=True, eq=False)
class RigRecording:
    """One recording of a smell.

    Attributes
    ----------
    label, session: of the smell, and the day or room.
    readings: of it.
    clean_air: float64[8], log-conductances of the session's recordings of clean air; None where
        there are none.
    """

    label: str
    session: str
    readings: Readings
    clean_air: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How held-out exposures were named at each of `MOMENTS_S`, as shares.

    Attributes
    ----------
    right, wrong: the name was right, or another one; the rest had none.
    likeliest: the most probable label is the right one, whether it is announced or not.
    listed: the right one is among the three most probable.
    exposures: how many outcomes the shares are of.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]
    likeliest: tuple[float, ...]
    listed: tuple[float, ...]
    exposures: int


def load_rig(folder: Path, rig: RealRig) -> list[TaughtExposure]:
    """Return the exposures of a rig.

    Raises
    ------
    DataError: there are no recordings of it in the folder.
    """
    return [found_exposure(recording) for recording in rig_recordings(folder, rig)]


def found_exposure(recording: RigRecording) -> TaughtExposure:
    """Return the exposure of a recording; without rows where it never leaves clean air."""
    found = find_exposure(recording.readings, calibrated_air=recording.clean_air)
    known = None if found.clean_air is None else found.clean_air.signals
    return TaughtExposure(recording.label, recording.session, found.rows, known)


def rig_recordings(folder: Path, rig: RealRig) -> list[RigRecording]:
    """Return the recordings of a rig's smells.

    Raises
    ------
    DataError: there are no recordings of it in the folder.
    """
    paths = sorted((folder / rig.name).glob(rig.pattern))
    if not paths:
        raise DataError(
            f"There are no recordings {rig.pattern} in {folder / rig.name}. Name the folder that "
            f"holds {', '.join(known.name for known in RIGS)}."
        )
    recordings = list(read_foreign(paths, shipped_format(rig.name)))
    air = [recording for recording in recordings if recording.label == rig.clean_air]
    found = []
    for recording in recordings:
        if recording.label != rig.clean_air:
            same = [other for other in air if other.session == recording.session] or air
            label, readings = rig.label(recording.label), _readings(recording)
            found.append(RigRecording(label, recording.session, readings, _clean_air(same)))
    return found


def _readings(recording: ForeignRecording) -> Readings:
    rate_hz = float(1000.0 / np.median(np.diff(recording.time_ms)))
    values = recording.values.astype(np.float32)
    quality = np.zeros(values.shape, np.uint8)
    t_ms = recording.time_ms.astype(np.int64) - int(recording.time_ms[0])
    return Readings(values, quality, t_ms, rate_hz)


def _clean_air(air: Sequence[ForeignRecording]) -> NDArray[np.float64] | None:
    """Return float64[8], the mean log-conductances of recordings of clean air."""
    if not air:
        return None
    signals = log_signals(np.concatenate([recording.values for recording in air]))
    return np.asarray(signals.mean(axis=0))


class OfSession(Protocol):
    """An exposure in whatever form."""

    @property
    def label(self) -> str:
        """Of the smell."""
        ...

    @property
    def session(self) -> str:
        """The day or room."""
        ...


Exposure = TypeVar("Exposure", bound=OfSession)


class TaughtSubset(Protocol):
    """Chooses what is taught out of what may be."""

    def __call__(
        self, exposures: Sequence[Exposure], rng: np.random.Generator, /
    ) -> list[Exposure]:
        """Return the chosen exposures."""
        ...


def everything(exposures: Sequence[Exposure], _rng: np.random.Generator, /) -> list[Exposure]:
    """Teach all there is."""
    return list(exposures)


def few(count: int) -> TaughtSubset:
    """Teach one exposure of each smell in each of `count` of its sessions, drawn by chance."""

    def choose(exposures: Sequence[Exposure], rng: np.random.Generator, /) -> list[Exposure]:
        chosen = []
        for label in sorted({exposure.label for exposure in exposures}):
            own = [exposure for exposure in exposures if exposure.label == label]
            sessions = sorted({exposure.session for exposure in own})
            for session in rng.permutation(sessions)[:count]:
                there = [exposure for exposure in own if exposure.session == session]
                chosen.append(there[int(rng.integers(len(there)))])
        return chosen

    return choose


def name_held_out(
    exposures: Sequence[TaughtExposure],
    choose: TaughtSubset,
    *,
    draws: int = 1,
    untaught: bool = False,
) -> Outcome:
    """Hold each session out, teach from the others, and name its exposures.

    Parameters
    ----------
    exposures
        Of one rig.
    choose
        What of the other sessions is taught.
    draws
        How often it is chosen anew.
    untaught
        Ask for the exposures of smells that were left out of teaching, each in turn, instead of
        the taught ones: every name is wrong then.
    """
    rng = np.random.default_rng(0)
    outcomes: list[NDArray[np.bool_]] = []
    for session in sorted({exposure.session for exposure in exposures}):
        earlier = [exposure for exposure in exposures if exposure.session != session]
        later = [exposure for exposure in exposures if exposure.session == session]
        labels = sorted({exposure.label for exposure in later})
        for left_out in labels if untaught else [None]:
            pool = [exposure for exposure in earlier if exposure.label != left_out]
            known = {exposure.label for exposure in pool}
            asked = [
                exposure
                for exposure in later
                if (exposure.label == left_out if untaught else exposure.label in known)
            ]
            if len(known) < LEAST_SMELLS or not asked:
                continue
            for _ in range(draws):
                recogniser = fit_recogniser(choose(pool, rng))
                outcomes += [_outcome(recogniser, exposure) for exposure in asked]
    return _mean_outcome(outcomes)


def name_one_smell(exposures: Sequence[TaughtExposure]) -> tuple[Outcome, Outcome]:
    """Teach each exposure of one rig alone, and ask for those of the other sessions.

    Returns
    -------
    the outcomes of its own smell, and of the other smells, which have no right name.
    """
    own: list[NDArray[np.bool_]] = []
    others: list[NDArray[np.bool_]] = []
    for taught in exposures:
        if not len(prepare_exposure(taught).features):
            continue
        recogniser = fit_recogniser([taught])
        for asked in exposures:
            if asked.session != taught.session:
                kind = own if asked.label == taught.label else others
                kind.append(_outcome(recogniser, asked))
    return _mean_outcome(own), _mean_outcome(others)


def name_across(taught: Sequence[TaughtExposure], asked: Sequence[TaughtExposure]) -> Outcome:
    """Teach all exposures of one rig, and ask for those of another."""
    recogniser = fit_recogniser(taught)
    return _mean_outcome([_outcome(recogniser, one) for one in asked if len(one.rows)])


def _mean_outcome(outcomes: Sequence[NDArray[np.bool_]]) -> Outcome:
    right, wrong, likeliest, listed = np.mean(outcomes, axis=0)
    return Outcome(tuple(right), tuple(wrong), tuple(likeliest), tuple(listed), len(outcomes))


def _outcome(recogniser: Recogniser, exposure: TaughtExposure) -> NDArray[np.bool_]:
    """Return bool[4, moments]: named right, named wrong, likeliest, among the three likeliest."""
    result = np.zeros((4, len(MOMENTS_S)), dtype=bool)
    decision, before = RigDecision(recogniser), 0
    for column, moment_s in enumerate(MOMENTS_S):
        until = int(min(moment_s / ROW_S, len(exposure.rows)))
        decision.add(exposure.rows[before:until])
        before = until
        named, listed = decision.announced, [label for label, _ in decision.top[:3]]
        right = named == exposure.label
        result[:, column] = (
            right,
            named is not None and not right,
            exposure.label in listed[:1],
            exposure.label in listed,
        )
    return result


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the table."""

    rig: str
    what: str
    outcome: Outcome


def evaluate_rig(exposures: Sequence[TaughtExposure], name: str) -> list[Trial]:
    """Return the lines of one rig: taught from few, all and one; and smells never taught."""
    sessions = len({exposure.session for exposure in exposures})
    trials = [
        Trial(
            name,
            f"one exposure a smell in each of {count} session{'s' if count > 1 else ''}",
            name_held_out(exposures, few(count), draws=DRAWS),
        )
        for count in range(1, min(3, sessions - 1) + 1)
    ]
    trials.append(Trial(name, "all other sessions", name_held_out(exposures, everything)))
    labels = {exposure.label for exposure in exposures}
    if len(labels) > LEAST_SMELLS:
        outcome = name_held_out(exposures, everything, untaught=True)
        trials.append(Trial(name, "smells never taught", outcome))
    own, others = name_one_smell(exposures)
    trials += [
        Trial(name, "one exposure of one smell alone", own),
        Trial(name, "the same, other smells", others),
    ]
    return trials
