"""Trainer: fit the simulator's tables to real recordings.

May import everything below and scipy. Must never import torch: this runs in seconds anywhere.

A recording is split in two. The slow part, level and transients, is a sum of exponentials with
fixed times, fitted by ridge regression: one *take*. What is left is noise, whose covariance
between channels over a ladder of lags (the structure function) is explained by a few bands of
smooth noise plus what is fresh in every reading, by non-negative least squares. Both parts are
linear fits, so there is nothing to converge and nothing to seed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear, nnls

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, Part
from hardware.simulator.scenario import AIR
from hardware.simulator.tables import (
    BOARDS_FILE,
    FINGERPRINTS_FILE,
    FLUCTUATIONS_FILE,
    GAS_SENSORS,
    MIXTURE_BOARD,
    N_GAS,
    RELAXATION_TIMES_S,
    SUBSTANCE_BOARD,
)
from training.data.dataset import load_mixtures, load_substances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.dataset import Dataset, FileProgress

    Recordings = dict[str, list[NDArray[np.float64]]]

# Exponents and humidity of such parts, from their makers' sensitivity curves (slope of log Rs
# over log concentration, and the spread of the curves at 30 and 85 %RH). An MQ part's "ppm" is
# already through the inverse power law, hence 1.
_EXPONENT = {"NO2": 0.5, "C2H5OH": 0.55, "VOC": 0.6, "CO": 0.5, "Gas_Resistance": 0.6}
_MQ_EXPONENT = 1.0
_HUMIDITY_PER_10RH = {Part.GROVE: 0.02, Part.MQ: 0.05, Part.BME_GAS: 0.05}

_FLOOR_PPM = 0.3
"""An MQ part that sends 0 most of the time has a level somewhere below one half."""
_SMOOTH_ROWS = 15
"""Rows averaged before the logarithm of an MQ part's integer: ln 0, ln 1, ln 2 are no trend."""
_SKIPPED_ROWS = 3
"""First rows can be start-up garbage."""
_RIDGE = 1.5
_CLEAN_AIR_QUANTILE = 0.1
"""Clean air was never recorded. The level that a tenth of the takes lie below stands for it."""
_CALM_SHARE = 0.25
"""Air trembles as the calmest quarter of the substances does."""
_BIG_RISE = 0.4
_BIG_FALL = 0.15
_MIN_TAKES_FOR_TIMES = 3
_MIN_ROWS = 100
_NEGLIGIBLE = 5e-6
"""A loading below this moves no digit that any part sends; its cell stays empty."""


@dataclass(frozen=True, slots=True)
class BoardKind:
    """What differs between the two published kinds of recording.

    Attributes
    ----------
    name: of the board in the tables.
    rate_hz: rows per second of its recordings.
    middle_s: time at which a take's response is stated, mid-recording.
    channels: names of the gas channels it was recorded with.
    band_times_s: correlation times of its fluctuations.
    lags: rows over which fluctuations are compared.
    rise_window_s, fall_window_s: how much of a recording's beginning shows how fast a sensor
        follows; a longer window would take the oxide's slow relaxation for the sensor's lag.
    """

    name: str
    rate_hz: float
    middle_s: float
    channels: tuple[str, ...]
    band_times_s: tuple[float, ...]
    lags: tuple[int, ...]
    rise_window_s: float = 40.0
    fall_window_s: float = 100.0


SUBSTANCE_KIND = BoardKind(
    SUBSTANCE_BOARD,
    rate_hz=1.0,
    middle_s=300.0,
    channels=tuple(CHANNELS[index].name for index in GAS_SENSORS),
    band_times_s=(2.0, 8.0, 30.0),
    lags=(1, 2, 3, 5, 8, 12, 18, 25, 35, 50),
)
MIXTURE_KIND = BoardKind(
    MIXTURE_BOARD,
    rate_hz=10.0,
    middle_s=30.0,
    channels=tuple(CHANNELS[index].name for index in GAS_SENSORS[:4]),
    band_times_s=(0.4, 1.5, 5.0),
    lags=(1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 80),
)


@dataclass(frozen=True, slots=True, eq=False)
class FittedFingerprint:
    """The slow part of one recording, and what it leaves.

    Arrays run over the kind's channels; rows are NaN where the channel was not measured.

    Attributes
    ----------
    level: float64[c], log-conductance at `BoardKind.middle_s`.
    relaxation: float64[c, 5].
    rise_s, fall_s: float64[c], time to 63 % of a large first change, NaN where there is none.
    residual: float64[n, c], what the slow part leaves.
    rounding: float64[c], variance that rounding to what the part sends adds by itself.
    """

    level: NDArray[np.float64]
    relaxation: NDArray[np.float64]
    rise_s: NDArray[np.float64]
    fall_s: NDArray[np.float64]
    residual: NDArray[np.float64]
    rounding: NDArray[np.float64]


def substance_recordings(data: Path, progress: FileProgress = iter) -> Recordings:
    """Return the recordings of base/LABEL/*.csv, float64[n, 8] each, NaN where unusable."""
    return _by_label(load_substances(data / "base", progress=progress), SUBSTANCE_KIND)


def mixture_recordings(data: Path, progress: FileProgress = iter) -> Recordings:
    """Return the mixture board's recordings of one substance alone, float64[n, 4] each.

    Files with tenths are left out: their rows are not in the order of time (each jumps at random
    over the range of the whole recording, which the files of integers cross in one slow curve),
    so they say nothing of transients or trembling.
    """
    alone = _by_label(load_mixtures(data / "mixture", progress=progress), MIXTURE_KIND)
    integers = {
        name: [values for values in some if np.array_equal(values, np.rint(values), equal_nan=True)]
        for name, some in alone.items()
    }
    return {name: some for name, some in integers.items() if some}


def _by_label(data: Dataset, kind: BoardKind) -> Recordings:
    """Sort out the recordings that hold one substance, with the kind's channels."""
    columns = list(GAS_SENSORS[: len(kind.channels)])
    recordings: Recordings = {}
    for sample in data.samples:
        if sample.target.max() == 1:
            label = data.labels[int(sample.target.argmax())]
            values = sample.values[:, columns].astype(np.float64)
            recordings.setdefault(label, []).append(values)
    return dict(sorted(recordings.items()))


def fit_fingerprint(values: NDArray[np.float64], kind: BoardKind) -> FittedFingerprint:
    """Split a recording, float64[n, c], into its slow part and the rest."""
    signals, rounding = _log_conductance(values, kind)
    n_rows, n_channels = signals.shape
    t_s = np.arange(n_rows) / kind.rate_hz
    basis = np.column_stack([np.ones(n_rows), _relaxations(t_s, kind)])
    measured = ~np.isnan(signals).any(axis=0)
    rest = slice(min(_SKIPPED_ROWS, n_rows - 1), None)
    penalty = np.diag([0.0, *[_RIDGE * kind.rate_hz] * len(RELAXATION_TIMES_S)])
    coefficients = np.full((basis.shape[1], n_channels), np.nan)
    normal = basis[rest].T @ basis[rest] + penalty
    coefficients[:, measured] = np.linalg.solve(normal, basis[rest].T @ signals[rest][:, measured])
    trend = basis @ coefficients
    residual = _residual(values, trend, kind)[rest]
    rise_s, fall_s = _first_change(trend, kind)
    return FittedFingerprint(
        level=coefficients[0],
        relaxation=coefficients[1:].T,
        rise_s=rise_s,
        fall_s=fall_s,
        residual=residual,
        rounding=rounding,
    )


def _relaxations(t_s: NDArray[np.float64], kind: BoardKind) -> NDArray[np.float64]:
    """Return float64[n, 5]: each exponential, zero at the middle of a recording."""
    times_s = np.array(RELAXATION_TIMES_S)
    basis: NDArray[np.float64] = np.exp(-t_s[:, None] / times_s) - np.exp(-kind.middle_s / times_s)
    return basis


def _parts(kind: BoardKind) -> list[Part]:
    by_name = {channel.name: channel.part for channel in CHANNELS}
    return [by_name[name] for name in kind.channels]


def _log_conductance(
    values: NDArray[np.float64], kind: BoardKind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-conductances float64[n, c] and the variance that rounding adds, float64[c].

    A channel that was unusable for more than half of the time is NaN throughout; shorter holes
    are bridged by straight lines.
    """
    signals = np.full(values.shape, np.nan)
    rounding = np.zeros(values.shape[1])
    for column, part in enumerate(_parts(kind)):
        numbers = _bridged(values[:, column])
        if numbers is None:
            continue
        if part is Part.GROVE:
            count = np.clip(numbers, 1, GROVE_FULL_SCALE - 1)
            signals[:, column] = np.log(count / (GROVE_FULL_SCALE - count))
            middle = float(np.median(count))
            slope = GROVE_FULL_SCALE / (middle * (GROVE_FULL_SCALE - middle))
            rounding[column] = slope**2 / 12
        elif part is Part.MQ:
            ppm = _smoothed(np.maximum(numbers, 0.0))
            signals[:, column] = np.log(np.maximum(ppm, _FLOOR_PPM))
            rounding[column] = 1 / (12 * max(float(np.median(ppm)), _FLOOR_PPM) ** 2)
        else:
            signals[:, column] = -np.log(numbers)
    return signals, rounding


def _bridged(numbers: NDArray[np.float64]) -> NDArray[np.float64] | None:
    good = np.isfinite(numbers)
    if np.count_nonzero(good) * 2 < len(numbers):
        return None
    rows = np.arange(len(numbers))
    return np.interp(rows, rows[good], numbers[good])


def _smoothed(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(numbers, _SMOOTH_ROWS // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTH_ROWS, 1 / _SMOOTH_ROWS), mode="valid")


def _residual(
    values: NDArray[np.float64], trend: NDArray[np.float64], kind: BoardKind
) -> NDArray[np.float64]:
    """Return what the trend leaves: in log-conductance, of an MQ part as a fraction of its ppm."""
    signals, _ = _log_conductance(values, kind)
    residual = signals - trend
    for column, part in enumerate(_parts(kind)):
        numbers = _bridged(values[:, column]) if part is Part.MQ else None
        if numbers is not None:
            expected = np.maximum(np.exp(trend[:, column]), _FLOOR_PPM)
            residual[:, column] = np.maximum(numbers, 0.0) / expected - 1.0
    return residual


def _first_change(
    trend: NDArray[np.float64], kind: BoardKind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the times to 63 % of the beginning's rise and fall, NaN where it is small."""
    return (
        _time_to_most(trend, int(kind.rise_window_s * kind.rate_hz), _BIG_RISE) / kind.rate_hz,
        _time_to_most(-trend, int(kind.fall_window_s * kind.rate_hz), _BIG_FALL) / kind.rate_hz,
    )


def _time_to_most(trend: NDArray[np.float64], rows: int, smallest: float) -> NDArray[np.float64]:
    """Return the rows to 63 % of the rise within the first `rows`, NaN where it is small."""
    moved = trend[:rows] - trend[0]
    whole = moved[-1]
    reached = np.argmax(moved >= whole * (1 - np.exp(-1)), axis=0)
    return np.where(whole > smallest, np.maximum(reached, 1), np.nan)


def fit_loadings(takes: Sequence[FittedFingerprint], kind: BoardKind) -> NDArray[np.float64]:
    """Return loadings, float64[bands + 1, c, c] lower triangular, fresh noise last."""
    covariance = _band_covariance(takes, kind)
    return np.stack([_lower_root(matrix) for matrix in covariance])


def _band_covariance(takes: Sequence[FittedFingerprint], kind: BoardKind) -> NDArray[np.float64]:
    """Explain the structure function E[(r(t+h) - r(t))(r(t+h) - r(t))'] by bands of noise."""
    lags = np.array(kind.lags)
    structure = np.stack([_structure(takes, lag) for lag in kind.lags])
    step = lags[:, None] / kind.rate_hz / np.array(kind.band_times_s)
    bands = 2 * (1 - (1 + step) * np.exp(-step))
    design = np.column_stack([bands, np.full(len(lags), 2.0)])
    n_channels = structure.shape[1]
    covariance = np.zeros((design.shape[1], n_channels, n_channels))
    # Relative errors count: a quiet lag shapes the texture as much as a loud one.
    for i in range(n_channels):
        if structure[:, i, i].max() > 0:
            weight = 1 / np.maximum(structure[:, i, i], 1e-9)
            covariance[:, i, i] = nnls(design * weight[:, None], structure[:, i, i] * weight)[0]
    for i in range(n_channels):
        for j in range(i):
            shared = _shared_bands(structure, covariance, design[:, :-1], i, j)
            covariance[:-1, i, j] = covariance[:-1, j, i] = shared
    rounding = np.mean([take.rounding for take in takes], axis=0)
    diagonal = np.arange(n_channels)
    covariance[-1, diagonal, diagonal] = np.maximum(covariance[-1].diagonal() - rounding, 0.0)
    return covariance


def _structure(takes: Sequence[FittedFingerprint], lag: int) -> NDArray[np.float64]:
    differences = np.concatenate([take.residual[lag:] - take.residual[:-lag] for take in takes])
    counted = ~np.isnan(differences)
    filled = np.where(counted, differences, 0.0)
    pairs = counted.astype(np.float64).T @ counted.astype(np.float64)
    matrix: NDArray[np.float64] = (filled.T @ filled) / np.maximum(pairs, 1.0)
    return matrix


def _shared_bands(
    structure: NDArray[np.float64],
    covariance: NDArray[np.float64],
    bands: NDArray[np.float64],
    i: int,
    j: int,
) -> NDArray[np.float64]:
    """Return the covariance of two channels per band, within what their variances allow.

    Fresh noise is each part's own, so only the bands are shared.
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


def _lower_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L, lower triangular, with L L' the nearest covariance that can exist."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    upper: NDArray[np.float64] = np.asarray(np.linalg.qr(root.T, mode="r"))
    lower = upper.T
    # QR leaves the signs open; a positive diagonal makes the table the same on every machine.
    signs = np.where(np.diag(lower) < 0, -1.0, 1.0)
    return lower * signs


@dataclass(frozen=True, slots=True, eq=False)
class FittedBoard:
    """All of one board's recordings, fitted."""

    kind: BoardKind
    takes: dict[str, list[FittedFingerprint]]

    def clean_air(self) -> NDArray[np.float64]:
        """Return float64[c], the log-conductance that stands for clean air."""
        levels = [take.level for takes in self.takes.values() for take in takes]
        air: NDArray[np.float64] = np.nanquantile(levels, _CLEAN_AIR_QUANTILE, axis=0)
        return air

    def typical_times(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the median rise and fall times per channel, float64[c], NaN where too rare."""
        everything = [take for takes in self.takes.values() for take in takes]
        return (
            _median_if_enough([take.rise_s for take in everything]),
            _median_if_enough([take.fall_s for take in everything]),
        )


def _median_if_enough(times: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    table = np.stack(list(times))
    median = np.full(table.shape[1], np.nan)
    for column in range(table.shape[1]):
        known = table[~np.isnan(table[:, column]), column]
        if len(known) >= _MIN_TAKES_FOR_TIMES:
            median[column] = np.median(known)
    return median


def fit_board(recordings: Recordings, kind: BoardKind) -> FittedBoard:
    """Fit every recording that is long enough."""
    takes = {
        name: [fit_fingerprint(values, kind) for values in some if len(values) >= _MIN_ROWS]
        for name, some in recordings.items()
    }
    return FittedBoard(kind, {name: some for name, some in takes.items() if some})


def fit_tables(data: Path, progress: FileProgress = iter) -> dict[str, list[dict[str, str]]]:
    """Fit both boards and return the rows of each table by its file name.

    Parameters
    ----------
    data: the folder that holds base/, mixture/ and mixture_index.csv.
    progress: wraps each list of files, to draw a progress bar.
    """
    substances = fit_board(substance_recordings(data, progress), SUBSTANCE_KIND)
    mixtures = fit_board(mixture_recordings(data, progress), MIXTURE_KIND)
    parts = _Parts.of(substances)
    tables: dict[str, list[dict[str, str]]] = {}
    for board in (substances, mixtures):
        tables.setdefault(BOARDS_FILE, []).extend(_board_rows(board, parts))
        tables.setdefault(FINGERPRINTS_FILE, []).extend(_take_rows(board, parts))
        tables.setdefault(FLUCTUATIONS_FILE, []).extend(_fluctuation_rows(board, parts))
    return tables


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What both boards share, from the substances' board: float64[8] each.

    The mixture recordings hold the four Grove channels only, and a minute of them shows too few
    whole rises to measure times by. Their board gets the other parts from here, in clean air.

    Attributes
    ----------
    air: log-conductance in clean air.
    rise_s, recovery_s: time constants.
    trembling: standard deviation of the readings in clean air.
    """

    air: NDArray[np.float64]
    rise_s: NDArray[np.float64]
    recovery_s: NDArray[np.float64]
    trembling: NDArray[np.float64]

    @classmethod
    def of(cls, board: FittedBoard) -> _Parts:
        rise_s, fall_s = board.typical_times()
        rise_s = np.where(np.isnan(rise_s), np.nanmedian(rise_s), rise_s)
        # Desorption is never quicker than adsorption; where no fall was seen, twice the rise.
        fall_s = np.where(np.isnan(fall_s), 2 * rise_s, np.maximum(fall_s, rise_s))
        trembling = np.sqrt(_air_covariance(_covariances(board)).sum(axis=0).diagonal())
        return cls(board.clean_air(), rise_s, fall_s, trembling)


def write_tables(tables: dict[str, list[dict[str, str]]], folder: Path) -> list[Path]:
    """Write the tables into `folder`, made if need be, and return the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in tables.items():
        path = folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        written.append(path)
    return written


def _board_rows(board: FittedBoard, parts: _Parts) -> list[dict[str, str]]:
    air = parts.air.copy()
    air[: len(board.kind.channels)] = board.clean_air()
    rows = []
    for sensor, index in enumerate(GAS_SENSORS):
        channel = CHANNELS[index]
        rows.append(
            {
                "board": board.kind.name,
                "channel": channel.name,
                "rate_hz": _number(board.kind.rate_hz),
                "middle_s": _number(board.kind.middle_s),
                "clean_air": _number(air[sensor]),
                "exponent": _number(_EXPONENT.get(channel.name, _MQ_EXPONENT)),
                "recovery_s": _number(parts.recovery_s[sensor]),
                "humidity_per_10rh": _number(_HUMIDITY_PER_10RH[channel.part]),
            }
        )
    return rows


def _take_rows(board: FittedBoard, parts: _Parts) -> list[dict[str, str]]:
    air = board.clean_air()
    rows = []
    for substance, takes in board.takes.items():
        own = _median_if_any([take.rise_s for take in takes])
        for number, take in enumerate(takes, start=1):
            for column, channel in enumerate(board.kind.channels):
                if np.isnan(take.level[column]):
                    continue
                rise_s = parts.rise_s[column] if np.isnan(own[column]) else own[column]
                row = {
                    "board": board.kind.name,
                    "substance": substance,
                    "take": str(number),
                    "channel": channel,
                    "response": _number(take.level[column] - air[column]),
                    "rise_s": _number(rise_s),
                }
                for tau, amplitude in zip(RELAXATION_TIMES_S, take.relaxation[column], strict=True):
                    row[f"relax_{tau:g}s"] = _number(amplitude)
                rows.append(row)
    return rows


def _median_if_any(times: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    table = np.stack(list(times))
    columns = [column[~np.isnan(column)] for column in table.T]
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


def _covariances(board: FittedBoard) -> dict[str, NDArray[np.float64]]:
    return {
        substance: _band_covariance(takes, board.kind) for substance, takes in board.takes.items()
    }


def _air_covariance(covariances: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean of the calmest substances' covariances, float64[bands + 1, c, c]."""
    loudness = {name: float(np.trace(c.sum(axis=0))) for name, c in covariances.items()}
    calm = sorted(loudness, key=loudness.__getitem__)[: max(1, round(_CALM_SHARE * len(loudness)))]
    air: NDArray[np.float64] = np.mean([covariances[name] for name in calm], axis=0)
    return air


def _fluctuation_rows(board: FittedBoard, parts: _Parts) -> list[dict[str, str]]:
    covariances = _covariances(board)
    covariances[AIR] = _air_covariance(covariances)
    rows = []
    for substance, bands in covariances.items():
        for time_s, matrix in zip((*board.kind.band_times_s, 0.0), bands, strict=True):
            whole = np.zeros((N_GAS, N_GAS))
            measured = len(matrix)
            whole[:measured, :measured] = _lower_root(matrix)
            if time_s == 0:
                unmeasured = np.arange(measured, N_GAS)
                whole[unmeasured, unmeasured] = parts.trembling[unmeasured]
            for index, loading in zip(GAS_SENSORS, whole, strict=True):
                if np.all(loading == 0):
                    continue
                rows.append(
                    {
                        "board": board.kind.name,
                        "substance": substance,
                        "time_s": _number(time_s),
                        "channel": CHANNELS[index].name,
                        **{
                            f"eddy_{eddy}": _number(value) if abs(value) >= _NEGLIGIBLE else ""
                            for eddy, value in enumerate(loading, start=1)
                        },
                    }
                )
    return rows


def _number(value: float) -> str:
    """Return four significant digits: well below the spread between takes."""
    return f"{float(value):.4g}"
