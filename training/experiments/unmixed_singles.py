"""training/experiments: what the unmixing of a rig says of single smells, on real rigs.

Whole sessions are held out, as in `training.experiments.real_rigs`: the rig's recogniser and its
unmixing are taught from the others and follow each exposure of the held-out one, as the running
service does. A single smell must not be called another, nor several, more often than the recogniser
errs. Needs neither torch nor a model. May import `models` and `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.recogniser import fit_recogniser
from calibration.unmixing import unmixing_of_smells
from models.recogniser import RigDecision
from models.response import ROW_S
from models.unmixing_stream import UnmixingStream
from training.experiments.real_rigs import LEAST_SMELLS, MOMENTS_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.recogniser import TaughtExposure

KINDS = ("right", "another", "several")


@dataclass(frozen=True, slots=True)
class UnmixedSingles:
    """What was announced of single smells, as shares of the exposures at `MOMENTS_S`.

    Attributes
    ----------
    rig, source: which rig, and what announced it.
    right: the smell alone.
    another: another smell alone.
    several: two smells or three.
    exposures: how many there are.
    """

    rig: str
    source: str
    right: tuple[float, ...]
    another: tuple[float, ...]
    several: tuple[float, ...]
    exposures: int


def unmix_singles(rig: str, exposures: Sequence[TaughtExposure]) -> list[UnmixedSingles]:
    """Hold each session out and unmix its exposures.

    Returns
    -------
    What the recogniser announces, the unmixing by itself, and both together, as on `mixture`.
    """
    results: dict[str, list[NDArray[np.bool_]]] = {}
    for session in sorted({exposure.session for exposure in exposures}):
        taught = [exposure for exposure in exposures if exposure.session != session]
        labels = {exposure.label for exposure in taught}
        unmixing = unmixing_of_smells(taught)
        if len(labels) < LEAST_SMELLS or unmixing is None:
            continue
        recogniser = fit_recogniser(taught)
        for exposure in exposures:
            if exposure.session != session or exposure.label not in labels:
                continue
            decision = RigDecision(recogniser)
            alone, together = UnmixingStream(unmixing), UnmixingStream(unmixing, decision)
            said = [
                _said(exposure, place, decision, alone, together)
                for place in range(len(exposure.rows))
            ]
            for source in ("recogniser", "unmixing alone", "mixture"):
                names = [one[source] for one in said]
                results.setdefault(source, []).append(_kinds(names, exposure.label))
    rows = []
    for source, kinds in results.items():
        right, another, several = (tuple(row) for row in np.mean(kinds, axis=0).tolist())
        rows.append(UnmixedSingles(rig, source, right, another, several, len(kinds)))
    return rows


def _said(
    exposure: TaughtExposure,
    place: int,
    decision: RigDecision,
    alone: UnmixingStream,
    together: UnmixingStream,
) -> dict[str, frozenset[str]]:
    """Add a row to all and return what each announces."""
    rows = exposure.rows[place : place + 1]
    row = [(rows.response[0], rows.changes[0])]
    decision.add(rows)
    alone.add(row)
    together.add(row)
    return {
        "recogniser": frozenset([decision.announced] if decision.announced else []),
        "unmixing alone": frozenset(part.label for part in alone.components),
        "mixture": frozenset(part.label for part in together.components),
    }


def _kinds(names: Sequence[frozenset[str]], label: str) -> NDArray[np.bool_]:
    """Return bool[KINDS, moments]."""
    kinds = np.zeros((len(KINDS), len(MOMENTS_S)), dtype=bool)
    for column, moment_s in enumerate(MOMENTS_S):
        last = int(min(moment_s / ROW_S, len(names))) - 1
        said = names[last] if last >= 0 else frozenset()
        right = said == {label}
        kinds[:, column] = right, len(said) == 1 and not right, len(said) > 1
    return kinds
