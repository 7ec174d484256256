"""Trainer: how exposures of one real rig differ within a day and between days.

May import everything below and numpy; never torch. Prints and writes what the simulator's other
days are made of (`hardware.simulator.days`).

The Grove channels and the heater plate are measured on fruits5, whose exposures begin in clean air
on four days. The MQ parts are measured on the three substances that SmellNet has of two sessions:
it has no clean air, so the whole shift of a level counts as a shift of clean air. Pairs of
exposures of one smell are compared, so that no smell's own mean enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GAS_INDICES, MQ_INDICES, N_GAS
from hardware.foreign.mapping import shipped_format
from hardware.foreign.reading import read_foreign
from hardware.simulator.tables import BOARD_NAMES, DAYS_FILE, load_board
from models.signals import log_signals
from training.data.dataset import DataError, load_substances
from training.simulator.fingerprint_tables import eddy_cells, lower_root, write_table
from training.simulator.fingerprints import SUBSTANCE_KIND, fit_fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.data.dataset import FileProgress
    from training.simulator.fingerprints import Floats

RIG = "fruits5"

CLEAN_START_S = 3.0
"""fruits5: the readings that are clean air; responses rise from the second reading on."""
PLATEAU_S = (150.0, 300.0)
"""fruits5: after the onset, where the response is taken. The shortest exposure lasts 285 s."""
SMALLEST_RESPONSE = 0.1
"""Below this a response's logarithm says nothing; the heater plate hardly answers to bananas."""

SESSIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "chamomile": (("100ee", "75009"), ("556b1", "5b86c", "71192")),
    "cinnamon": (("34cc1", "4a4e6", "f3f14"), ("9eb1c", "bcb37")),
    "peanuts": (("50d6a", "58981", "6135f"), ("1692e", "79dcf")),
}
"""SmellNet: beginnings of the recordings' ids, by session. By pressure, humidity and first readings
these are the substances of the training part that were recorded in two sessions."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Covariances over `GAS_INDICES` of one quantity; NaN where it was not measured.

    Attributes
    ----------
    within: float64[8, 8], between exposures of one smell in one session.
    across: float64[8, 8], between exposures of one smell in two sessions.
    pairs: of exposures, within and across sessions.
    """

    within: Floats
    across: Floats
    pairs: tuple[int, int]

    @property
    def between(self) -> Floats:
        """float64[8, 8], of sessions: the nearest covariance to the difference of the others."""
        excess = self.across - self.within
        known = np.isfinite(excess.diagonal())
        values, vectors = np.linalg.eigh(excess[np.ix_(known, known)])
        nearest = np.full_like(excess, np.nan)
        nearest[np.ix_(known, known)] = (vectors * np.maximum(values, 0.0)) @ vectors.T
        return nearest


@dataclass(frozen=True, slots=True, eq=False)
class DayFigures:
    """What was measured.

    Attributes
    ----------
    clean_air: fruits5, log-conductance at the beginning of an exposure.
    response: fruits5, log-conductance on the plateau above that.
    log_response: the same, its logarithm.
    level: SmellNet, log-conductance in the middle of a recording; of an MQ part ln ppm.
    takes: by board, float64[8], standard deviation between the fingerprints of one substance in
        the simulator's table, the root of the mean square over substances.
    residue: float64[8], fruits5, correlation of `clean_air` and `log_response`, each smell's mean
        removed: an exposure that begins above the usual clean air responds less.
    """

    clean_air: Spread
    response: Spread
    log_response: Spread
    level: Spread
    takes: dict[str, Floats]
    residue: Floats


def measure_days(data: Path, rigs: Path, progress: FileProgress = iter) -> DayFigures:
    """Measure the spread within and between days.

    Parameters
    ----------
    data: the folder of SmellNet that holds base/.
    rigs: the folder that holds fruits5/.
    progress: wraps the list of files, to draw a progress bar.

    Raises
    ------
    DataError: recordings are missing.
    """
    labels, days, air, plateau = _fruit_exposures(rigs)
    everything = ["clean air"] * len(labels)
    names, sessions, levels = _two_session_levels(data, progress)
    response = plateau - air
    log_response = np.log(np.maximum(response, SMALLEST_RESPONSE))
    return DayFigures(
        clean_air=spread(air, everything, days),
        response=spread(response, labels, days),
        log_response=spread(log_response, labels, days),
        level=spread(levels, names, sessions),
        takes={name: _take_spread(name) for name in BOARD_NAMES},
        residue=_correlation(air - air.mean(axis=0), _without_means(log_response, labels)),
    )


def _take_spread(board: str) -> Floats:
    """Return float64[8], NaN where the board's recordings have no such channel."""
    variances = [
        np.var([one.response for one in some], axis=0, ddof=1)
        for some in load_board(board).fingerprints.values()
    ]
    deviations: Floats = np.sqrt(np.mean(variances, axis=0))
    return np.where(deviations > 0, deviations, np.nan)


def _without_means(values: Floats, labels: Sequence[str]) -> Floats:
    """Return each smell's deviations from its mean, float64[exposures, 8]."""
    names = np.array(labels)
    means: Floats = np.array([values[names == name].mean(axis=0) for name in labels])
    return values - means


def _correlation(one: Floats, other: Floats) -> Floats:
    """Return the correlation of deviations float64[exposures, 8], by channel."""
    power: Floats = (one**2).sum(axis=0) * (other**2).sum(axis=0)
    correlation: Floats = (one * other).sum(axis=0) / np.sqrt(power)
    return correlation


def spread(values: Floats, labels: Sequence[str], sessions: Sequence[str]) -> Spread:
    """Return half the mean squared difference of pairs of one label, by whether sessions differ.

    Parameters
    ----------
    values: float64[exposures, 8], NaN where a channel was not measured.
    labels, sessions: of each exposure.
    """
    sums = {True: np.zeros((N_GAS, N_GAS)), False: np.zeros((N_GAS, N_GAS))}
    pairs = {True: 0, False: 0}
    for one, other in combinations(range(len(values)), 2):
        if labels[one] == labels[other]:
            same = sessions[one] == sessions[other]
            difference = values[one] - values[other]
            sums[same] += np.outer(difference, difference) / 2.0
            pairs[same] += 1
    return Spread(sums[True] / pairs[True], sums[False] / pairs[False], (pairs[True], pairs[False]))


def _fruit_exposures(rigs: Path) -> tuple[list[str], list[str], Floats, Floats]:
    """Return label, day, clean air and plateau of every exposure, float64[n, 8] both."""
    paths = sorted((rigs / RIG).glob("*.json"))
    if not paths:
        raise DataError(f"There is no recording {rigs / RIG}/*.json. Name the folder of {RIG}/.")
    labels, days, air, plateau = [], [], [], []
    for recording in read_foreign(paths, shipped_format(RIG)):
        seconds = (recording.time_ms - recording.time_ms[0]) / 1000.0
        signals = log_signals(recording.values.astype(np.float32))
        after_s, until_s = PLATEAU_S
        labels.append(recording.label)
        days.append(recording.session)
        air.append(signals[seconds < CLEAN_START_S].mean(axis=0))
        plateau.append(signals[(seconds >= after_s) & (seconds < until_s)].mean(axis=0))
    return labels, days, np.array(air), np.array(plateau)


def _two_session_levels(data: Path, progress: FileProgress) -> tuple[list[str], list[str], Floats]:
    """Return label, session and level of every recording of `SESSIONS`, float64[n, 8]."""
    recordings = load_substances(data / "base", progress=progress)
    names, sessions, levels = [], [], []
    for sample in recordings.samples:
        name = recordings.labels[int(sample.target.argmax())]
        for number, ids in enumerate(SESSIONS.get(name, ())):
            if any(f".{start}" in sample.name for start in ids):
                values = sample.values[:, SUBSTANCE_KIND.sensors].astype(np.float64)
                names.append(name)
                sessions.append(str(number))
                levels.append(fit_fingerprint(values, SUBSTANCE_KIND).level)
    return names, sessions, np.array(levels)


def write_days(figures: DayFigures, folder: Path) -> Path:
    """Write the table of the simulator's other days and return its path."""
    clean_air = _known(figures.clean_air.across)
    level = figures.level.between
    for index in MQ_INDICES:
        sensor = GAS_INDICES.index(index)
        # Each by itself: twelve recordings say nothing about how MQ parts move together.
        clean_air[sensor, sensor] = np.nan_to_num(level[sensor, sensor])
    matrices = {"clean_air": clean_air, "fingerprint": _known(figures.log_response.between)}
    rows = [
        {"of": what, "channel": CHANNELS[index].name, **eddy_cells(loading)}
        for what, covariance in matrices.items()
        for index, loading in zip(GAS_INDICES, lower_root(covariance), strict=True)
        if np.any(loading != 0)
    ]
    write_table(folder / DAYS_FILE, rows)
    return folder / DAYS_FILE


def _known(covariance: Floats) -> Floats:
    return np.nan_to_num(covariance, nan=0.0)


def days_table(figures: DayFigures) -> str:
    """Return a table of all figures, by channel."""
    rows = [
        ("clean air, one day", figures.clean_air.within),
        ("clean air, two days", figures.clean_air.across),
        ("response, one day", figures.response.within),
        ("response, two days", figures.response.across),
        ("ln response, one day", figures.log_response.within),
        ("ln response, two days", figures.log_response.across),
        ("ln response, what days add", figures.log_response.between),
        ("SmellNet, level, one session", figures.level.within),
        ("SmellNet, level, two sessions", figures.level.across),
        ("SmellNet, level, what sessions add", figures.level.between),
    ]
    rows += [
        (f"simulator, takes of {board}", np.diag(deviations**2))
        for board, deviations in figures.takes.items()
    ]
    names = [CHANNELS[index].name for index in GAS_INDICES]
    lines = [f"| standard deviation of | {' | '.join(names)} |", "|---" * (N_GAS + 1) + "|"]
    for name, covariance in rows:
        deviations = np.sqrt(covariance.diagonal())
        lines.append(_table_line(name, deviations))
    lines.append(_table_line("(correlation of clean air and ln response)", figures.residue))
    return "\n".join(lines)


def _table_line(name: str, values: Floats) -> str:
    cells = ["" if np.isnan(value) else f"{value:.2f}" for value in values]
    return f"| {name} | {' | '.join(cells)} |"
