"""training/experiments: what exposures of an unnamed smell are worth, on recordings of real rigs.

A session is held out, and two smells are never taught. One exposure of the first, of another
session, is kept as a negative. Then the held-out session is asked: the smell that the negative is
of, the other one that was never taught, and the taught ones; without the negative, and with it used
in three ways. May import `models` and `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from calibration.recogniser import (
    fit_recogniser,
    novelty_limits,
    prepare_exposure,
    prepare_exposures,
    with_negatives,
)
from models.recogniser import RigDecision
from training.experiments.real_rigs import LEAST_SMELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.recogniser import TaughtExposure
    from models.recogniser import Recogniser
    from training.experiments.real_rigs import TaughtSubset

WITHOUT = "without it"
NEAREST = "nearer to it than to what was taught: no name (shipped)"
LIMITS = "counted among the new ones in the novelty limits"
SMELL = "taught as a smell that is never named"
USES = (WITHOUT, NEAREST, LIMITS, SMELL)

_UNNAMED = "\0negative"


@dataclass(frozen=True, slots=True)
class NegativeRow:
    """What one use of negatives reaches in the end of the exposures, as shares.

    Attributes
    ----------
    use: one of `USES`.
    same_named: exposures of the negative's smell, on another day, that are given a taught name.
    other_named: the same of another smell that was never taught.
    right, wrong: exposures of taught smells with the right name, and with another one.
    cases: exposures asked: of the negative's smell, of the other one, of taught smells.
    """

    use: str
    same_named: float
    other_named: float
    right: float
    wrong: float
    cases: tuple[int, int, int]


def compare_negatives(
    exposures: Sequence[TaughtExposure], choose: TaughtSubset, *, draws: int = 1
) -> list[NegativeRow]:
    """Return a row for each of `USES`; none where a rig has too few smells.

    Parameters
    ----------
    exposures: of one rig; those without a response are left out.
    choose: what of the other sessions is taught.
    draws: how often that, and the negative, are chosen anew.
    """
    exposures = [each for each in exposures if len(prepare_exposure(each).features)]
    labels = sorted({each.label for each in exposures})
    rng = np.random.default_rng(0)
    named: dict[str, list[tuple[str, bool, bool]]] = {use: [] for use in USES}
    for session in sorted({each.session for each in exposures}):
        earlier = [each for each in exposures if each.session != session]
        later = [each for each in exposures if each.session == session]
        for negative_label, other in permutations(labels, 2):
            pool = [each for each in earlier if each.label not in (negative_label, other)]
            negatives = [each for each in earlier if each.label == negative_label]
            if len({each.label for each in pool}) < LEAST_SMELLS or not negatives:
                continue
            for _ in range(draws):
                taught = choose(pool, rng)
                negative = negatives[int(rng.integers(len(negatives)))]
                known = {each.label for each in taught}
                kinds = dict.fromkeys(known, "taught")
                kinds |= {negative_label: "same", other: "other"}
                for use, recogniser in _recognisers(taught, negative).items():
                    for asked in later:
                        if asked.label in kinds:
                            name = _name(recogniser, asked)
                            right = name == asked.label
                            named[use].append((kinds[asked.label], right, name is not None))
    return [_row(use, cases) for use, cases in named.items() if cases]


def _recognisers(
    taught: Sequence[TaughtExposure], negative: TaughtExposure
) -> dict[str, Recogniser]:
    """Return the recogniser of each of `USES`."""
    plain = fit_recogniser(taught)
    unnamed = negative._replace(label=_UNNAMED)
    # As one more smell of a single session it is among the new ones alone.
    limits = novelty_limits(plain, prepare_exposures([*taught, unnamed]))
    with_it = fit_recogniser([*taught, unnamed])
    return {
        WITHOUT: plain,
        NEAREST: with_negatives(plain, [negative]),
        LIMITS: replace(plain, novelty_limits=limits) if plain.calibrated else plain,
        SMELL: replace(with_it, novelty_limits=plain.novelty_limits, temperature=plain.temperature),
    }


def _name(recogniser: Recogniser, asked: TaughtExposure) -> str | None:
    decision = RigDecision(recogniser)
    decision.add(asked.rows)
    return None if decision.announced == _UNNAMED else decision.announced


def _row(use: str, cases: Sequence[tuple[str, bool, bool]]) -> NegativeRow:
    def share(kind: str, place: int) -> float:
        found = [bool(case[place]) for case in cases if case[0] == kind]
        return float(np.mean(found)) if found else float("nan")

    right = share("taught", 1)
    counts = [sum(case[0] == kind for case in cases) for kind in ("same", "other", "taught")]
    return NegativeRow(
        use=use,
        same_named=share("same", 2),
        other_named=share("other", 2),
        right=right,
        wrong=share("taught", 2) - right,
        cases=(counts[0], counts[1], counts[2]),
    )
