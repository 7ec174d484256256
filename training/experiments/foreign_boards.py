"""training/experiments: tests for boards unlike that of a model's training, and what they lead to.

Each test is a distance of a recording's windows from those of the training recordings. Its limit is
the distance that .95 of the training board's own recordings keep to those of other sessions; the
share of own recordings beyond it is counted with limits from the other sessions again. Other boards
are three real rigs, and simulated ones. Needs no torch. May import `hardware.foreign`, `models`,
`calibration` and the simulator.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardware.foreign.mapping import shipped_format
from hardware.foreign.reading import read_foreign, write_recordings
from hardware.recording import present_channels, read_recording
from hardware.simulator.other_rig import FIXED_RIG, OtherRig
from models.board_identity import (
    BoardIdentity,
    TrainingBoard,
    compared_channels,
    level_covariance,
    log_levels,
)
from models.decision_spec import State
from models.nose import Nose
from models.requirements import feeding_problem, rate_problem
from models.signals import GAS_NAMES
from training.data.clean_air import clean_air_at_onset
from training.data.dataset import load_substances
from training.experiments.real_rigs import RIGS
from training.export.board import HELD_OUT_SHARE, sessions_of, window_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.results import Prediction
    from training.data.dataset import Dataset, Sample

    Floats = NDArray[np.float64]
    Features = Callable[[Floats], Floats]

SIMULATED_RIGS = 12
"""Random rigs, beside the fixed one."""

SIMULATED_RECORDINGS = 12
"""Of the training data, as each simulated rig would have sent them."""

STEP_LAGS = (1, 5, 25)
"""Samples over which a step's size is measured."""

KNOWN_AT_S = (30.0, 60.0, 120.0)
LOOK_S = 5.0
"""As the daemon's default `live_stride_s`."""

EARLY_S = 120.0
"""By when a recording of the training board should be named."""


@dataclass(frozen=True, slots=True)
class ComparedTest:
    """What one test does for one model.

    Attributes
    ----------
    own: share of the training board's recordings that are taken for another board's, each judged
        by the other sessions.
    found: by board, the share of recordings that are taken for another board's; of the training
        board on another day it should be 0.
    """

    model: str
    test: str
    own: float
    found: dict[str, float]


@dataclass(frozen=True, slots=True)
class Known:
    """How soon a model takes the board of recordings for its own, by windows alone.

    Attributes
    ----------
    after: at each of `KNOWN_AT_S`, the share of recordings for which it does; a shorter one at its
        end.
    ever: for which it does at any time.
    """

    model: str
    board: str
    recordings: int
    after: tuple[float, ...]
    ever: float


@dataclass(frozen=True, slots=True)
class Played:
    """What a model said of one board's recordings, as `scentd replay` plays them.

    Attributes
    ----------
    recordings, fed: how many there are, and how many the board's rate and channels can feed.
    foreign: of those fed, in how many the board was ever said to be foreign.
    named, named_early: in how many a label of the model was announced, and within `EARLY_S`.
    """

    model: str
    board: str
    recordings: int
    fed: int
    foreign: int
    named: int
    named_early: int


def import_boards(folder: Path, output: Path) -> dict[str, Dataset]:
    """Convert the recordings of the other real rigs, and load them, by rig."""
    boards = {}
    for rig in RIGS:
        paths = sorted((folder / rig.name).glob(rig.pattern))
        write_recordings(list(read_foreign(paths, shipped_format(rig.name))), output / rig.name)
        boards[rig.name] = load_substances(output / rig.name)
    return boards


def level(window: Floats) -> Floats:
    """Return the mean log-conductances."""
    return np.asarray(window.mean(axis=0))


def level_differences(window: Floats) -> Floats:
    """Return the mean log-conductances above that of the first channel."""
    mean = level(window)
    return np.asarray(mean[1:] - mean[0])


def step_sizes(window: Floats) -> Floats:
    """Return the logarithms of the mean changes over `STEP_LAGS`."""
    lags = [min(lag, len(window) - 1) for lag in STEP_LAGS]
    sizes = [np.nanmean(np.abs(window[lag:] - window[:-lag]), axis=0) for lag in lags]
    return np.log(np.concatenate(sizes) + 1e-3)


def correlations(window: Floats) -> Floats:
    """Return the correlations between the channels' changes over five samples."""
    lag = min(STEP_LAGS[1], len(window) - 1)
    changes = np.nan_to_num(window[lag:] - window[:-lag])
    changes = changes - changes.mean(axis=0)
    spread = changes.std(axis=0) + 3e-3
    matrix = changes.T @ changes / len(changes) / np.outer(spread, spread)
    upper: Floats = matrix[np.triu_indices(len(matrix), 1)]
    return upper


@dataclass(frozen=True, slots=True)
class BoardTest:
    """One test: features of a window, and their distance from those of the training recordings.

    Attributes
    ----------
    name: in the table.
    features: of a window, log-conductances float64[rows, channels].
    nearest: distance to the nearest recording; else to the mean of all.
    common: features are levels, of which what all channels share counts less.
    """

    name: str
    features: Features
    nearest: bool = False
    common: bool = False

    def distances(self, windows: Sequence[Floats], train: Sequence[Floats]) -> list[float]:
        """Return the mean squared distance of each recording's windows[windows, features]."""
        means = np.stack([rows.mean(axis=0) for rows in train])
        if self.common:
            covariance = level_covariance(means)
        else:
            covariance = np.cov(np.concatenate(train).T) + np.eye(means.shape[1]) * 1e-4
        inverse = np.linalg.inv(covariance)
        centres = means if self.nearest else means.mean(axis=0, keepdims=True)
        found = []
        for rows in windows:
            steps = rows[:, np.newaxis] - centres
            squared = np.einsum("nmi,ij,nmj->nm", steps, inverse, steps)
            found.append(float(squared.min(axis=1).mean()))
        return found


TESTS = (
    BoardTest("levels, from their mean", level),
    BoardTest("levels, from the nearest recording", level, nearest=True),
    BoardTest("differences of levels, from their mean", level_differences),
    BoardTest("differences of levels, from the nearest", level_differences, nearest=True),
    BoardTest("levels, common part reduced, nearest (used)", level, nearest=True, common=True),
    BoardTest("step sizes, from their mean", step_sizes),
    BoardTest("correlations, from their mean", correlations),
)

CLEAN_AIR_TEST = BoardTest(
    "clean air, common part reduced, nearest (used where known)", level, nearest=True, common=True
)


def compare_tests(
    bundle: Bundle,
    data: Dataset,
    own_days: Mapping[str, Dataset],
    boards: Mapping[str, Dataset],
) -> list[ComparedTest]:
    """Score every test for one model.

    Parameters
    ----------
    bundle: the model.
    data: the recordings that it was trained on.
    own_days: recordings of the training board on other days, by name.
    boards: recordings of other boards, by name; those that are too slow for the model are left out.
    """
    spec = bundle.manifest.preprocessing
    channels = compared_channels(spec.channels)
    known = {name: board.samples for name, board in (*own_days.items(), *boards.items())}
    others = {
        name: fed
        for name, samples in {**known, "simulated": simulated_boards(data)}.items()
        if (fed := [one for one in samples if rate_problem(bundle.manifest, one.rate_hz) is None])
    }
    signals = {
        name: [_windows(sample, spec.rate_hz, spec.window, channels) for sample in samples]
        for name, samples in {"": data.samples, **others}.items()
    }
    sessions = np.array(sessions_of(data))
    model = bundle.manifest.name
    results = []
    for test in TESTS:
        rows = {
            name: [np.stack([test.features(w) for w in windows]) for windows in recordings]
            for name, recordings in signals.items()
        }
        results.append(_score_test(test, model, rows, sessions))
    air = {name: _clean_airs(samples, channels) for name, samples in others.items()}
    own_air = _clean_airs(data.samples, channels)
    if len(own_air) == len(data.samples):
        results.append(_score_test(CLEAN_AIR_TEST, model, {"": own_air, **air}, sessions))
    return results


def _score_test(
    test: BoardTest, model: str, rows: dict[str, list[Floats]], sessions: NDArray[np.str_]
) -> ComparedTest:
    """Score a test on the features of recordings by board; the name of the own board is empty.

    Boards without any recording that has the features are left out.
    """
    own = rows[""]
    held_out = np.empty(len(own))
    for session in set(sessions.tolist()):
        out = np.flatnonzero(sessions == session)
        train = [own[k] for k in np.flatnonzero(sessions != session)]
        held_out[out] = test.distances([own[k] for k in out], train)
    limits = [np.quantile(held_out[sessions != one], HELD_OUT_SHARE) for one in sessions]
    limit = np.quantile(held_out, HELD_OUT_SHARE)
    found = {
        name: float(np.mean(np.array(test.distances(windows, own)) > limit))
        for name, windows in rows.items()
        if name and windows
    }
    return ComparedTest(model, test.name, float(np.mean(held_out > np.array(limits))), found)


def _clean_airs(samples: Sequence[Sample], channels: tuple[str, ...]) -> list[Floats]:
    """Return float64[1, channels] of each recording in which an onset is noticed."""
    places = [GAS_NAMES.index(name) for name in channels]
    found = [clean_air_at_onset(sample) for sample in samples]
    return [air[np.newaxis, places] for air in found if air is not None]


def count_known(bundle: Bundle, data: Dataset, boards: Mapping[str, Dataset]) -> list[Known]:
    """Return how soon the board of recordings is taken for the model's own.

    The model's own recordings are compared with those of other sessions; `boards` are others.
    """
    spec, figures = bundle.manifest.preprocessing, bundle.manifest.board
    if figures is None:
        return []
    in_order = np.array([sample.in_order for sample in data.samples])
    sessions = np.array(sessions_of(data))
    windows = [window_levels(sample, spec, figures.channels) for sample in data.samples]
    usable = in_order & np.array([len(levels) > 0 for levels in windows])
    means = np.array([np.mean(levels, axis=0) if len(levels) else np.nan for levels in windows])

    def know(samples: Sequence[Sample], session: str | None) -> Floats:
        board = TrainingBoard(
            figures.channels, means[usable & (sessions != session)], figures.limit
        )
        looks = [_known_at(BoardIdentity(board, spec.window, spec.rate_hz), s) for s in samples]
        return np.array(looks)

    own = [know([data.samples[int(k)]], str(sessions[k])) for k in np.flatnonzero(usable)]
    found = {"own, other sessions": np.concatenate(own)}
    for name, others in boards.items():
        fed = [one for one in others.samples if rate_problem(bundle.manifest, one.rate_hz) is None]
        if fed:
            found[name] = know([one.at_rate(spec.rate_hz) for one in fed], None)
    return [
        Known(bundle.manifest.name, name, len(rows), tuple(rows[:, :-1].mean(axis=0)), ever)
        for name, rows in found.items()
        for ever in [float(rows[:, -1].mean())]
    ]


def _known_at(identity: BoardIdentity, sample: Sample) -> list[bool]:
    """Return whether the board is taken for its own at `KNOWN_AT_S`, and whether it ever is."""
    step, known = round(LOOK_S * sample.rate_hz), []
    for end in range(step, len(sample.values) + 1, step):
        identity.extend(sample.values[end - step : end])
        identity.judge(round(end * 1000.0 / sample.rate_hz))
        known.append(identity.foreign is False)
    if not known:
        return [False] * (len(KNOWN_AT_S) + 1)
    last = [min(int(moment / LOOK_S), len(known)) - 1 for moment in KNOWN_AT_S]
    return [*(known[place] for place in last), any(known)]


def simulated_boards(data: Dataset) -> list[Sample]:
    """Return some training recordings as simulated other boards would have sent them."""
    chosen = np.linspace(0, len(data.samples) - 1, SIMULATED_RECORDINGS).astype(int)
    rigs = [FIXED_RIG, *(OtherRig.random(seed) for seed in range(1, SIMULATED_RIGS + 1))]
    return [
        dataclasses.replace(sample, values=rig.transform(sample.values, sample.rate_hz))
        for rig in rigs
        for sample in (data.samples[int(row)] for row in chosen)
    ]


def _windows(sample: Sample, rate_hz: float, rows: int, channels: tuple[str, ...]) -> list[Floats]:
    """Return the log-conductances of windows that overlap by half, one at the least."""
    signals = log_levels(channels)(sample.at_rate(rate_hz).values).astype(np.float64)
    starts = range(0, max(1, len(signals) - rows + 1), max(1, rows // 2))
    windows = [signals[start : start + rows] for start in starts]
    # A dead channel says nothing; its level must not make every distance NaN.
    return [np.where(np.isfinite(window), window, 0.0) for window in windows]


def play_board(bundle: Bundle, name: str, data: Dataset) -> Played:
    """Play recordings to a model, and count what it says of them."""
    fed = foreign = named = early = 0
    for sample in data.samples:
        recording = read_recording((data.folder or Path()) / sample.name)
        present, rate_hz = present_channels(recording), recording.nominal_rate_hz
        if feeding_problem(bundle.manifest, present, rate_hz) is not None:
            continue
        predictions = play(bundle, recording)
        named_ms = [one.t_ms for one in predictions if one.state is State.RECOGNISED]
        fed += 1
        foreign += any(one.foreign_board for one in predictions)
        named += bool(named_ms)
        early += bool(named_ms) and named_ms[0] <= EARLY_S * 1000.0
    return Played(bundle.manifest.name, name, len(data.samples), fed, foreign, named, early)


def play(
    bundle: Bundle, recording: Recording, correction: Correction | None = None
) -> list[Prediction]:
    """Return a nose's predictions of a recording, as `scentd replay` gives them."""
    nose = Nose(
        [bundle],
        rate_hz=recording.assumed_rate_hz,
        skip_warm_up=True,
        assume_exposed=recording.published,
        correction=correction,
    )
    steps = [nose.process(frame, arrival_ms) for frame, arrival_ms in recording.arrivals()]
    return [one for step in steps for one in step.predictions] + nose.finish()
