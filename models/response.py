"""Models: the response of a board: what its channels do above their own clean air.

May import numpy and models. Pure: log-conductances with their times in, rows of features out; one
implementation serves the live stream, the library of taught smells and the evaluation.

A board's levels tell the board, its responses tell the smell. The direction of the response over
the channels hardly depends on how strong a smell is: by the sensors' power law a concentration
scales all channels' log responses alike to first order (Clifford and Tuma, Sensors and Actuators
3, 1983). Its size and its changes over a few lags say how the exposure goes on. On recordings of
another day of the same rig these features name more than absolute values or lags alone do; the
figures are those of `scent-train rigs`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from hardware.channels import N_GAS
from models.signals import GAS_NAMES, GROVE_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    ResponseRow = tuple[NDArray[np.float64], NDArray[np.float64]]
    """A row's response float64[8] and changes float64[len(LAGS_S), 8]."""

LAGS_S = (10.0, 50.0)
"""Seconds of the differences: an onset lasts some ten, a rise about a minute."""

ROW_S = 5.0
"""Seconds between rows: neighbouring readings say the same."""

SMALLEST_SIZE = 0.2
"""A response below this, in log-conductance over all channels, has no direction worth the name:
one count of a Grove channel at 100 counts is .01, drift within an hour .1."""

LONGEST_GAP_S = 15.0
"""Between two samples that are interpolated; the slowest board sends every 10 s."""

HOLD_S = 10.0
"""A channel that cannot be used keeps its last value for so long."""

RECOGNISER_SIGNALS = (*GROVE_SIGNALS, GAS_NAMES.index("Gas_Resistance"))
"""Places of the signals that the rig's recogniser uses. The MQ parts help within a session and hurt
on another day (published recordings), and none of the other real rigs has them."""

N_FEATURES = len(RECOGNISER_SIGNALS) * (2 + len(LAGS_S)) + 1


@dataclass(frozen=True, slots=True, eq=False)
class ResponseRows:
    """The response of an exposure, one row every `ROW_S`.

    Attributes
    ----------
    response: float64[rows, 8], log-conductances above clean air; NaN where unusable.
    changes: float64[rows, len(LAGS_S), 8], changes of the log-conductances over the lags.
    """

    response: NDArray[np.float64]
    changes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.response)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> ResponseRows:
        return ResponseRows(self.response[rows], self.changes[rows])

    @classmethod
    def of(cls, rows: Sequence[ResponseRow]) -> Self:
        """Return rows as they came from a `ResponseStream`."""
        return cls(
            np.array([response for response, _ in rows]).reshape(-1, N_GAS),
            np.array([changes for _, changes in rows]).reshape(-1, len(LAGS_S), N_GAS),
        )

    @property
    def size(self) -> NDArray[np.float64]:
        """float64[rows], Euclidean norm of the recogniser's signals of the response."""
        chosen = self.response[:, RECOGNISER_SIGNALS]
        size: NDArray[np.float64] = np.sqrt(np.nansum(chosen**2, axis=1))
        return size

    def features(self) -> NDArray[np.float64]:
        """Return the recogniser's input, float64[rows, N_FEATURES].

        Direction of the response, the logarithm of its size, the response, and its changes over
        `LAGS_S`. NaN where the channel is.
        """
        response = self.response[:, RECOGNISER_SIGNALS]
        bounded = np.maximum(self.size, SMALLEST_SIZE)[:, np.newaxis]
        changes = [self.changes[:, lag, RECOGNISER_SIGNALS] for lag in range(len(LAGS_S))]
        return np.concatenate([response / bounded, np.log(bounded), response, *changes], axis=1)


class ResponseStream:
    """Makes rows of the response out of samples, from the onset on.

    A row's signals, and those of its lags, are interpolated between the samples around its time, so
    that boards of any rate and jitter give comparable rows. What lies before the first sample is
    clean air.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._last_usable = np.full(N_GAS, np.nan)
        self._usable_s = np.full(N_GAS, -np.inf)
        self._clean_air: NDArray[np.float64] | None = None
        self._next_s = 0.0

    def start(self, clean_air: NDArray[np.float64], onset_s: float) -> None:
        """Begin an exposure in clean air float64[8], with a row at `onset_s`."""
        self._clean_air = clean_air
        self._next_s = onset_s

    def stop(self) -> None:
        """End the exposure."""
        self._clean_air = None

    def clear(self) -> None:
        """Forget all samples: they do not continue."""
        self.stop()
        self._samples.clear()
        self._usable_s[:] = -np.inf

    def add(self, t_s: float, signals: NDArray[np.float64]) -> list[ResponseRow]:
        """Add the sample at `t_s`, float64[8]; return the rows that it completes."""
        self._samples.append((t_s, self._held(t_s, signals)))
        oldest_s = t_s - LAGS_S[-1] - 2.0 * ROW_S
        while self._samples[0] is not self._samples[-1] and self._samples[1][0] <= oldest_s:
            self._samples.popleft()
        rows = []
        while self._clean_air is not None and self._next_s <= t_s:
            now = self._at(self._next_s, self._clean_air)
            if now is not None:
                rows.append(self._row(now, self._next_s, self._clean_air))
            self._next_s += ROW_S
        return rows

    def _held(self, t_s: float, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        usable = np.isfinite(signals)
        self._usable_s = np.where(usable, t_s, self._usable_s)
        self._last_usable = np.where(usable, signals, self._last_usable)
        return np.where(t_s - self._usable_s <= HOLD_S, self._last_usable, np.nan)

    def _row(
        self, now: NDArray[np.float64], t_s: float, clean_air: NDArray[np.float64]
    ) -> ResponseRow:
        changes = np.full((len(LAGS_S), N_GAS), np.nan)
        for number, lag_s in enumerate(LAGS_S):
            before = self._at(t_s - lag_s, clean_air)
            if before is not None:
                changes[number] = now - before
        return now - clean_air, changes

    def _at(self, t_s: float, clean_air: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the signals at a time: interpolated, or clean air before the first sample.

        None within a gap that is too long.
        """
        later = before = None
        for sample in reversed(self._samples):
            if sample[0] <= t_s:
                before = sample
                break
            later = sample
        if before is None:
            return clean_air
        if later is None or before[0] == t_s:
            return before[1]
        gap_s = later[0] - before[0]
        if gap_s > LONGEST_GAP_S:
            return None
        mixed: NDArray[np.float64] = before[1] + (t_s - before[0]) / gap_s * (later[1] - before[1])
        return mixed
