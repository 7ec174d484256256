"""Fixtures of several folders: the real recordings, a broker, a board, toy models, fresh logs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
import structlog

from daemon.sandbox.broker import EmbeddedBroker
from models.board_identity import BOARD_LEVELS, BoardFigures
from models.manifest import ARRAYS, write_bundle
from tests.models.toys import CHANNELS, toy_arrays, toy_files, toy_manifest, toy_space
from tests.sandbox import Board, Mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator

# No test asserts that an example is quick: machines are slow under load.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Forget how a command configured the logs: its standard error ends with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def smellnet() -> Path:
    """Return the folder of the real recordings; without it the test is skipped."""
    data = os.environ.get("SCENTD_DATA", "")
    if not data:
        pytest.skip("needs real recordings: set SCENTD_DATA to the folder that holds smellnet/")
    folder = Path(data) / "smellnet"
    if not folder.is_dir():
        pytest.skip(f"SCENTD_DATA is {data}, which holds no smellnet/")
    return folder


@pytest.fixture
def absent_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a Mosquitto that has not been started."""
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def broker(absent_broker: Mosquitto) -> Mosquitto:
    """Run a Mosquitto that accepts every client."""
    absent_broker.start()
    return absent_broker


@pytest.fixture
def old_broker() -> Iterator[int]:
    """Return the port of an amqtt broker, which speaks MQTT 3.1.1 only."""
    with EmbeddedBroker() as amqtt:
        yield amqtt.port


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """Plug in a pseudo-terminal behind a link."""
    board = Board(tmp_path / "ttyBOARD").plug()
    yield board
    board.unplug()


@pytest.fixture(scope="session")
def toy_substances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real bundle, at 1 Hz, that names moving NO2 lemon, C2H5OH mint and VOC garlic."""
    folder = tmp_path_factory.mktemp("bundles") / "toy-substance"
    write_bundle(folder, toy_manifest("substance"), toy_files("substance"))
    return folder


@pytest.fixture(scope="session")
def foreign_substances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same as `toy_substances`, trained on a board that is unlike every other."""
    folder = tmp_path_factory.mktemp("foreign") / "toy-substance"
    figures = BoardFigures(CHANNELS, limit=1.0, sessions=3, recordings=20)
    levels = np.random.default_rng(2).normal([-3, 3, -3, 3], 0.1, (20, 4)).astype(np.float32)
    arrays = toy_arrays(toy_space(), **{BOARD_LEVELS: levels})
    files = {**toy_files("substance"), ARRAYS: arrays}
    write_bundle(folder, toy_manifest("substance", board=figures), files)
    return folder


@pytest.fixture(scope="session")
def toy_mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same for mixtures, at 10 Hz."""
    folder = tmp_path_factory.mktemp("bundles") / "toy-mixture"
    write_bundle(folder, toy_manifest("mixture", rate_hz=10.0), toy_files("mixture"))
    return folder
