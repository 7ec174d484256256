"""training/: which held-out predictions a bundle's decision constants come from.

numpy only. Predictions for held-out sessions come first, where every label was held out with a
session; then those for held-out recordings, together with those for the sessions that there are;
without either, constants that announce with caution.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.decision_spec import DecisionSpec
from training.evaluation.decision_fit import fit_constants, fit_decision, measure_list
from training.evaluation.held_out import (
    HELD_OUT,
    HeldOut,
    concatenate_held_out,
    read_held_out,
)
from training.evaluation.mixture_fit import DEFAULT_PRESENCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SESSIONS_HELD_OUT = "sessions_held_out.npz"
"""Predictions of `crossval --sessions` for recordings of held-out sessions."""

ALSO_HELD_OUT = "sessions_also.npz"
"""Predictions of the same networks for the recordings of `--also`."""

FEWEST_OTHER = 5
"""Recordings of held-out sessions from which on they set how sure a model may be."""

FEWEST = 10
"""Recordings below which no constant is fitted on held-out sessions."""

CAUTIOUS = DecisionSpec(
    temperature=2.0,
    evidence_floor=0.9,
    evidence_factor=0.6,
    announce=0.7,
    withdraw=0.42,
    confirm=3,
    overrule=0.9,
)
"""Constants of a bundle for which nothing was held out. Temperatures fitted on other sessions were
1.4 to 2.1 times those of the same session on SmellNet, and 1.3 to 1.7 on fruits5, where the
evidence constants were 0.9 to 1.0 and 0.65 to 1.0: these are at the cautious end. A label needs a
probability of 0.7 in three predictions in a row. On fruits5 with a day held out, 0.75 of recordings
were named within 300 s, 0.94 of these rightly; the default constants named 0.96, 0.87 rightly."""

Source = Literal["sessions", "both", "recordings", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class DecisionSource:
    """Decision constants and where they come from.

    Attributes
    ----------
    spec: the constants.
    source: held-out sessions, held-out recordings of the same sessions, both, or none (`CAUTIOUS`).
    held_out: the predictions that they were fitted on; None for none.
    """

    spec: DecisionSpec
    source: Source
    held_out: HeldOut | None = None


def choose_decision(folder: Path | None, task: str, labels: Sequence[str]) -> DecisionSource:
    """Return the decision constants that a run folder allows; None: nothing was held out."""
    if folder is None:
        presence = (DEFAULT_PRESENCE,) * len(labels) if task == "mixture" else ()
        return DecisionSource(dataclasses.replace(CAUTIOUS, presence_thresholds=presence), "none")
    if (folder / SESSIONS_HELD_OUT).is_file():
        held_out = read_held_out(folder / SESSIONS_HELD_OUT)
        judged = (held_out.target > 0).any(axis=0)
        if judged.sum() == len(labels) and len(held_out.names) >= FEWEST:
            spec = fit_decision(folder, SESSIONS_HELD_OUT)
            return DecisionSource(with_list(spec, held_out), "sessions", held_out)
    if (folder / HELD_OUT).is_file():
        held_out, other = read_held_out(folder / HELD_OUT), read_other_sessions(folder)
        spec = fit_decision(folder, other=other)
        if other is None:
            return DecisionSource(spec, "recordings", held_out)
        return DecisionSource(with_list(spec, other), "both", held_out)
    return choose_decision(None, task, labels)


def read_other_sessions(folder: Path) -> HeldOut | None:
    """Return the predictions for other sessions in a run folder, None if there are too few."""
    paths = [folder / name for name in (SESSIONS_HELD_OUT, ALSO_HELD_OUT)]
    return _enough([read_held_out(path) for path in paths if path.is_file()])


def with_list(spec: DecisionSpec, other: HeldOut) -> DecisionSpec:
    """Return the constants with the coverage of the short list in other sessions."""
    if other.streams is None:
        return spec
    return dataclasses.replace(spec, list_coverage=measure_list([other.streams], spec))


def fold_decisions(
    sessions: HeldOut, recordings: HeldOut | None, also: HeldOut | None = None
) -> dict[int, DecisionSource]:
    """Return each session fold's constants, fitted on other recordings than the fold's.

    On the other folds' recordings if there are ten; else on held-out `recordings` of the same
    sessions, without the fold's own, and the other folds'; else the cautious constants.
    """
    found = {}
    for fold in map(int, np.unique(sessions.fold)):
        inside = sessions.fold == fold
        found[fold] = _fit(sessions, ~inside, "sessions")
        if found[fold].source == "none" and recordings is not None:
            own = {name for name, here in zip(sessions.names, inside, strict=True) if here}
            others = np.array([name not in own for name in recordings.names])
            parts = [sessions.subset(~inside)] if (~inside).any() else []
            elsewhere = _enough([*parts, also])
            found[fold] = _fit(recordings, others, "both" if elsewhere else "recordings", elsewhere)
    return found


def also_decision(
    sessions: HeldOut, recordings: HeldOut | None, otherwise: DecisionSource
) -> DecisionSource:
    """Return the constants that judge `--also`: of everything else, or those of a fold."""
    if recordings is None or otherwise.source not in ("both", "recordings"):
        return otherwise
    everything = np.ones(len(recordings.names), dtype=bool)
    elsewhere = _enough([sessions])
    return _fit(recordings, everything, "both" if elsewhere else "recordings", elsewhere)


def _enough(parts: Sequence[HeldOut | None]) -> HeldOut | None:
    """Return the predictions together; None for fewer than `FEWEST_OTHER` recordings."""
    found = [part for part in parts if part is not None]
    if sum(len(part.names) for part in found) < FEWEST_OTHER:
        return None
    return concatenate_held_out(found)


def _fit(
    held_out: HeldOut, chosen: NDArray[np.bool_], source: Source, other: HeldOut | None = None
) -> DecisionSource:
    if chosen.sum() < FEWEST:
        return DecisionSource(CAUTIOUS, "none")
    return DecisionSource(fit_constants(held_out, chosen, other=other), source, held_out)
