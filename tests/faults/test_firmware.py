"""The firmware's machine code in front of the running service and a real broker.

The service reads the pseudo-terminal of a simulated controller (tests/hardware/avr_board.py), whose
parts show simulated readings, a row a second; bytes are lost and the controller is reset meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware.recording import read_recording
from tests.faults.rig import await_board, last_health
from tests.hardware.avr_board import RECORDING, AvrBoard, Script, build
from tests.sandbox import Mosquitto, ServiceProcess, Subscriber, recordings, settings

SECONDS = 14
SPEED = 4.0
FAULTS = ("drop 30 30 15", "pause 40 40 300", "drop 50 90 60", "reset 70 50")
"""Line 30 loses bytes, 50 and 51 run into each other, and 70 is cut by a reset."""


def test_the_service_predicts_through_torn_lines_and_a_reset_of_the_controller(
    broker: Mosquitto, tmp_path: Path
) -> None:
    built = build(tmp_path)
    script = Script.of_recording(RECORDING, SECONDS)
    link = tmp_path / "ttyBOARD"
    text = settings(link, [Path("mixtures-12")], broker.port, "record: true")
    with (
        Subscriber(broker.port) as subscriber,
        ServiceProcess(tmp_path, text) as service,
        AvrBoard(built, script.text(FAULTS), link, speed=SPEED) as board,
    ):
        board.wait()
        await_board(subscriber, "offline")
        health = last_health(service, subscriber)
    assert len(board.resets_ms) == 1
    assert health["board_restarts"] == 1
    assert health["frames_lost"] == 3  # the line that a reset cuts has no successor
    assert sum(health["frames_bad"].values()) == 3
    assert health["frames_ok"] == pytest.approx(10 * SECONDS - 4, abs=3)
    assert set(health["channels"].values()) == {"ok"}
    assert subscriber.texts("scent/rig/sensor/status") == ["offline", "online", "offline"]

    numbers = [payload["frame_seq"] for payload in subscriber.payloads("mixture")]
    assert min(np.diff(numbers)) < 0  # predictions before the reset and after it
    assert sum(np.diff(numbers) < 0) == 1
    (path,) = recordings(service)
    recorded = read_recording(path).values
    assert len(recorded) == health["frames_ok"]
    shown = {tuple(row) for row in script.values[:, :4].tolist()}
    assert {tuple(row) for row in recorded[:, :4].tolist()} == shown
