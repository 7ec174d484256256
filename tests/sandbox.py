"""Parts around a service under test: Mosquitto, a subscriber, a board, and waiting for them."""

from __future__ import annotations

import json
import os
import pty
import threading
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest

from daemon.sandbox import broker, subscriber
from daemon.sandbox.broker import free_port
from daemon.sandbox.service_process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ServiceProcess", "free_port"]

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0


def wait_until(happened: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until `happened()` is true; after `patience_s` fail, naming `what` did not happen."""
    deadline_s = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.02)


class Mosquitto(broker.Mosquitto):
    """A real broker, which a test may stop and start again; skips where it is not installed."""

    def start(self) -> None:
        needs_mosquitto()
        super().start()


def needs_mosquitto() -> str:
    """Return the path of Mosquitto, or skip."""
    return broker.mosquitto_program() or pytest.skip(
        "Mosquitto is not installed: sudo apt install mosquitto"
    )


class Subscriber(subscriber.Subscriber):
    """A real MQTT client that collects everything below `scent/`."""

    def payloads(self, topic: str) -> list[dict[str, Any]]:
        """Return the JSON objects received so far on a topic of the rig `rig`."""
        return [json.loads(text) for text in self.texts(f"scent/rig/{topic}")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.payloads("event") if event["type"] == kind]

    def texts(self, topic: str) -> list[str]:
        return [message.text for message in list(self.received) if message.topic == topic]

    def await_text(self, topic: str, text: str) -> None:
        wait_until(
            lambda: text in self.texts(topic), f"{text!r} on {topic}; received {self.received}"
        )


def settings(
    port: Path | str, models: Sequence[Path], broker_port: int, *lines: str, mqtt: str = ""
) -> str:
    """Return the configuration of the rig `rig`; `lines` and the inside of `mqtt` are YAML."""
    names = ", ".join(str(model) for model in models)
    return "\n".join(
        [
            "rig_id: rig",
            f"source: {{port: {port}}}",
            f"models: [{names}]",
            f"mqtt: {{host: 127.0.0.1, port: {broker_port}{mqtt}}}",
            "state_dir: state",
            "live_stride_s: 2",
            *lines,
        ]
    )


def timeless(payload: dict[str, Any]) -> dict[str, Any]:
    """Drop the fields that depend on the moment of publishing rather than on the readings."""
    moment = {
        "ts",
        "clock_synced",
        "boot_id",
        "seq",
        "frame_seq",
        "latency_ms",
        "buffered",
        "topic",
    }
    return {key: value for key, value in payload.items() if key not in moment}


def retained(port: int, topic: str) -> str | None:
    """Return what Mosquitto keeps on a topic, None when it keeps nothing."""
    with Subscriber(port, topic=topic) as late:
        late.catch_up()
        return next((message.text for message in late.received if message.retained), None)


@dataclass
class Board:
    """A raw pseudo-terminal behind a link; the test writes what the board sends."""

    link: Path
    master: int = -1

    def plug(self) -> Self:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        tty.setraw(slave)
        path = os.ttyname(slave)
        os.close(slave)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(path)
        return self

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    @contextmanager
    def sending(self, data: bytes) -> Iterator[None]:
        """Send `data` every tenth of a second while the block runs."""
        stop = threading.Event()

        def repeat() -> None:
            while not stop.wait(0.1):
                self.send(data)

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def unplug(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
            self.link.unlink()


QUIET_ROW = (200, 300, 400, 500, 3, 20, 2, 25.5, 1013.0, 40.0, 80.0, 50.0)
"""A board in clean air; the toy models of the tests answer to changes of its counts."""


@dataclass
class Odours:
    """A signal for the simulated board: clean air and odours, each of which moves one channel.

    `script` holds (channel index or None for air, readings); a reading in an odour moves the
    channel on by 2 counts, so that its lag difference is steady. The noise is seeded.
    """

    script: tuple[tuple[int | None, int], ...]
    rate_hz: float = 1.0

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        rng = np.random.default_rng(1)
        for moving, readings in self.script:
            row = np.array(QUIET_ROW, dtype=np.float32)
            for _ in range(readings):
                if moving is not None:
                    row[moving] += 2
                noisy = row.copy()
                noisy[:4] += rng.integers(0, 2, size=4)
                noisy[7] += np.float32(rng.integers(0, 9)) / 100
                yield noisy


def recordings(service: ServiceProcess) -> list[Path]:
    """Return the segments that a service with `state_dir: state` has recorded."""
    return sorted(service.config.parent.glob("state/recordings/*.live.csv"))
