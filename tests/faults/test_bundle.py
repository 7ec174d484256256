"""A model's bundle is damaged while the service runs, as by a failing SD card."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from daemon.cli import main
from hardware.simulator.board import SimulatedBoard
from models.manifest import INT8_MODEL
from tests.faults.rig import (
    await_event,
    await_more_predictions,
    last_health,
    logged,
)
from tests.sandbox import Mosquitto, Odours, ServiceProcess, Subscriber, settings, wait_until

NO2 = 0
SPEED = 50.0
LEMON_LATE = Odours(((None, 150), (NO2, 100_000)))


@pytest.fixture
def bundle(tmp_path: Path, toy_substances: Path) -> Path:
    """Return a copy of a bundle that a test may damage."""
    return Path(shutil.copytree(toy_substances, tmp_path / "toy-substance"))


def flip_byte(path: Path) -> None:
    """Change one byte in place, visible to every process that has the file open or mapped."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 0xFF]))


@pytest.mark.parametrize("fate", ["one byte changed", "emptied", "gone"])
def test_a_running_model_continues_when_its_bundle_is_damaged(
    broker: Mosquitto,
    tmp_path: Path,
    bundle: Path,
    fate: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    link = tmp_path / "ttyBOARD"
    text = settings(link, [bundle], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(LEMON_LATE, link=link, speed=SPEED, wait_for_listener=True),
        ServiceProcess(tmp_path, text) as service,
    ):
        await_more_predictions(subscriber)
        if fate == "one byte changed":
            flip_byte(bundle / INT8_MODEL)
        elif fate == "emptied":
            for path in bundle.iterdir():
                path.write_bytes(b"")
        else:
            shutil.rmtree(bundle)
        wait_until(lambda: subscriber.payloads("substance")[-1]["label"] == "lemon", "the lemon")
        health = last_health(service, subscriber)
    assert health["board"]["losses"] == 0
    assert main(["run", "--config", str(service.config)]) == 1
    error = capsys.readouterr().err
    assert "toy-substance" in error
    assert "Traceback" not in error


def test_a_reload_refuses_a_damaged_bundle_and_loads_it_once_it_is_restored(
    broker: Mosquitto, tmp_path: Path, bundle: Path
) -> None:
    link = tmp_path / "ttyBOARD"
    whole = (bundle / INT8_MODEL).read_bytes()
    text = settings(link, [bundle], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(LEMON_LATE, link=link, speed=SPEED, wait_for_listener=True),
        ServiceProcess(tmp_path, text) as service,
    ):
        await_more_predictions(subscriber)
        flip_byte(bundle / INT8_MODEL)
        service.process.send_signal(signal.SIGHUP)
        refused = await_event(subscriber, "reload_refused")
        await_more_predictions(subscriber)
        (bundle / INT8_MODEL).write_bytes(whole)
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"reloaded"' in service.log, "the reload")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert INT8_MODEL in refused["detail"]
    assert logged(service, "stays in force")["level"] == "error"
    assert health["board"]["losses"] == 0
    assert health["frames_lost"] == 0
