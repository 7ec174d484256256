"""training/: one exposure a smell: a general encoder against the rig's plain recogniser.

The encoder is trained on simulated rigs and on the real rigs but one; on that one, each smell is
taught by one exposure of one session and asked for in another. Both see the same exposures. May
import torch through `training.network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.recogniser import fit_recogniser
from hardware.simulator.tables import load_board
from models.recogniser import RigDecision
from models.response import ROW_S
from training.experiments.real_rigs import LEAST_SMELLS, MOMENTS_S, few
from training.network.general_encoder import (
    SPEC,
    GeneralEncoder,
    exposure_features,
    train_encoder,
)
from training.simulator.exposure_rows import simulate_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.recogniser import TaughtExposure
    from training.network.general_encoder import Rig

SIMULATED_RIGS = 150
SIMULATED_SMELLS = 10
SIMULATED_DAYS = 2
FIRST_RIG = 5000
"""Seeds of the simulated rigs; calibration and boards are judged on smaller ones."""
REAL_SHARE = 0.3
"""Of the episodes, of all real rigs together."""
STAGES = (6, 12, 24, 48)
"""Rows after which a taught exposure is embedded; its embedding is their mean."""

DRAWS = 4
"""Random choices of the taught exposures."""

Namer = Callable[["TaughtExposure", int], str]
"""Names the likeliest smell of an exposure after so many rows."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Shares of exposures whose likeliest smell is right at each of `MOMENTS_S`."""

    rig: str
    plain: tuple[float, ...]
    encoder: tuple[float, ...]
    exposures: int


def compare_encoder(
    real: Mapping[str, Sequence[TaughtExposure]], *, steps: int, seeds: int, draws: int = DRAWS
) -> list[Comparison]:
    """Hold each real rig out of the encoder's training and compare the two on it.

    Parameters
    ----------
    real: exposures by rig.
    steps: of each encoder's training.
    seeds: encoders of each rig; their shares are averaged.
    draws: how often the taught exposures are drawn anew.
    """
    simulated = simulate_rigs(0)
    found = []
    for name, exposures in real.items():
        others = [_as_rig(other) for key, other in real.items() if key != name]
        others = [rig for rig in others if sum(len(one) > 1 for one in rig.values()) > 1]
        odds = [(1 - REAL_SHARE) / len(simulated)] * len(simulated)
        odds += [REAL_SHARE / max(1, len(others))] * len(others)
        encoders = [
            train_encoder([*simulated, *others], odds, steps=steps, seed=seed)
            for seed in range(seeds)
        ]
        found.append(_compare(name, exposures, encoders, draws))
    return found


def simulate_rigs(seed: int, count: int = SIMULATED_RIGS) -> list[Rig]:
    """Return exposures of simulated rigs, each with smells of its own choice on two days."""
    rng = np.random.default_rng(seed)
    substances = load_board().substances
    return [
        {
            str(substance): {
                str(day): [exposure_features(simulate_rows(rig, day, str(substance), rng))]
                for day in range(SIMULATED_DAYS)
            }
            for substance in rng.permutation(substances)[:SIMULATED_SMELLS]
        }
        for rig in range(FIRST_RIG, FIRST_RIG + count)
    ]


def _as_rig(exposures: Sequence[TaughtExposure]) -> Rig:
    rig: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    for one in exposures:
        if len(one.rows):
            sessions = rig.setdefault(one.label, {})
            sessions.setdefault(one.session, []).append(exposure_features(one.rows))
    return rig


def _compare(
    name: str,
    exposures: Sequence[TaughtExposure],
    encoders: Sequence[GeneralEncoder],
    draws: int,
) -> Comparison:
    rng = np.random.default_rng(0)
    right: list[NDArray[np.float64]] = []
    usable = [one for one in exposures if len(one.rows)]
    for session in sorted({one.session for one in usable}):
        pool = [one for one in usable if one.session != session]
        known = {one.label for one in pool}
        asked = [one for one in usable if one.session == session and one.label in known]
        if len(known) < LEAST_SMELLS:
            continue
        for _ in range(draws):
            taught = few(1)(pool, rng)
            namers = [_plain(taught), *(_by_encoder(taught, encoder) for encoder in encoders)]
            for one in asked:
                until = [int(min(at_s / ROW_S, len(one.rows))) for at_s in MOMENTS_S]
                named = np.array([[namer(one, k) == one.label for k in until] for namer in namers])
                right.append(np.stack([named[0], named[1:].mean(axis=0)]))
    shares = np.mean(right, axis=0)
    return Comparison(name, tuple(shares[0]), tuple(shares[1]), len(right))


def _plain(taught: Sequence[TaughtExposure]) -> Namer:
    recogniser = fit_recogniser(taught)

    def name(exposure: TaughtExposure, rows: int) -> str:
        decision = RigDecision(recogniser)
        decision.add(exposure.rows[:rows])
        return decision.top[0][0] if decision.ready else ""

    return name


def _by_encoder(taught: Sequence[TaughtExposure], encoder: GeneralEncoder) -> Namer:
    means = []
    for one in taught:
        features = exposure_features(one.rows)
        views = [features[:rows] for rows in STAGES] + [features[-SPEC.window :]]
        means.append(encoder.embed(views).mean(axis=0))

    def name(exposure: TaughtExposure, rows: int) -> str:
        point = encoder.embed([exposure_features(exposure.rows[:rows])[-SPEC.window :]])[0]
        return taught[int(((np.stack(means) - point) ** 2).sum(axis=1).argmin())].label

    return name
