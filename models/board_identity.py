"""Models: whether a board is one like that on which a model was trained.

May import hardware, models.preprocess, models.ring and numpy. Pure: no clock, no files.

A network's names mean something only on boards whose readings resemble those of its training
board. The same parts on two boards differ in their resistance in clean air and in the load of
their divider, so that the same air gives other levels, above all of one channel against another.
A window of readings is therefore compared with the training recordings by its mean
log-conductances: the test is the distance to the nearest one (Ramaswamy et al., Proc. SIGMOD
2000), in units of their covariance, in which what all channels have in common counts less, since
that is how strong an odour is. `scent-train boards` compares this test with others on other
sessions of the training board and on other boards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from hardware.channels import CHANNELS, Part, channel_index
from models.preprocess import Lineariser, PreprocessSpec
from models.ring import RingBuffer
from models.signals import GAS_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

BOARD_LEVELS = "board_levels"
"""Name of the array of a bundle: float32[recordings, channels], mean log-conductances."""

BOARD_AIR = "board_air"
"""Name of the array of a bundle whose training recordings begin in clean air: float32[recordings,
channels], log-conductances of that clean air."""

COMMON_WEIGHT = 0.3
"""What a difference that all channels share counts, against one between them. Of 1, .3, .1 and 0
it is the one that finds both other boards of unlike odours and other boards that resemble a
mixture model's many days (`scent-train boards`)."""

SMALLEST_SPREAD = 0.05
"""Standard deviation, in log-conductance, that every channel has at the least: some counts."""

LARGEST_DISTANCE = 4.0
"""Above which a window's distance counts no more: one odour like no other says no more than that
it does not fit."""

MEMORY_S = 600.0
"""A board remains the same board: judgements of single windows fade with this time, so that neither
an unusual odour on the model's own board nor one that suits another board decides alone."""

WATCHED_S = 30.0
"""Seconds of readings before which a board is not known to be the model's own. Two of sixteen
recordings of the rig ai-nose resemble a mixture model's board for the first 25 s, until the odour
has risen."""

FEW_S = 120.0
"""Seconds of readings before which every window must be like those of the model's own board; later
a mean over the last minutes decides. Recordings of held-out sessions are thereby known after a
minute in .92 instead of .95 (mixtures-12; of substances-50 in .89 either way)."""

FOREIGN_BOARD = (
    "the readings are unlike those of the board that the model was trained on, so its names mean "
    "nothing here; teach the rig its smells (scentd enroll), which does more on real boards than "
    "calibrating it (scentd calibrate)"
)
"""Why a model's own labels are not announced, and what to do."""

FEWEST_CHANNELS = 2
"""One channel has no difference to another."""


@dataclass(frozen=True, slots=True)
class BoardFigures:
    """What a manifest says of the board, or boards, on which a model was trained.

    Attributes
    ----------
    channels: the channels that are compared, in the order of the array `BOARD_LEVELS`.
    limit: squared distance to the nearest training recording from which on a board is another.
    air_limit: the same of clean air, None where the training recordings do not begin in it.
    sessions, recordings: how many were measured; without named sessions, labels count as such.
    """

    channels: tuple[str, ...]
    limit: float
    sessions: int
    recordings: int
    air_limit: float | None = None

    def problems(self) -> Iterator[str]:
        """Yield what cannot be."""
        names = {channel.name for channel in CHANNELS if channel.part is not Part.ENVIRONMENT}
        if len(self.channels) < FEWEST_CHANNELS or not names.issuperset(self.channels):
            yield f"channels must be two or more gas channels, got {list(self.channels)}"
        for name, limit in (("limit", self.limit), ("air_limit", self.air_limit)):
            if limit is not None and not (limit > 0 and math.isfinite(limit)):
                yield f"{name} must be positive, got {limit}"


class TrainingBoard:
    """The levels of the training recordings, and how far a board's are from them.

    Parameters
    ----------
    channels: that are compared.
    levels: float[recordings, channels], mean log-conductances.
    limit: squared distance from which on a board is another one.
    air: the same of clean air alone, where it is known.
    """

    def __init__(
        self,
        channels: tuple[str, ...],
        levels: NDArray[np.floating],
        limit: float,
        air: TrainingBoard | None = None,
    ) -> None:
        self.channels = channels
        self.air = air
        self._levels = levels.astype(np.float64)
        self._limit = limit
        self._covariance = level_covariance(self._levels)
        self._of_channels: dict[bytes, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    @classmethod
    def from_bundle(
        cls, figures: BoardFigures | None, arrays: Mapping[str, NDArray[np.floating]]
    ) -> Self | None:
        """Return a bundle's training board, None for a bundle that says nothing of it."""
        if figures is None or BOARD_LEVELS not in arrays:
            return None
        air = None
        if figures.air_limit is not None and BOARD_AIR in arrays:
            air = TrainingBoard(figures.channels, arrays[BOARD_AIR], figures.air_limit)
        return cls(figures.channels, arrays[BOARD_LEVELS], figures.limit, air)

    def distance_of_signals(self, signals: NDArray[np.float64]) -> float:
        """Return the `distance` of log-conductances float64[8], in the order of `GAS_NAMES`."""
        return self.distance(signals[[GAS_NAMES.index(name) for name in self.channels]])

    def distance_of(self, values: NDArray[np.float32]) -> float:
        """Return the `distance` of readings float32[n, 12], NaN where unusable."""
        return self.distance(mean_levels(log_levels(self.channels)(values)))

    def distance(self, levels: NDArray[np.float64]) -> float:
        """Return how far a window is from the nearest recording: above 1 it is another board's.

        Parameters
        ----------
        levels: float64[channels], mean log-conductances; NaN where unusable.

        Returns
        -------
        The squared distance over the limit, which is smaller for fewer channels in proportion;
        NaN where fewer than two channels are usable.
        """
        known = np.flatnonzero(np.isfinite(levels))
        if len(known) < FEWEST_CHANNELS:
            return math.nan
        key = known.tobytes()
        if key not in self._of_channels:
            # The same channels at every window: their inverse takes longer than the distances.
            among = self._covariance[np.ix_(known, known)]
            inverse = np.asarray(np.linalg.inv(among), np.float64)
            self._of_channels[key] = self._levels[:, known], inverse
        nearest = _squared(levels[np.newaxis, known], *self._of_channels[key]).min()
        return float(nearest) * len(levels) / (len(known) * self._limit)


def level_covariance(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance of levels[recordings, channels] in which distances are measured.

    A variance that all channels share is added until what they have in common counts
    `COMMON_WEIGHT` of what it did.
    """
    count = levels.shape[1]
    deviation = levels - levels.mean(axis=0)
    covariance = deviation.T @ deviation / len(levels) + np.eye(count) * SMALLEST_SPREAD**2
    widened: NDArray[np.float64] = covariance + (1.0 / COMMON_WEIGHT - 1.0) * covariance.mean()
    return widened


def squared_distances(
    levels: NDArray[np.float64], others: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return float64[n, m], squared Mahalanobis distances of levels[n] to others[m]."""
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    return _squared(levels, others, inverse)


def _squared(
    levels: NDArray[np.float64], others: NDArray[np.float64], inverse: NDArray[np.float64]
) -> NDArray[np.float64]:
    steps = levels[:, np.newaxis] - others
    squared: NDArray[np.float64] = np.einsum("nmi,ij,nmj->nm", steps, inverse, steps)
    return squared


def compared_channels(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channels of a model by which boards are compared; none if it has too few.

    Those of the Grove part, which all boards have; without two of them, all gas channels. The
    ppm of the MQ parts are arbitrary per rig, and a plate or an MQ part is missing on many.
    """
    parts = {name: CHANNELS[channel_index(name)].part for name in channels}
    grove = tuple(name for name in channels if parts[name] is Part.GROVE)
    gases = tuple(name for name in channels if parts[name] is not Part.ENVIRONMENT)
    return next((kind for kind in (grove, gases) if len(kind) >= FEWEST_CHANNELS), ())


def mean_levels(signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the means float64[channels] of signals[rows, channels]; NaN where all are NaN."""
    usable = np.isfinite(signals)
    count = usable.sum(axis=0)
    total = np.where(usable, signals, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def log_levels(channels: tuple[str, ...]) -> Lineariser:
    """Return what turns readings into the log-conductances of the compared channels."""
    return Lineariser(PreprocessSpec(channels=channels, rate_hz=1.0))


class BoardIdentity:
    """Judges whether the samples of one model's stream come from a board like its own.

    Where the clean air of the model's board and of this one are known, they decide. Else windows
    do: beyond the limit in the mean of the last minutes it is another board; it is the model's own
    once it has been watched for `WATCHED_S`, and in its first `FEW_S` only if every window was.

    Parameters
    ----------
    board: of the model's training.
    rows: samples of a window.
    rate_hz: of the samples.

    Attributes
    ----------
    foreign: whether it is another board; None while that is not known.
    """

    def __init__(self, board: TrainingBoard, rows: int, rate_hz: float) -> None:
        self._board = board
        self._log_levels = log_levels(board.channels)
        self._rows = RingBuffer(rows, len(board.channels))
        self._rate_hz = rate_hz
        self._sum = self._weight = 0.0
        self._watched_s = self._furthest = 0.0
        self._judged_ms: int | None = None
        self.foreign: bool | None = None

    def extend(self, values: NDArray[np.float32]) -> None:
        """Add samples float32[n, 12], NaN where unusable."""
        self._rows.append(self._log_levels(values))

    def judge(self, t_ms: int, clean_air: NDArray[np.float64] | None = None) -> None:
        """Judge the newest samples, the last of which was read at `t_ms`.

        `clean_air` float64[8] are log-conductances of this board as it measures them, None where
        that is not known.
        """
        distance = self._board.distance(mean_levels(self._rows.view(len(self._rows))))
        if not math.isnan(distance):
            self._add(distance, t_ms)
        air = self._board.air
        if air is not None and clean_air is not None:
            air_distance = air.distance_of_signals(clean_air)
            if not math.isnan(air_distance):
                self.foreign = air_distance > 1.0

    def _add(self, distance: float, t_ms: int) -> None:
        window_s = len(self._rows) / self._rate_hz
        since_s = window_s if self._judged_ms is None else (t_ms - self._judged_ms) / 1000.0
        fade = 0.0 if self._judged_ms is None else math.exp(-since_s / MEMORY_S)
        self._sum = self._sum * fade + min(distance, LARGEST_DISTANCE)
        self._weight = self._weight * fade + 1.0
        self._watched_s += min(since_s, window_s)
        self._furthest = max(self._furthest, distance)
        self._judged_ms = t_ms
        self.foreign = self._sum > self._weight
        few = self._watched_s < FEW_S and self._furthest > 1.0
        if not self.foreign and (self._watched_s < WATCHED_S or few):
            self.foreign = None
