"""training/experiments: what a taught rig recognises on another day, on recordings of real rigs.

Whole sessions (days or rooms) are held out. The rig's own recogniser (`calibration.recogniser`) is
taught from the others and asked at several times after the onset. Needs neither torch nor a model.
May import `hardware.foreign`, `models` and `calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.correction import log_signals
from calibration.recogniser import LEAST_SMELLS, ROW_S, Recogniser, TaughtExposure
from hardware.foreign.mapping import shipped_format
from hardware.foreign.reading import read_foreign
from models.response import response_features
from training.data.dataset import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.foreign.reading import ForeignRecording

RATE_HZ = 1.0
"""Recordings are interpolated to it; slower boards too."""

MOMENTS_S = (60.0, 120.0, 240.0, float("inf"))
"""Seconds after the onset at which the recogniser is asked; the last one is the end."""

CLEAN_START_S = 3.0
"""Readings at the start that count as clean air where a recording begins in it: on fruits5 the
responses rise from the second reading on."""

ONSET = 0.25
"""An exposure begins where a channel is this far from clean air in log-conductance."""

ANNOUNCE = 0.5
"""Probability from which a name is given."""

DRAWS = 12
"""Random choices of the taught exposures, where fewer are taught than there are."""


@dataclass(frozen=True, slots=True)
class RealRig:
    """Recordings of one rig.

    Attributes
    ----------
    name: of the rig, of its folder and of its format.
    pattern: of the files in the folder.
    clean_air: label of the recordings of clean air; None where each recording begins in it.
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
class RigExposure:
    """One exposure, ready to be taught or recognised.

    Attributes
    ----------
    taught: label, session and features of all its rows.
    seconds: float64[rows], since the onset.
    """

    taught: TaughtExposure
    seconds: NDArray[np.float64]

    def until(self, moment_s: float) -> NDArray[np.float64]:
        """Return the features of the rows up to a moment, the first row at least."""
        rows: NDArray[np.float64] = self.taught.features[self.seconds <= moment_s]
        return rows if len(rows) else self.taught.features[:1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How held-out exposures were named at each of `MOMENTS_S`, as shares.

    Attributes
    ----------
    right, wrong: the name was right, or another one; the rest had none.
    listed: the right one is among the three most probable.
    exposures: how many outcomes the shares are of.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]
    listed: tuple[float, ...]
    exposures: int


def load_rig(folder: Path, rig: RealRig) -> list[RigExposure]:
    """Return the exposures of a rig.

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
    return [_exposure(recording, rig, air) for recording in recordings]


def _exposure(
    recording: ForeignRecording, rig: RealRig, air: Sequence[ForeignRecording]
) -> RigExposure:
    seconds, signals = _signals(recording)
    if rig.clean_air is None:
        clean = signals[seconds < CLEAN_START_S].mean(axis=0)
        away = np.nanmax(np.abs(signals - clean), axis=1) > ONSET
        onset = int(away.argmax()) if away.any() else 0
    else:
        same = [other for other in air if other.session == recording.session] or list(air)
        clean = np.concatenate([_signals(other)[1] for other in same]).mean(axis=0)
        onset = 0
    features = response_features(signals[onset:], clean, RATE_HZ)[:: round(ROW_S * RATE_HZ)]
    taught = TaughtExposure(rig.label(recording.label), recording.session, features)
    return RigExposure(taught, np.arange(0.0, ROW_S * len(features), ROW_S))


def _signals(recording: ForeignRecording) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds and log-conductances of the channels that there are, at `RATE_HZ`."""
    measured = log_signals(recording.values.astype(np.float32))
    present = np.isfinite(measured).any(axis=0)
    times = (recording.time_ms - recording.time_ms[0]) / 1000.0
    seconds = np.arange(0.0, times[-1], 1.0 / RATE_HZ)
    columns = [np.interp(seconds, times, measured[:, k]) for k in np.flatnonzero(present)]
    return seconds, np.stack(columns, axis=1)


def teach(exposures: Sequence[RigExposure]) -> Recogniser:
    """Return a recogniser of some exposures, with its limits fitted within them."""
    taught = [exposure.taught for exposure in exposures]
    return Recogniser.fit(taught).with_limits(taught)


Choice = Callable[[Sequence[RigExposure], np.random.Generator], list[RigExposure]]
"""Chooses what is taught out of what may be."""


def everything(exposures: Sequence[RigExposure], _rng: np.random.Generator) -> list[RigExposure]:
    """Teach all there is."""
    return list(exposures)


def few(count: int) -> Choice:
    """Teach one exposure of each smell in each of `count` of its sessions, drawn by chance."""

    def choose(exposures: Sequence[RigExposure], rng: np.random.Generator) -> list[RigExposure]:
        chosen = []
        for label in sorted({exposure.taught.label for exposure in exposures}):
            own = [exposure for exposure in exposures if exposure.taught.label == label]
            sessions = sorted({exposure.taught.session for exposure in own})
            for session in rng.permutation(sessions)[:count]:
                there = [exposure for exposure in own if exposure.taught.session == session]
                chosen.append(there[int(rng.integers(len(there)))])
        return chosen

    return choose


def name_held_out(
    exposures: Sequence[RigExposure], choose: Choice, *, draws: int = 1, untaught: bool = False
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
    for session in sorted({exposure.taught.session for exposure in exposures}):
        earlier = [exposure for exposure in exposures if exposure.taught.session != session]
        later = [exposure for exposure in exposures if exposure.taught.session == session]
        labels = sorted({exposure.taught.label for exposure in later})
        for left_out in labels if untaught else [None]:
            pool = [exposure for exposure in earlier if exposure.taught.label != left_out]
            known = {exposure.taught.label for exposure in pool}
            asked = [
                exposure
                for exposure in later
                if (
                    exposure.taught.label == left_out
                    if untaught
                    else exposure.taught.label in known
                )
            ]
            if len(known) < LEAST_SMELLS or not asked:
                continue
            for _ in range(draws):
                recogniser = teach(choose(pool, rng))
                outcomes += [_outcome(recogniser, exposure) for exposure in asked]
    right, wrong, listed = np.mean(outcomes, axis=0)
    return Outcome(tuple(right), tuple(wrong), tuple(listed), len(outcomes))


def _outcome(recogniser: Recogniser, exposure: RigExposure) -> NDArray[np.bool_]:
    """Return bool[3, moments]: named right, named wrong, among the three most probable."""
    result = np.zeros((3, len(MOMENTS_S)), dtype=bool)
    for column, moment_s in enumerate(MOMENTS_S):
        rows = exposure.until(moment_s)
        probability = np.exp(recogniser.log_probabilities(rows))
        order = [recogniser.labels[k] for k in np.argsort(-probability)]
        named = probability.max() >= ANNOUNCE and not recogniser.is_unknown(rows)
        right = order[0] == exposure.taught.label
        result[:, column] = named and right, named and not right, exposure.taught.label in order[:3]
    return result


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the table."""

    rig: str
    what: str
    outcome: Outcome


def evaluate_rig(exposures: Sequence[RigExposure], name: str) -> list[Trial]:
    """Return the lines of one rig: taught from few and from all sessions, and smells not taught."""
    sessions = len({exposure.taught.session for exposure in exposures})
    trials = [
        Trial(
            name,
            f"one exposure a smell in each of {count} session{'s' if count > 1 else ''}",
            name_held_out(exposures, few(count), draws=DRAWS),
        )
        for count in range(1, min(3, sessions - 1) + 1)
    ]
    trials.append(Trial(name, "all other sessions", name_held_out(exposures, everything)))
    labels = {exposure.taught.label for exposure in exposures}
    if len(labels) > LEAST_SMELLS:
        outcome = name_held_out(exposures, everything, untaught=True)
        trials.append(Trial(name, "smells never taught", outcome))
    return trials
