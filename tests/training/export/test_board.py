"""What a bundle says of the board that made its training recordings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.channels import GROVE_INDICES, N_CHANNELS
from models.board_identity import BOARD_AIR, BOARD_LEVELS, TrainingBoard
from models.bundle import load_bundle
from models.manifest import write_bundle
from models.preprocess import PreprocessSpec
from tests.models.toys import toy_files, toy_manifest
from tests.training.exposures import two_days
from training.data.dataset import DataError, Dataset, Sample
from training.export.board import add_board, measure_board, window_levels

if TYPE_CHECKING:
    from pathlib import Path

SPEC = PreprocessSpec(
    channels=("NO2", "C2H5OH", "VOC", "CO"), rate_hz=1.0, lags=(5,), first_step=5, window=30
)


def recordings(shift: float = 0.0, sessions: int = 6, sha256: str = "") -> Dataset:
    """Return recordings of a board whose sessions differ a little and whose odours differ much.

    `shift` is another board's change of log-conductance between NO2 and the other channels.
    """
    rng = np.random.default_rng(3)
    samples = []
    for session in range(sessions):
        day = rng.normal(0, 0.05, 4)
        for number in range(5):
            level = np.array([-2.0, -1.5, -1.0, 1.0]) + day + rng.uniform(0, 2)
            level += [shift, 0, 0, 0]
            values = np.full((90, N_CHANNELS), np.nan, dtype=np.float32)
            noise = rng.normal(0, 0.02, (90, 4))
            values[:, GROVE_INDICES] = 1023 / (1 + np.exp(-(level + noise)))
            name = f"day{session}/{number}.csv"
            target = np.ones(1, dtype=np.float32)
            samples.append(Sample(name, sha256, values, target, name, 1.0, session=f"day{session}"))
    return Dataset("substance", ("lemon",), tuple(samples))


def share_of_another_board(board: TrainingBoard, data: Dataset) -> float:
    distances = [
        board.distance(levels)
        for sample in data.samples
        for levels in window_levels(sample, SPEC, board.channels)
    ]
    return float(np.mean(np.array(distances) > 1.0))


def test_recordings_that_begin_in_clean_air_give_that_of_the_board() -> None:
    measured = measure_board(two_days(), SPEC)
    assert measured is not None
    figures, arrays = measured
    assert figures.air_limit is not None
    assert arrays[BOARD_AIR].shape == (18, 4)
    assert arrays[BOARD_AIR].mean(axis=0) == pytest.approx([-1.0, -0.5, -1.5, 0.5], abs=0.1)


def test_recordings_within_an_exposure_give_no_clean_air() -> None:
    measured = measure_board(recordings(), SPEC)
    assert measured is not None
    assert measured[0].air_limit is None
    assert BOARD_AIR not in measured[1]


def test_sessions_held_out_set_the_limit_and_another_board_exceeds_it() -> None:
    measured = measure_board(recordings(), SPEC)
    assert measured is not None
    figures, arrays = measured
    assert (figures.sessions, figures.recordings) == (6, 30)
    assert arrays[BOARD_LEVELS].shape == (30, 4)
    board = TrainingBoard.from_bundle(figures, arrays)
    assert board is not None
    assert share_of_another_board(board, recordings()) == 0
    assert share_of_another_board(board, recordings(shift=1.5)) == 1


def test_one_session_leaves_room_for_another_day() -> None:
    measured = measure_board(recordings(sessions=1), SPEC)
    assert measured is not None
    board = TrainingBoard.from_bundle(*measured)
    assert board is not None
    assert share_of_another_board(board, recordings(shift=0.2)) < 0.1
    assert share_of_another_board(board, recordings(shift=2.0)) == 1


def test_a_model_without_two_gas_channels_has_no_figures() -> None:
    spec = dataclasses.replace(SPEC, channels=("NO2",))
    assert measure_board(recordings(), spec) is None


def test_figures_are_added_to_a_bundle_that_stays_the_same_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    before = write_bundle(folder, toy_manifest(), toy_files())
    manifest = add_board(folder, recordings(sha256="00ff"))
    bundle = load_bundle(folder)
    assert bundle.board is not None
    assert manifest.board == bundle.manifest.board
    kept = {"board": None, "files": {}, "sha256": ""}
    assert dataclasses.replace(manifest, **kept) == dataclasses.replace(before, **kept)  # type: ignore[arg-type]
    assert {name: manifest.files[name] for name in before.files} == before.files


def test_recordings_that_did_not_train_the_model_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    write_bundle(folder, toy_manifest(), toy_files())
    with pytest.raises(DataError, match="found 0 of 2"):
        add_board(folder, recordings(sha256="abcd"))
    assert load_bundle(folder).board is None
