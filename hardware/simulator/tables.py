"""Simulator: the fitted tables, read from the CSVs beside this file.

May import the channel table and numpy. `scent-train fingerprints` writes the tables from real
recordings. They describe two boards, one per kind of published recording; their raw levels differ
(NO2 near 600 against 98), so they are never pooled.

- ``boards.csv``: the parts: clean-air level, recovery, humidity.
- ``fingerprints.csv``: the response of each channel to each substance, once per real recording, so
  that the spread between them is real.
- ``fluctuations.csv``: the fluctuations of the readings of each substance: the covariance between
  channels in a few bands of time, as loadings on independent eddies.
- ``days.csv``: how clean air and fingerprints of the same rig differ between days: covariances as
  loadings on independent draws. Measured on other real rigs, so both boards share them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import GAS_INDICES, N_GAS, channel_index
from hardware.errors import ScentdError, UsageError
from hardware.simulator.scenario import AIR

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

SUBSTANCE_BOARD = "substances"
MIXTURE_BOARD = "mixtures"
BOARD_NAMES = (SUBSTANCE_BOARD, MIXTURE_BOARD)

BOARDS_FILE = "boards.csv"
FINGERPRINTS_FILE = "fingerprints.csv"
FLUCTUATIONS_FILE = "fluctuations.csv"
DAYS_FILE = "days.csv"

RELAXATION_TIMES_S: tuple[float, ...] = (10.0, 30.0, 90.0, 270.0, 900.0)
"""Time constants of a slow transient. Oxide layers relax over a spread of times; a fixed series of
two per decade fits any of them linearly."""


class TableError(ScentdError):
    """One of the simulator's own tables cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """The response of one exposure; arrays are in the order of `GAS_INDICES`.

    Attributes
    ----------
    response: float64[8], ln of the conductance over clean air's, at `BoardModel.middle_s`.
    relaxation: float64[8, 5], amplitudes of exp(-t / `RELAXATION_TIMES_S`) around that.
    rise_s: float64[8], time constant with which the sensor follows a rising gas.
    """

    response: NDArray[np.float64]
    relaxation: NDArray[np.float64]
    rise_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BoardModel:
    """One kind of board and the substances it can play; arrays in the order of `GAS_INDICES`.

    Attributes
    ----------
    name: the board's name in the tables.
    rate_hz: the rate of the recordings it was fitted to.
    middle_s: time into an exposure at which `Fingerprint.response` holds.
    clean_air: float64[8], log-conductance in clean air (of an MQ part, ln ppm).
    recovery_s: float64[8], time constant with which the sensor follows a falling gas.
    humidity: float64[8], change of log-conductance per 10 %RH.
    band_times_s: float64[bands], correlation time of each band of fluctuations.
    fingerprints: by substance, one per recorded exposure.
    loadings: float64[bands + 1, 8, 8] per substance and for `air`: each band's fluctuation is
        loadings @ independent unit processes; the last is fresh in every reading.
    """

    name: str
    rate_hz: float
    middle_s: float
    clean_air: NDArray[np.float64]
    recovery_s: NDArray[np.float64]
    humidity: NDArray[np.float64]
    band_times_s: NDArray[np.float64]
    fingerprints: dict[str, tuple[Fingerprint, ...]]
    loadings: dict[str, NDArray[np.float64]]

    @property
    def substances(self) -> tuple[str, ...]:
        """Names that a scenario may use, sorted."""
        return tuple(sorted(self.fingerprints))


@lru_cache(maxsize=8)
def load_board(name: str = SUBSTANCE_BOARD, folder: Traversable | None = None) -> BoardModel:
    """Return a board from the tables in `folder`, by default the shipped ones.

    Raises
    ------
    UsageError
        No such board.
    TableError
        A table that is missing or cannot be read, naming it.
    """
    where = files("hardware.simulator") if folder is None else folder
    boards = _rows(where, BOARDS_FILE)
    if name not in {row["board"] for row in boards}:
        known = ", ".join(sorted({row["board"] for row in boards}))
        raise UsageError(f"There is no simulated board {name!r}. The tables describe: {known}.")
    try:
        return _assemble(
            name,
            [row for row in boards if row["board"] == name],
            [row for row in _rows(where, FINGERPRINTS_FILE) if row["board"] == name],
            [row for row in _rows(where, FLUCTUATIONS_FILE) if row["board"] == name],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise TableError(
            f"The simulator's tables in {where} do not fit each other ({error!r}); "
            "`scent-train fingerprints --data DIR --output DIR` writes all of them anew."
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class DaySpread:
    """How days of one rig differ; a shift is a matrix @ eight independent standard normal draws.

    Attributes
    ----------
    clean_air: float64[8, 8], of the log-conductance in clean air.
    fingerprint: float64[8, 8], of the logarithm of a substance's response above clean air.
    """

    clean_air: NDArray[np.float64]
    fingerprint: NDArray[np.float64]


@lru_cache(maxsize=2)
def load_day_spread(folder: Traversable | None = None) -> DaySpread:
    """Return the spread between days from the table in `folder`, by default the shipped one.

    Raises
    ------
    TableError
        A table that is missing or cannot be read, naming it.
    """
    where = files("hardware.simulator") if folder is None else folder
    spread = DaySpread(np.zeros((N_GAS, N_GAS)), np.zeros((N_GAS, N_GAS)))
    try:
        for row in _rows(where, DAYS_FILE):
            matrix = {"clean_air": spread.clean_air, "fingerprint": spread.fingerprint}[row["of"]]
            matrix[_sensor(row["channel"])] = _eddies(row)
    except (KeyError, ValueError, TypeError) as error:
        raise TableError(
            f"The simulator's table {DAYS_FILE} in {where} cannot be read ({error!r}); "
            "`scent-train fingerprints --days` writes it anew."
        ) from error
    return spread


def _rows(folder: Traversable, name: str) -> list[dict[str, str]]:
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise TableError(
            f"The simulator's table {folder / name} cannot be read ({error.strerror}). "
            "`scent-train fingerprints --data DIR --output DIR` writes it."
        ) from error
    return list(csv.DictReader(text.splitlines()))


def _assemble(
    name: str,
    boards: list[dict[str, str]],
    fingerprints: list[dict[str, str]],
    fluctuations: list[dict[str, str]],
) -> BoardModel:
    parts: dict[str, NDArray[np.float64]] = {
        column: np.zeros(N_GAS) for column in ("clean_air", "recovery_s", "humidity_per_10rh")
    }
    for row in boards:
        for column, array in parts.items():
            array[_sensor(row["channel"])] = float(row[column])
    band_times_s, loadings = _loadings(fluctuations)
    by_substance = _fingerprints(fingerprints)
    missing = sorted({*by_substance, AIR} - set(loadings))
    if missing:
        raise ValueError(f"no fluctuations of {', '.join(missing)}")
    return BoardModel(
        name=name,
        rate_hz=float(boards[0]["rate_hz"]),
        middle_s=float(boards[0]["middle_s"]),
        clean_air=parts["clean_air"],
        recovery_s=parts["recovery_s"],
        humidity=parts["humidity_per_10rh"],
        band_times_s=band_times_s,
        fingerprints=by_substance,
        loadings=loadings,
    )


def _fingerprints(rows: list[dict[str, str]]) -> dict[str, tuple[Fingerprint, ...]]:
    """Return one `Fingerprint` per exposure; a channel without a row did not respond."""
    found: dict[str, dict[str, Fingerprint]] = {}
    for row in rows:
        exposures = found.setdefault(row["substance"], {})
        if row["take"] not in exposures:
            exposures[row["take"]] = Fingerprint(
                np.zeros(N_GAS), np.zeros((N_GAS, len(RELAXATION_TIMES_S))), np.ones(N_GAS)
            )
        one = exposures[row["take"]]
        sensor = _sensor(row["channel"])
        one.response[sensor] = float(row["response"])
        one.rise_s[sensor] = float(row["rise_s"])
        one.relaxation[sensor] = [float(row[f"relax_{tau:g}s"]) for tau in RELAXATION_TIMES_S]
    return {substance: tuple(exposures.values()) for substance, exposures in found.items()}


def _loadings(
    rows: list[dict[str, str]],
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return the bands' times, ascending, and each substance's loadings with fresh noise last."""
    times = sorted({float(row["time_s"]) for row in rows} - {0.0})
    place = {time_s: index for index, time_s in enumerate([*times, 0.0])}
    loadings: dict[str, NDArray[np.float64]] = {}
    for row in rows:
        matrix = loadings.setdefault(row["substance"], np.zeros((len(place), N_GAS, N_GAS)))
        matrix[place[float(row["time_s"])], _sensor(row["channel"])] = _eddies(row)
    return np.array(times), loadings


def _eddies(row: dict[str, str]) -> list[float]:
    return [float(row[f"eddy_{eddy}"] or 0) for eddy in range(1, N_GAS + 1)]


def _sensor(channel: str) -> int:
    return GAS_INDICES.index(channel_index(channel))
