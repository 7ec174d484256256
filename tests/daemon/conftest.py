"""Fixtures of the daemon's tests; what they start, they stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from models.manifest import write_bundle
from tests.models.toys import toy_files, toy_manifest
from tests.sandbox import (
    Board,
    Mosquitto,
    accepts_connections,
    free_port,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


# A busy machine is slow, not wrong: no test here asserts a time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Run a Mosquitto that lets everyone in."""
    mosquitto = Mosquitto(tmp_path, free_port()).start()
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def absent_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Prepare a Mosquitto that is not started yet."""
    mosquitto = Mosquitto(tmp_path, free_port())
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def old_broker() -> Iterator[int]:
    """Return the port of an amqtt broker, which speaks MQTT 3.1.1 only."""
    port = free_port()
    script = Path(__file__).with_name("amqtt_broker.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: accepts_connections(port), "amqtt to listen")
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """Plug a pseudo-terminal in behind a link."""
    board = Board(tmp_path / "ttyBOARD").plug()
    yield board
    board.unplug()


@pytest.fixture(scope="session")
def toy_substances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real bundle that calls a moving NO2 lemon, C2H5OH mint and VOC garlic, at 1 Hz."""
    folder = tmp_path_factory.mktemp("bundles") / "toy-substance"
    write_bundle(folder, toy_manifest("substance"), toy_files("substance"))
    return folder


@pytest.fixture(scope="session")
def toy_mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same for mixtures, at 10 Hz."""
    folder = tmp_path_factory.mktemp("bundles") / "toy-mixture"
    write_bundle(folder, toy_manifest("mixture", rate_hz=10.0), toy_files("mixture"))
    return folder
