"""training/: what the training board's readings look like, for a bundle.

Without torch. The running service compares the board that it reads with these figures
(`models.board_identity`).
"""

from __future__ import annotations

import dataclasses
import io
import math
from typing import TYPE_CHECKING

import numpy as np

from models.board_identity import (
    BOARD_AIR,
    BOARD_LEVELS,
    BoardFigures,
    compared_channels,
    level_covariance,
    log_levels,
    mean_levels,
    squared_distances,
)
from models.bundle import load_bundle
from models.manifest import ARRAYS, read_verified, write_bundle
from models.signals import GAS_NAMES
from training.data.clean_air import clean_air_at_onset
from training.data.dataset import DataError, component_sets
from training.data.mixture_days import mixture_days

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.manifest import Manifest
    from models.preprocess import PreprocessSpec
    from training.data.dataset import Dataset, Sample

HELD_OUT_SHARE = 0.95
"""Share of the recordings of held-out sessions that must be like those of the others."""

FEWEST_SESSIONS = 3
"""With fewer, nothing is known of how sessions differ."""

MANY_SESSIONS = 10
"""With fewer, the next session may well be further off than all of them."""

FEW_SESSIONS_MARGIN = 2.0
"""Widens the limit by this over the number of sessions, less what many sessions would have. On
fruits5, one of 25 recordings of a day held out was 1.4 times the limit of three other days away. On
the owner's own rig a name that is withheld costs more than one on a board that hardly differs."""

DAY_SHIFT = 0.2
"""Standard deviation of a channel's steady log-conductance between two days of one board (SmellNet:
.2, .2, .35 and .1 for NO2, C2H5OH, VOC and CO), used where the recordings cannot show it."""

DAY_SHIFT_SIGMAS = 2.0
"""Standard deviations of that shift which are still the same board."""


def measure_board(
    data: Dataset, spec: PreprocessSpec
) -> tuple[BoardFigures, dict[str, NDArray[np.floating]]] | None:
    """Return the figures and the arrays of the board that made some recordings.

    The limit is the distance that `HELD_OUT_SHARE` of the recordings have to those of other
    sessions. A recording without a named session counts as of one session with the others of its
    label, or of its components. Recordings whose rows are out of order are left out.

    Returns
    -------
    None where the model, or the recordings, lack channels that can be compared.
    """
    channels = compared_channels(spec.channels)
    if not channels:
        return None
    measured = [
        (session, windows)
        for session, sample in zip(sessions_of(data), data.samples, strict=True)
        if sample.in_order and len(windows := window_levels(sample, spec, channels))
    ]
    if not measured:
        return None
    sessions = np.array([session for session, _ in measured])
    recordings = [levels for _, levels in measured]
    means = np.stack([levels.mean(axis=0) for levels in recordings])
    arrays: dict[str, NDArray[np.floating]] = {BOARD_LEVELS: means.astype(np.float32)}
    air_limit = None
    air = clean_air_levels(data, channels)
    if air is not None:
        arrays[BOARD_AIR] = air.astype(np.float32)
        air_limit = round(fit_limit(list(air[:, np.newaxis]), np.array(sessions_of(data))), 4)
    figures = BoardFigures(
        channels=channels,
        limit=round(fit_limit(recordings, sessions), 4),
        sessions=len(set(sessions)),
        recordings=len(means),
        air_limit=air_limit,
    )
    return figures, arrays


def clean_air_levels(data: Dataset, channels: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return float64[recordings, channels], log-conductances of clean air before each onset.

    None where any recording does not begin in clean air.
    """
    places = [GAS_NAMES.index(name) for name in channels]
    found = []
    for sample in data.samples:
        air = clean_air_at_onset(sample)
        if air is None or not np.isfinite(air[places]).all():
            return None
        found.append(air[places])
    return np.stack(found)


def add_board(folder: Path, data: Dataset) -> Manifest:
    """Write into an existing bundle what the board of its training recordings looks like.

    Parameters
    ----------
    folder: of the bundle, which is replaced as a whole.
    data: holds the recordings that the model was trained on; others are left out.

    Raises
    ------
    DataError: the training recordings, or channels that could be compared, are not there.
    """
    bundle = load_bundle(folder)
    known = bundle.training_hashes
    data = data.subset(np.array([sample.sha256 in known for sample in data.samples]))
    measured = measure_board(data, bundle.manifest.preprocessing) if data.samples else None
    if measured is None:
        raise DataError(
            f"Expected recordings that {bundle.manifest.name} was trained on, with two or more of "
            f"its gas channels; found {len(data.samples)} of {len(known)}. Name the folder of its "
            "training data."
        )
    figures, arrays = measured
    files = {
        name: read_verified(folder, bundle.manifest, name)
        for name in bundle.manifest.files
        if name != ARRAYS
    }
    files[ARRAYS] = arrays_file(bundle.arrays | arrays)
    return write_bundle(folder, dataclasses.replace(bundle.manifest, board=figures), files)


def arrays_file(arrays: Mapping[str, NDArray[np.floating]]) -> bytes:
    """Return the content of a bundle's file of arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # stub wants a bool
    return buffer.getvalue()


def fit_limit(windows: Sequence[NDArray[np.float64]], sessions: NDArray[np.str_]) -> float:
    """Return the squared distance from which on a board is another one.

    Parameters
    ----------
    windows: of each recording, float64[windows, channels].
    sessions: of each recording.
    """
    means = np.stack([levels.mean(axis=0) for levels in windows])
    names = sorted(set(sessions))
    if len(names) < FEWEST_SESSIONS:
        inverse = np.linalg.inv(level_covariance(means))
        return float((DAY_SHIFT_SIGMAS * DAY_SHIFT) ** 2 * np.trace(inverse))
    distances = [
        distance
        for name in names
        for distance in held_out_distances(windows, means, sessions == name)
    ]
    # The quantile that a further recording exceeds with the stated probability.
    rank = min(len(distances), math.ceil((len(distances) + 1) * HELD_OUT_SHARE))
    few = 1.0 + max(0.0, FEW_SESSIONS_MARGIN * (1 / len(names) - 1 / MANY_SESSIONS))
    return float(np.sort(distances)[rank - 1]) * few


def held_out_distances(
    windows: Sequence[NDArray[np.float64]], means: NDArray[np.float64], out: NDArray[np.bool_]
) -> list[float]:
    """Return the mean distance of each recording that is left `out` to the nearest of the rest."""
    rest = means[~out]
    covariance = level_covariance(rest)
    return [
        float(squared_distances(windows[int(row)], rest, covariance).min(axis=1).mean())
        for row in np.flatnonzero(out)
    ]


def sessions_of(data: Dataset) -> list[str]:
    """Return the session of every recording; its day, label or components where none is named."""
    names = ["+".join(names) for names in component_sets(data)]
    days = mixture_days(data)
    return [
        sample.session or day or name
        for sample, day, name in zip(data.samples, days, names, strict=True)
    ]


def window_levels(
    sample: Sample, spec: PreprocessSpec, channels: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return mean log-conductances float64[windows, channels] of a recording's windows.

    Windows overlap by half; a shorter recording gives one. Windows in which a channel was never
    usable are left out.
    """
    signals = log_levels(channels)(sample.at_rate(spec.rate_hz).values)
    starts = range(0, max(1, len(signals) - spec.window + 1), max(1, spec.window // 2))
    levels = np.stack([mean_levels(signals[start : start + spec.window]) for start in starts])
    return levels[np.isfinite(levels).all(axis=1)]
