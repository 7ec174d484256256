"""Trainer: what one recording, and one board's recordings, give the simulator's tables.

May import everything below and scipy. Must never import torch: this runs in seconds anywhere.

A recording is split in two. The slow part, level and transients, is a sum of exponentials with
fixed times, fitted by ridge regression: a fingerprint. The rest is noise, whose covariance
between channels over a ladder of lags (the structure function) is explained by a few bands of
smooth noise plus independent noise in every reading, by non-negative least squares. Both parts are
linear fits, so nothing has to converge and nothing needs a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear, nnls

from hardware.channels import CHANNELS, GAS_INDICES, GROVE_FULL_SCALE, Part
from hardware.simulator.tables import MIXTURE_BOARD, RELAXATION_TIMES_S, SUBSTANCE_BOARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset

    Floats = NDArray[np.float64]
    Recordings = dict[str, list[Floats]]
    """float64[n, c] by substance, NaN where unusable."""

_FLOOR_PPM = 0.3
"""An MQ part that sends 0 most of the time has a level somewhere below one half."""
_SMOOTH_ROWS = 15
"""Rows averaged before the logarithm of an MQ part's integer: ln 0, ln 1, ln 2 are no trend."""
_SKIPPED_ROWS = 3
"""First rows can be start-up garbage."""
_RIDGE = 1.5
_CLEAN_AIR_QUANTILE = 0.1
"""Clean air was never recorded. The level that a tenth of the recordings lie below replaces it."""
_RISE_WINDOW_S, _FALL_WINDOW_S = 40.0, 100.0
"""How much of a recording's beginning shows how fast a sensor follows; a longer window would
mistake the oxide's slow relaxation for the sensor's lag."""
_BIG_RISE, _BIG_FALL = 0.4, 0.15
_MIN_ROWS = 100


@dataclass(frozen=True, slots=True)
class BoardKind:
    """What differs between the two published kinds of recording."""

    name: str
    rate_hz: float
    middle_s: float
    """Time for which a fingerprint's response is stated, mid-recording."""
    sensors: tuple[int, ...]
    """The gas channels, as indices of the channel table."""
    band_times_s: tuple[float, ...]
    """Correlation times of the fluctuations."""
    lags: tuple[int, ...]
    """Rows over which fluctuations are compared."""

    @property
    def parts(self) -> list[Part]:
        """The sensor part of each channel."""
        return [CHANNELS[index].part for index in self.sensors]


SUBSTANCE_KIND = BoardKind(
    SUBSTANCE_BOARD,
    rate_hz=1.0,
    middle_s=300.0,
    sensors=GAS_INDICES,
    band_times_s=(2.0, 8.0, 30.0),
    lags=(1, 2, 3, 5, 8, 12, 18, 25, 35, 50),
)
MIXTURE_KIND = BoardKind(
    MIXTURE_BOARD,
    rate_hz=10.0,
    middle_s=30.0,
    sensors=GAS_INDICES[:4],
    band_times_s=(0.4, 1.5, 5.0),
    lags=(1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 80),
)


@dataclass(frozen=True, slots=True, eq=False)
class FittedFingerprint:
    """The slow part of one recording, and the rest; NaN where a channel was not measured."""

    level: Floats
    """float64[c], log-conductance at `BoardKind.middle_s`."""
    relaxation: Floats
    """float64[c, 5]."""
    rise_s: Floats
    fall_s: Floats
    """float64[c] both, time to 63 % of a large first change, NaN where there is none."""
    residual: Floats
    """float64[n, c], the recording without its slow part."""
    rounding: Floats
    """float64[c], variance that rounding to what the part sends adds by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedBoard:
    """All of one board's recordings, fitted."""

    kind: BoardKind
    fingerprints: dict[str, list[FittedFingerprint]]

    def clean_air(self) -> Floats:
        """Return float64[c], the log-conductance that stands for clean air."""
        levels = [one.level for fitted in self.fingerprints.values() for one in fitted]
        air: Floats = np.nanquantile(levels, _CLEAN_AIR_QUANTILE, axis=0)
        return air

    def covariances(self) -> dict[str, Floats]:
        """Return each substance's fluctuations, as `band_covariance`."""
        return {
            substance: band_covariance(fitted, self.kind)
            for substance, fitted in self.fingerprints.items()
        }


def recordings_by_substance(data: Dataset, kind: BoardKind) -> Recordings:
    """Return the recordings of one substance alone, with the kind's channels."""
    recordings: Recordings = {}
    for sample in data.samples:
        if sample.target.max() == 1:
            label = data.labels[int(sample.target.argmax())]
            values = sample.values[:, kind.sensors].astype(np.float64)
            recordings.setdefault(label, []).append(values)
    return dict(sorted(recordings.items()))


def fit_board(recordings: Recordings, kind: BoardKind) -> FittedBoard:
    """Fit every recording that is long enough."""
    fitted = {
        name: [fit_fingerprint(values, kind) for values in some if len(values) >= _MIN_ROWS]
        for name, some in recordings.items()
    }
    return FittedBoard(kind, {name: some for name, some in fitted.items() if some})


def fit_fingerprint(values: Floats, kind: BoardKind) -> FittedFingerprint:
    """Split a recording, float64[n, c], into its slow part and the rest."""
    numbers = np.column_stack([_bridge(column) for column in values.T])
    signals, rounding = _log_conductance(numbers, kind)
    n_rows, n_channels = signals.shape
    t_s = np.arange(n_rows) / kind.rate_hz
    times_s = np.array(RELAXATION_TIMES_S)
    # Each exponential is zero at the middle of a recording.
    relaxations = np.exp(-t_s[:, None] / times_s) - np.exp(-kind.middle_s / times_s)
    basis = np.column_stack([np.ones(n_rows), relaxations])
    measured = ~np.isnan(signals).any(axis=0)
    rest = slice(min(_SKIPPED_ROWS, n_rows - 1), None)
    penalty = np.diag([0.0, *[_RIDGE * kind.rate_hz] * len(times_s)])
    coefficients = np.full((basis.shape[1], n_channels), np.nan)
    normal = basis[rest].T @ basis[rest] + penalty
    coefficients[:, measured] = np.linalg.solve(normal, basis[rest].T @ signals[rest][:, measured])
    trend = basis @ coefficients
    residual = signals - trend
    for column, part in enumerate(kind.parts):
        if part is Part.MQ:  # as a fraction of its ppm
            expected = np.maximum(np.exp(trend[:, column]), _FLOOR_PPM)
            residual[:, column] = np.maximum(numbers[:, column], 0.0) / expected - 1.0
    return FittedFingerprint(
        level=coefficients[0],
        relaxation=coefficients[1:].T,
        rise_s=_time_to_most(trend, _RISE_WINDOW_S, kind.rate_hz, _BIG_RISE),
        fall_s=_time_to_most(-trend, _FALL_WINDOW_S, kind.rate_hz, _BIG_FALL),
        residual=residual[rest],
        rounding=rounding,
    )


def _log_conductance(numbers: Floats, kind: BoardKind) -> tuple[Floats, Floats]:
    """Return log-conductances float64[n, c] and the variance that rounding adds, float64[c]."""
    signals = np.full(numbers.shape, np.nan)
    rounding = np.zeros(numbers.shape[1])
    for column, part in enumerate(kind.parts):
        own = numbers[:, column]
        if np.isnan(own).any():
            continue
        if part is Part.GROVE:
            count = np.clip(own, 1, GROVE_FULL_SCALE - 1)
            signals[:, column] = np.log(count / (GROVE_FULL_SCALE - count))
            middle = float(np.median(count))
            slope = GROVE_FULL_SCALE / (middle * (GROVE_FULL_SCALE - middle))
            rounding[column] = slope**2 / 12
        elif part is Part.MQ:
            padded = np.pad(np.maximum(own, 0.0), _SMOOTH_ROWS // 2, mode="edge")
            ppm = np.convolve(padded, np.full(_SMOOTH_ROWS, 1 / _SMOOTH_ROWS), mode="valid")
            signals[:, column] = np.log(np.maximum(ppm, _FLOOR_PPM))
            rounding[column] = 1 / (12 * max(float(np.median(ppm)), _FLOOR_PPM) ** 2)
        else:
            signals[:, column] = -np.log(own)
    return signals, rounding


def _bridge(numbers: Floats) -> Floats:
    """Bridge unusable readings by straight lines; NaN throughout where they are more than half."""
    good = np.isfinite(numbers)
    if np.count_nonzero(good) * 2 < len(numbers):
        return np.full(len(numbers), np.nan)
    rows = np.arange(len(numbers))
    return np.interp(rows, rows[good], numbers[good])


def _time_to_most(trend: Floats, window_s: float, rate_hz: float, smallest: float) -> Floats:
    """Return the time to 63 % of the rise within the window, NaN where the rise is small."""
    moved = trend[: int(window_s * rate_hz)] - trend[0]
    whole = moved[-1]
    reached = np.argmax(moved >= whole * (1 - np.exp(-1)), axis=0)
    return np.where(whole > smallest, np.maximum(reached, 1), np.nan) / rate_hz


def band_covariance(fitted: Sequence[FittedFingerprint], kind: BoardKind) -> Floats:
    """Explain the structure function E[(r(t+h) - r(t))(r(t+h) - r(t))'] by bands of noise.

    Returns
    -------
    float64[bands + 1, c, c], the covariance in each band; last that of independent noise.
    """
    lags = np.array(kind.lags)
    structure = np.stack([_structure(fitted, lag) for lag in kind.lags])
    step = lags[:, None] / kind.rate_hz / np.array(kind.band_times_s)
    bands = 2 * (1 - (1 + step) * np.exp(-step))
    design = np.column_stack([bands, np.full(len(lags), 2.0)])
    n_channels = structure.shape[1]
    covariance = np.zeros((design.shape[1], n_channels, n_channels))
    # Relative errors count: small lags shape the fluctuations as much as large ones.
    for i in range(n_channels):
        if structure[:, i, i].max() > 0:
            weight = 1 / np.maximum(structure[:, i, i], 1e-9)
            covariance[:, i, i] = nnls(design * weight[:, None], structure[:, i, i] * weight)[0]
    for i in range(n_channels):
        for j in range(i):
            shared = _shared_bands(structure, covariance, bands, i, j)
            covariance[:-1, i, j] = covariance[:-1, j, i] = shared
    rounding = np.mean([one.rounding for one in fitted], axis=0)
    diagonal = np.arange(n_channels)
    covariance[-1, diagonal, diagonal] = np.maximum(covariance[-1].diagonal() - rounding, 0.0)
    return covariance


def _structure(fitted: Sequence[FittedFingerprint], lag: int) -> Floats:
    differences = np.concatenate([one.residual[lag:] - one.residual[:-lag] for one in fitted])
    counted = ~np.isnan(differences)
    filled = np.where(counted, differences, 0.0)
    pairs = counted.astype(np.float64).T @ counted.astype(np.float64)
    matrix: Floats = (filled.T @ filled) / np.maximum(pairs, 1.0)
    return matrix


def _shared_bands(structure: Floats, covariance: Floats, bands: Floats, i: int, j: int) -> Floats:
    """Return the covariance of two channels per band, within what their variances allow.

    Independent noise is each part's own, so only the bands are shared.
    """
    limit = np.sqrt(covariance[:-1, i, i] * covariance[:-1, j, j])
    possible = np.flatnonzero(limit)
    shared = np.zeros(len(limit))
    if len(possible):
        weight = 1 / np.sqrt(np.maximum(structure[:, i, i] * structure[:, j, j], 1e-18))
        design = bands[:, possible] * limit[possible] * weight[:, None]
        damping = 0.1 * np.eye(len(possible))
        fitted = lsq_linear(
            np.vstack([design, damping]),
            np.append(structure[:, i, j] * weight, np.zeros(len(possible))),
            bounds=(-1, 1),
        )
        shared[possible] = fitted.x * limit[possible]
    return shared
