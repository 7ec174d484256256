"""Trainer: the simulator's tables, from the recordings of both published boards.

May import everything below, numpy and scipy; never torch.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.channels import CHANNELS, GAS_INDICES, N_GAS, Part
from hardware.simulator.scenario import AIR
from hardware.simulator.tables import (
    BOARDS_FILE,
    FINGERPRINTS_FILE,
    FLUCTUATIONS_FILE,
    RELAXATION_TIMES_S,
)
from training.data.dataset import load_mixtures, load_substances
from training.simulator.fingerprints import (
    MIXTURE_KIND,
    SUBSTANCE_KIND,
    FittedBoard,
    fit_board,
    recordings_by_substance,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from training.data.dataset import FileProgress
    from training.simulator.fingerprints import Floats, Recordings

    Rows = list[dict[str, str]]

# Humidity of such parts, from the spread of their makers' sensitivity curves at 30 and 85 %RH.
_HUMIDITY_PER_10RH = {Part.GROVE: 0.02, Part.MQ: 0.05, Part.BME_GAS: 0.05}

_CALM_SHARE = 0.25
"""Clean air fluctuates like the calmest quarter of the substances."""
_MIN_RECORDINGS_FOR_TIMES = 3
_NEGLIGIBLE = 5e-6
"""A loading below this changes no digit that any part sends; its cell stays empty."""


def fit_tables(data: Path, progress: FileProgress = iter) -> dict[str, Rows]:
    """Fit both boards and return the rows of each table by its file name.

    Parameters
    ----------
    data: the folder that holds base/, mixture/ and mixture_index.csv.
    progress: wraps each list of files, to draw a progress bar.
    """
    singles = load_substances(data / "base", progress=progress)
    mixtures = load_mixtures(data / "mixture", progress=progress)
    whole = _whole_counts(recordings_by_substance(mixtures, MIXTURE_KIND))
    boards = [
        fit_board(recordings_by_substance(singles, SUBSTANCE_KIND), SUBSTANCE_KIND),
        fit_board(whole, MIXTURE_KIND),
    ]
    covariances = [board.covariances() for board in boards]
    shared = _shared(boards[0], covariances[0])
    tables: dict[str, Rows] = {BOARDS_FILE: [], FINGERPRINTS_FILE: [], FLUCTUATIONS_FILE: []}
    for board, covariance in zip(boards, covariances, strict=True):
        tables[BOARDS_FILE] += _board_rows(board, shared)
        tables[FINGERPRINTS_FILE] += _fingerprint_rows(board, shared)
        tables[FLUCTUATIONS_FILE] += _fluctuation_rows(board, covariance, shared)
    return tables


def write_tables(tables: dict[str, Rows], folder: Path) -> list[Path]:
    """Write the tables into `folder`, made if need be, and return the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_table(folder / name, rows)
    return [folder / name for name in tables]


def write_table(path: Path, rows: Rows) -> None:
    """Write rows with the same keys as a CSV with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _whole_counts(recordings: Recordings) -> Recordings:
    """Leave out recordings with tenths.

    Their rows are not in the order of time (each jumps at random over the range of the whole
    recording, which the files of integers cross in one slow curve), so they show neither
    transients nor fluctuations.
    """
    whole = {
        name: [values for values in some if np.array_equal(values, np.rint(values), equal_nan=True)]
        for name, some in recordings.items()
    }
    return {name: some for name, some in whole.items() if some}


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What both boards share, from the substances' board: float64[8] each.

    The mixture recordings hold the four Grove channels only, and a minute of them shows too few
    complete rises to measure times. Their board gets the other parts from here, in clean air.
    """

    air: Floats
    """Log-conductance in clean air."""
    rise_s: Floats
    recovery_s: Floats
    noise: Floats
    """Standard deviation of the readings in clean air."""


def _shared(board: FittedBoard, covariances: dict[str, Floats]) -> _Shared:
    fitted = [one for some in board.fingerprints.values() for one in some]
    rise_s = _median([one.rise_s for one in fitted], _MIN_RECORDINGS_FOR_TIMES)
    fall_s = _median([one.fall_s for one in fitted], _MIN_RECORDINGS_FOR_TIMES)
    rise_s = np.where(np.isnan(rise_s), np.nanmedian(rise_s), rise_s)
    # Desorption is never quicker than adsorption; where no fall was seen, twice the rise.
    fall_s = np.where(np.isnan(fall_s), 2 * rise_s, np.maximum(fall_s, rise_s))
    noise = np.sqrt(_air_covariance(covariances).sum(axis=0).diagonal())
    return _Shared(board.clean_air(), rise_s, fall_s, noise)


def _median(times: list[Floats], least: int = 1) -> Floats:
    """Return the median of each column without NaN, NaN where fewer than `least` are left."""
    columns = [column[~np.isnan(column)] for column in np.stack(times).T]
    return np.array([np.median(c) if len(c) >= least else np.nan for c in columns])


def _board_rows(board: FittedBoard, shared: _Shared) -> Iterator[dict[str, str]]:
    air = shared.air.copy()
    air[: len(board.kind.sensors)] = board.clean_air()
    for sensor, index in enumerate(GAS_INDICES):
        channel = CHANNELS[index]
        yield _row(
            board=board.kind.name,
            channel=channel.name,
            rate_hz=board.kind.rate_hz,
            middle_s=board.kind.middle_s,
            clean_air=air[sensor],
            recovery_s=shared.recovery_s[sensor],
            humidity_per_10rh=_HUMIDITY_PER_10RH[channel.part],
        )


def _fingerprint_rows(board: FittedBoard, shared: _Shared) -> Iterator[dict[str, str]]:
    air = board.clean_air()
    for substance, fitted in board.fingerprints.items():
        rise_s = _median([one.rise_s for one in fitted])
        rise_s = np.where(np.isnan(rise_s), shared.rise_s[: len(rise_s)], rise_s)
        for number, one in enumerate(fitted, start=1):
            for column, index in enumerate(board.kind.sensors):
                if np.isnan(one.level[column]):
                    continue
                relaxation = zip(RELAXATION_TIMES_S, one.relaxation[column], strict=True)
                yield _row(
                    board=board.kind.name,
                    substance=substance,
                    take=str(number),
                    channel=CHANNELS[index].name,
                    response=one.level[column] - air[column],
                    rise_s=rise_s[column],
                    **{f"relax_{tau:g}s": amplitude for tau, amplitude in relaxation},
                )


def _fluctuation_rows(
    board: FittedBoard, covariances: dict[str, Floats], shared: _Shared
) -> Iterator[dict[str, str]]:
    measured = len(board.kind.sensors)
    for substance, bands in {**covariances, AIR: _air_covariance(covariances)}.items():
        for time_s, matrix in zip((*board.kind.band_times_s, 0.0), bands, strict=True):
            loadings = np.zeros((N_GAS, N_GAS))
            loadings[:measured, :measured] = lower_root(matrix)
            if time_s == 0:
                unmeasured = np.arange(measured, N_GAS)
                loadings[unmeasured, unmeasured] = shared.noise[unmeasured]
            for index, loading in zip(GAS_INDICES, loadings, strict=True):
                if np.any(loading != 0):
                    yield _row(
                        board=board.kind.name,
                        substance=substance,
                        time_s=time_s,
                        channel=CHANNELS[index].name,
                        **eddy_cells(loading),
                    )


def _air_covariance(covariances: dict[str, Floats]) -> Floats:
    """Return the mean of the calmest substances' covariances, float64[bands + 1, c, c]."""
    power = {name: float(np.trace(c.sum(axis=0))) for name, c in covariances.items()}
    calm = sorted(power, key=power.__getitem__)[: max(1, round(_CALM_SHARE * len(power)))]
    air: Floats = np.mean([covariances[name] for name in calm], axis=0)
    return air


def eddy_cells(loading: Floats) -> dict[str, str]:
    """Return the cells of a table for a channel's loadings, float64[8]."""
    return _row(
        **{
            f"eddy_{eddy}": value if abs(value) >= _NEGLIGIBLE else ""
            for eddy, value in enumerate(loading, start=1)
        }
    )


def lower_root(covariance: Floats) -> Floats:
    """Return L, lower triangular, with L L' the nearest possible covariance, float64[8, 8]."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    lower: Floats = np.asarray(np.linalg.qr(root.T, mode="r")).T
    # QR leaves the signs open; a positive diagonal makes the table the same on every machine.
    return lower * np.where(np.diag(lower) < 0, -1.0, 1.0)


def _row(**cells: Any) -> dict[str, str]:
    """Write numbers with four significant digits: well below the spread between recordings."""
    return {
        name: value if isinstance(value, str) else f"{float(value):.4g}"
        for name, value in cells.items()
    }
