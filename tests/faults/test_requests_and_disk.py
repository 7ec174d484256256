"""Requests to a service whose disk hangs: the recognition waits for none, and each is answered.

The disk below the rig's configuration and state hangs for reads and writes alike
(`daemon.soak.hanging_disk`). `test_disk.py` freezes a real file system: only writes wait for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from daemon.soak.hanging_disk import HangingDisk
from daemon.soak.power_cut import compiler
from hardware.simulator.board import SimulatedBoard
from tests.calibration.smells import teachable_bundle
from tests.faults.rig import await_event, await_more_predictions, last_health
from tests.sandbox import Mosquitto, Odours, ServiceProcess, Subscriber, settings, wait_until

SPEED = 50.0
SETTLE_S = 0.3
"""What was published before the request was handled arrives within this time."""
LEMON = Odours(((None, 120), (0, 60)) * 500)

REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("enroll", {"action": "list"}),
    ("enroll", {"action": "exposures", "label": "petrol"}),
    ("enroll", {"label": "petrol", "last_s": 50}),
    ("enroll", {"action": "hide", "label": "lemon"}),
    ("enroll", {"action": "unhide", "label": "lemon"}),
    ("enroll", {"action": "rename", "label": "lemon", "name": "citron"}),
    ("enroll", {"action": "promote", "label": "petrol"}),
    ("enroll", {"action": "forget", "label": "petrol"}),
    ("enroll", {"action": "rollback"}),
    ("enroll", {"action": "export"}),
    ("enroll", {"action": "import", "path": "exports/smells.zip"}),
    ("enroll", {"action": "reload"}),
    ("calibrate", {"action": "show"}),
    ("calibrate", {"action": "baseline", "last_s": 30}),
    ("calibrate", {"action": "reference", "label": "mint", "last_s": 30}),
    ("calibrate", {"action": "undo"}),
    ("calibrate", {"action": "forget"}),
    ("calibrate", {"action": "reload"}),
    ("calibrate", {"action": "fit"}),
    ("models", {"action": "list"}),
    ("models", {"action": "install", "path": "made/toy-substance"}),
    ("models", {"action": "switch", "name": "toy-substance", "version": "2.0"}),
    ("models", {"action": "rollback"}),
    ("feedback", {"verdict": "right"}),
    ("feedback", {"action": "list"}),
    ("feedback", {"action": "accept", "id": "0123abcd-1"}),
    ("feedback", {"action": "dismiss", "id": "0123abcd-1"}),
    ("record", {"action": "list"}),
    ("reload", {}),
)


class Rig:
    """A service with its disk, board and subscriber."""

    def __init__(self, service: ServiceProcess, subscriber: Subscriber, port: int) -> None:
        self.service = service
        self.subscriber = subscriber
        self._port = port

    def ask(self, command: str, transaction: str, **payload: object) -> None:
        """Send a request."""
        text = json.dumps({**payload, "transaction": transaction})
        publish.single(f"scent/rig/request/{command}", text, port=self._port)

    def answers(self, command: str, transaction: str) -> list[dict[str, Any]]:
        """Return the answers to a request so far."""
        answers = self.subscriber.payloads(f"response/{command}")
        return [answer for answer in answers if answer["transaction"] == transaction]

    def answer(self, command: str, transaction: str) -> dict[str, Any]:
        """Wait for the answer to a request."""
        wait_until(lambda: self.answers(command, transaction), f"the answer to {command}")
        return self.answers(command, transaction)[0]

    def processes_readings(self) -> bool:
        """Tell whether more readings are processed within a few seconds."""
        time.sleep(SETTLE_S)
        enough = len(self.subscriber.texts("scent/rig/sample")) + 20
        until_s = time.monotonic() + 4.0
        while time.monotonic() < until_s:
            if len(self.subscriber.texts("scent/rig/sample")) >= enough:
                return True
            time.sleep(0.02)
        return False

    def begins(self, transaction: str) -> None:
        """Wait until the service handles a request."""
        found = f'"transaction": "{transaction}"'
        wait_until(lambda: found in self.service.log, f"the beginning of {transaction}")


@contextmanager
def running(folder: Path, broker: Mosquitto) -> Iterator[tuple[HangingDisk, Rig]]:
    link, place = folder / "ttyBOARD", folder / "disk"
    place.mkdir()
    teachable_bundle(folder)
    if compiler() is None:
        pytest.skip("needs a C compiler: sudo apt install gcc")
    disk = HangingDisk(folder, place)
    more = ("record: true", "recording: {reserve_mb: 0}")
    # Samples do not pass the outbox, which waits for the disk for 5 s before it uses memory.
    text = settings(link, [folder / "toy-substance"], broker.port, *more, mqtt=", sample: true")
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(LEMON, link=link, speed=SPEED, wait_for_listener=True),
        ServiceProcess(place, text, environ=disk.build()) as service,
    ):
        await_event(subscriber, "recognised")
        yield disk, Rig(service, subscriber, broker.port)
        last_health(service, subscriber)


def test_no_request_keeps_the_recognition_waiting_for_the_disk(
    broker: Mosquitto, tmp_path: Path
) -> None:
    waited = []
    with running(tmp_path, broker) as (disk, rig):
        for number, (command, payload) in enumerate(REQUESTS):
            transaction = f"number {number}"
            with disk.hanging():
                rig.ask(command, transaction, **payload)
                rig.begins(transaction)
                if not rig.processes_readings():
                    waited.append((command, payload))
            answer = rig.answer(command, transaction)
            assert "disk" not in str(answer["error"]), answer
    assert waited == []


def test_each_request_is_answered_while_the_disk_hangs_and_done_when_it_answers(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """One after the other in the order in which they came; what was not begun is not done."""
    with running(tmp_path, broker) as (disk, rig):
        with disk.hanging():
            rig.ask("enroll", "begun", action="hide", label="lemon")
            rig.ask("enroll", "waits", action="hide", label="mint")
            rig.ask("calibrate", "waits", action="show")
            rig.ask("models", "waits", action="list")
            rig.ask("feedback", "waits", verdict="right")
            rig.ask("reload", "waits")
            rig.ask("status", "at once")
            assert rig.answer("status", "at once")["status"] == "ok"
            assert "will be done when it answers" in rig.answer("enroll", "begun")["error"]
            for command in ("enroll", "calibrate", "models", "feedback", "reload"):
                assert "does not answer, so nothing" in rig.answer(command, "waits")["error"]
            rig.ask("enroll", "later", action="list")
            assert "does not answer, so nothing" in rig.answer("enroll", "later")["error"]
            await_more_predictions(rig.subscriber)

        def listed() -> dict[str, Any]:
            transaction = f"listed {len(rig.subscriber.payloads('response/enroll'))}"
            rig.ask("enroll", transaction, action="list")
            return rig.answer("enroll", transaction)

        wait_until(lambda: listed()["status"] == "ok", "a disk that answers")
        assert listed()["data"]["hidden"] == ["lemon"]
    for command in ("enroll", "calibrate", "models", "feedback", "reload"):
        assert len(rig.answers(command, "waits")) == 1
    assert len(rig.answers("enroll", "begun")) == 1
