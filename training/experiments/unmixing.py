"""training/experiments: how well a rig unmixes smells that it was taught.

On real recordings: pairs among the published mixtures, smells taught in the same session. In the
simulator: single smells and pairs on another day than the one that they were taught on. Needs
neither torch nor a model. May import `hardware.simulator`, `models` and `calibration`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.unmixing import Priors, TaughtResponse, fit_unmixing, plateau
from hardware.channels import GAS_EXPONENTS, GAS_INDICES, GROVE_INDICES, channel_index
from hardware.mixing_law import mixed_response, mixed_slopes
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import SUBSTANCE_BOARD, load_board
from models.signals import log_signals
from models.unmixing import MOST_PARTS
from training.data.dataset import DataError
from training.data.mixture_days import mixture_days, mixture_exposures
from training.evaluation.intervals import Interval, percentile_interval, resample_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from hardware.simulator.tables import BoardModel
    from models.unmixing import Unmixing
    from training.data.dataset import Dataset

TAUGHT = (3, 4, 6, 8)
"""How many smells were taught."""

DRAWS = 20
"""Random choices of the smells that were taught besides those of the pair."""

SIMULATED_DAYS = tuple((day, day + 1) for day in range(1, 13, 2))
"""The day on which every smell is taught once, and the day on which it is asked for."""

SIMULATED_SMELLS = (
    *("almond", "apple", "banana", "cloves", "coriander", "cumin", "garlic", "mandarin_orange"),
    *("mango", "peach", "pear", "strawberry"),
)
"""The twelve of the published mixtures, as the simulated board with all channels names them."""

SIMULATED_ODOURS = (
    *((one,) for one in SIMULATED_SMELLS),
    *itertools.combinations(SIMULATED_SMELLS, 2),
)
"""What is asked for: every smell alone and every even pair."""

SIMULATED_BOARDS = {
    "4 Grove": ("NO2", "C2H5OH", "VOC", "CO"),
    "6 gas": ("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG"),
    "6 gas + heater plate": (
        *("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG"),
        "Gas_Resistance",
    ),
}

AIR_S, SMELL_S = 60, 240
"""Seconds of clean air before a simulated exposure, and of the exposure."""

FIRST_ASKED_SEED = 100
"""Seeds below it are those of taught exposures."""

_PAIR = 2
_REPEATABILITY = 0.05
"""Standard deviation of a plateau in log-conductance when the same exposure is repeated."""
_NEARLY = 1e-6


@dataclass(frozen=True, slots=True)
class UnmixingTrial:
    """One line of the table.

    Attributes
    ----------
    data: "real" or "simulated".
    what: what was taught and what was asked.
    exact: share of exposures whose set of components was found exactly.
    interval: of `exact`, 95 % over exposures.
    chance: the same share for a random answer among those that were possible.
    exposures: how many were asked for.
    """

    data: str
    what: str
    exact: float
    interval: Interval
    chance: float
    exposures: int


@dataclass(frozen=True, slots=True, eq=False)
class MixtureExposure:
    """One composition on one day.

    Attributes
    ----------
    name: day and composition.
    day: its session.
    shares: by label.
    responses: float64[recordings, 4], plateaus in log-conductance.
    lowest: float64[4], the lowest reading of each channel.
    """

    name: str
    day: str
    shares: dict[str, float]
    responses: NDArray[np.float64]
    lowest: NDArray[np.float64]

    @property
    def labels(self) -> frozenset[str]:
        """What is in it."""
        return frozenset(self.shares)


Teaching = tuple[str, "Callable[[MixtureExposure, MixtureExposure], bool]"]
"""A name, and whether an exposure (first) may be taught before another one is asked for."""

TEACHINGS: tuple[Teaching, ...] = (
    (
        "taught by singles of the same session",
        lambda one, asked: one.day == asked.day and len(one.shares) == 1,
    ),
    (
        "taught by all other compositions of the same session",
        lambda one, asked: one.day == asked.day and one.name != asked.name,
    ),
    (
        "taught by compositions of other component sets of the same session",
        lambda one, asked: one.day == asked.day and one.labels != asked.labels,
    ),
    (
        "taught by singles of the day before",
        lambda one, asked: _number(one.day) == _number(asked.day) - 1 and len(one.shares) == 1,
    ),
)


def load_exposures(data: Dataset) -> list[MixtureExposure]:
    """Return the exposures of the published mixtures whose rows are in the order of time.

    Raises
    ------
    DataError: no recording has a day in its name.
    """
    ordered = data.drop_unordered()
    rows: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    shares: dict[str, tuple[str, dict[str, float]]] = {}
    lowest: dict[str, NDArray[np.float64]] = {}
    names = zip(ordered.samples, mixture_days(ordered), mixture_exposures(ordered), strict=True)
    for sample, day, name in names:
        if not day:
            continue
        # The tenths in some files identify their session; boards send whole counts.
        signals = log_signals(np.rint(sample.values))[:, : len(GROVE_INDICES)]
        rows[name].append(plateau(signals, sample.rate_hz))
        low = np.nanmin(signals, axis=0)
        lowest[name] = np.minimum(lowest.get(name, low), low)
        present = np.flatnonzero(sample.target)
        shares[name] = (day, {ordered.labels[k]: float(sample.target[k]) for k in present})
    if not rows:
        raise DataError(
            "Expected published mixture recordings, with the id of their exposure in the names "
            "(apple_50_pear_50.629fjk9g.csv), found none."
        )
    return [
        MixtureExposure(name, *shares[name], np.array(found), lowest[name])
        for name, found in sorted(rows.items())
    ]


def real_pairs(exposures: Sequence[MixtureExposure], teaching: Teaching) -> list[UnmixingTrial]:
    """Return how often the exact set of a pair is found among those of the taught smells."""
    name, may_teach = teaching
    hits: dict[int, list[float]] = defaultdict(list)
    rng = np.random.default_rng(0)
    for asked in exposures:
        taught = [one for one in exposures if may_teach(one, asked)]
        known = {label for one in taught for label in one.shares}
        if len(asked.shares) != _PAIR or not asked.labels <= known:
            continue
        # There is no clean air in these recordings; the lowest reading is the nearest to it.
        air = np.min([one.lowest for one in taught], axis=0)
        unmixing = fit_unmixing(
            [
                TaughtResponse(one.shares, one.day, row - air)
                for one in taught
                for row in one.responses
            ],
            Priors.of_channels(range(len(GROVE_INDICES))),
            session=asked.day,
        )
        for count in TAUGHT:
            if count <= len(known):
                hits[count].append(_share_exact(unmixing, asked, air, count, rng))
    return [
        _trial("real", f"a pair among {count} smells, {name}", hits[count], 2 / count / (count - 1))
        for count in TAUGHT
        if hits[count]
    ]


def _share_exact(
    unmixing: Unmixing,
    asked: MixtureExposure,
    air: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> float:
    """Return how often the pair is the likeliest of those of `count` smells, drawn by chance."""
    true = np.array([label in asked.shares for label in unmixing.labels])
    scored = [_set_scores(unmixing, row - air) for row in asked.responses]
    sets, scores = scored[0][0], np.array([one for _, one in scored])
    pairs = sets.sum(axis=1) == _PAIR
    right = []
    for _ in range(DRAWS):
        chosen = true.copy()
        chosen[rng.choice(np.flatnonzero(~true), count - _PAIR, replace=False)] = True
        possible = np.flatnonzero(pairs & ~(sets & ~chosen).any(axis=1))
        best = possible[scores[:, possible].argmax(axis=1)]
        right.append((sets[best] == true).all(axis=1).mean())
    return float(np.mean(right))


def _set_scores(
    unmixing: Unmixing, response: NDArray[np.float64], *, even: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which labels each set holds, bool[sets, labels], and its log likelihood.

    A set's likelihood is the mean over its proportions, or that of even ones alone.
    """
    shares, log_likelihood = unmixing.log_compositions(response)
    if even:
        parts = (shares > 0).sum(axis=1, keepdims=True)
        is_even = (np.abs(shares * parts - (shares > 0)) < _NEARLY).all(axis=1)
        shares, log_likelihood = shares[is_even], log_likelihood[is_even]
    sets, owner, size = np.unique(shares > 0, axis=0, return_inverse=True, return_counts=True)
    scores = np.full(len(sets), -np.inf)
    np.logaddexp.at(scores, owner.reshape(-1), log_likelihood)
    return sets, scores - np.log(size)


def simulated_mixtures(
    channels: Iterable[str], exposures: int = 1, *, equal: bool = False
) -> list[UnmixingTrial]:
    """Return how often single smells and even pairs of twelve are found on another simulated day.

    Parameters
    ----------
    channels: that the board has.
    exposures: of each smell that are taught, all on one day.
    equal: whether the exposures of a smell are equal but for noise, weather and the day; else they
        differ as the published recordings of a substance do.
    """
    board = load_board(SUBSTANCE_BOARD)
    if equal:
        first = {name: takes[:1] for name, takes in board.fingerprints.items()}
        board = dataclasses.replace(board, fingerprints=first)
    columns = [GAS_INDICES.index(channel_index(name)) for name in channels]
    free: list[bool] = []
    among: list[bool] = []
    for taught_day, asked_day in SIMULATED_DAYS:
        taught = [
            simulated_response((label,), taught_day, seed, columns, board)
            for label in SIMULATED_SMELLS
            for seed in range(exposures)
        ]
        unmixing = fit_unmixing(taught, Priors.of_channels(columns))
        for number, odour in enumerate(SIMULATED_ODOURS):
            seed = FIRST_ASKED_SEED + number
            response = simulated_response(odour, asked_day, seed, columns, board).response
            true = np.isin(unmixing.labels, odour)
            free.append(set(unmixing.estimate(response).likeliest) == set(odour))
            sets, scores = _set_scores(unmixing, response, even=True)
            scores[sets.sum(axis=1) > _PAIR] = -np.inf
            among.append(bool((sets[int(scores.argmax())] == true).all()))
    times = "once" if exposures == 1 else f"{exposures} times"
    what = f"singles and even pairs of 12, each taught {times} on another day"
    if equal:
        what += ", exposures of a smell being equal"
    possible = sum(math.comb(len(SIMULATED_SMELLS), size) for size in range(1, MOST_PARTS + 1))
    return [
        _trial("simulated", f"{what}; nothing else known", free, 1 / possible),
        _trial("simulated", f"{what}; known to be one of these", among, 1 / len(SIMULATED_ODOURS)),
    ]


def simulated_ceiling(channels: Iterable[str], *, same_exposure: bool) -> UnmixingTrial:
    """Return what the spread between the simulator's exposures alone leaves to be found.

    The answer is the likeliest of all single smells and even pairs, by a normal distribution with
    the covariance between the recordings of a smell (all smells of the board pooled), carried
    through the mixing law to first order. Neither days nor unknown exponents stand in the way.

    Parameters
    ----------
    channels: that the board has.
    same_exposure: the smells in a mixture are as they were taught, not of another recording.
    """
    board = load_board(SUBSTANCE_BOARD)
    columns = [GAS_INDICES.index(channel_index(name)) for name in channels]
    exponents = np.array(GAS_EXPONENTS)[columns]
    shares = np.zeros((len(SIMULATED_ODOURS), len(SIMULATED_SMELLS)))
    for row, odour in enumerate(SIMULATED_ODOURS):
        shares[row, [SIMULATED_SMELLS.index(name) for name in odour]] = 1.0 / len(odour)
    takes = {
        name: np.array([take.response[columns] for take in own])
        for name, own in board.fingerprints.items()
    }
    between = np.zeros((len(columns), len(columns)))
    if not same_exposure:  # those of the taught and of the asked exposure add up
        between = 2.0 * np.mean([np.cov(own.T) for own in takes.values()], axis=0)
    rng = np.random.default_rng(0)

    def draw() -> NDArray[np.float64]:
        chosen = [takes[name][int(rng.integers(len(takes[name])))] for name in SIMULATED_SMELLS]
        return np.array(chosen)

    hits: list[bool] = []
    for _ in range(DRAWS):
        taught = draw()
        asked = mixed_response(taught if same_exposure else draw(), shares, exponents)
        asked = asked + _REPEATABILITY * rng.normal(size=asked.shape)
        slopes = mixed_slopes(taught, shares, exponents)
        covariance = np.einsum("ogc,ogd->ocd", slopes, slopes) * between
        covariance += _REPEATABILITY**2 * np.eye(len(columns))
        difference = asked[:, np.newaxis] - mixed_response(taught, shares, exponents)
        inverse = np.linalg.inv(covariance)
        distance = np.einsum("aoc,ocd,aod->ao", difference, inverse, difference)
        distance += np.linalg.slogdet(covariance)[1]
        hits += (distance.argmin(axis=1) == np.arange(len(asked))).tolist()
    which = "the same exposures" if same_exposure else "other exposures"
    what = f"ceiling: the likeliest of singles and even pairs of 12, spread known, {which}"
    return _trial("simulated", what, hits, 1 / len(SIMULATED_ODOURS))


def simulated_response(
    odour: Sequence[str], day: int, seed: int, columns: Sequence[int], board: BoardModel
) -> TaughtResponse:
    """Return the plateau of even parts above clean air on a simulated day.

    `columns` are the board's channels among the eight of `GAS_INDICES`.
    """
    parts = {name: 1.0 / len(odour) for name in odour}
    text = "+".join(f"{name}={share}" for name, share in parts.items())
    signal = SyntheticSignal(f"air:{AIR_S},{text}:{SMELL_S}", seed=seed, day=day, board=board)
    signals = log_signals(np.array(list(signal)))[:, list(columns)]
    onset = round(AIR_S * signal.rate_hz)
    clean_air = plateau(signals[:onset], signal.rate_hz)
    response = plateau(signals[onset:], signal.rate_hz) - clean_air
    return TaughtResponse(parts, str(day), response, clean_air)


def _trial(data: str, what: str, hits: Sequence[float], chance: float) -> UnmixingTrial:
    weights = resample_counts(len(hits)).astype(np.float64)
    means = weights @ np.array(hits) / len(hits)
    return UnmixingTrial(
        data, what, float(np.mean(hits)), percentile_interval(means), chance, len(hits)
    )


def _number(day: str) -> int:
    return int(day.rpartition(" ")[2])
