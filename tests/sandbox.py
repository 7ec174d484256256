"""Real counterparts of the daemon: Mosquitto, a subscriber, a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(happened: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until `happened()` is true; fail, saying what did not come, after `patience_s`."""
    deadline_s = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.02)


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Mosquitto:
    """A real broker in its own process, which a test may stop and start again."""

    folder: Path
    port: int
    settings: str = "allow_anonymous true"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        config = self.folder / f"mosquitto-{self.port}.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\n{self.settings}\npersistence false\n", "utf-8"
        )
        self.process = subprocess.Popen(
            [mosquitto_path(), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: accepts_connections(self.port), "Mosquitto to listen")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def mosquitto_path() -> str:
    # Debian installs it where users other than root do not look.
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("Mosquitto is not installed: sudo apt install mosquitto")
    return path


@dataclass(frozen=True)
class ReceivedMessage:
    """One message as a subscriber got it; `retained` says that it lay at the broker before."""

    topic: str
    text: str
    retained: bool
    qos: int


@dataclass
class Subscriber:
    """A real MQTT client that notes everything below `scent/`."""

    port: int
    received: list[ReceivedMessage] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("scent/#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.received.append(
            ReceivedMessage(message.topic, message.payload.decode(), message.retain, message.qos)
        )
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def texts(self, topic: str) -> list[str]:
        return [message.text for message in list(self.received) if message.topic == topic]

    def await_text(self, topic: str, text: str) -> None:
        wait_until(
            lambda: text in self.texts(topic), f"{text!r} on {topic}; received {self.received}"
        )


def retained(port: int, topic: str) -> str | None:
    """Return what the broker keeps on a topic, None when it keeps nothing."""
    with Subscriber(port) as late:
        deadline_s = time.monotonic() + 0.5
        while time.monotonic() < deadline_s and not late.texts(topic):
            time.sleep(0.02)
        kept = [
            message.text for message in late.received if message.topic == topic and message.retained
        ]
    return kept[0] if kept else None


@dataclass
class Board:
    """The host's side of nothing: a raw pseudo-terminal whose master the test holds."""

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
        """Say the same every tenth of a second, as long as the block runs."""
        enough = threading.Event()

        def chatter() -> None:
            while not enough.wait(0.1):
                self.send(data)

        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            yield
        finally:
            enough.set()
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
    """A signal for the simulated board: clean air, then an odour that moves one channel, and again.

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


@dataclass
class ServiceProcess:
    """`scentd run` in a process of its own, as a rig runs it; `through` is a command before it."""

    folder: Path
    settings: str
    environ: dict[str, str] = field(default_factory=dict)
    through: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "scentd.yaml"

    @property
    def log(self) -> str:
        return (self.folder / "scentd.log").read_text(encoding="utf-8")

    @property
    def recordings(self) -> list[Path]:
        return sorted(self.folder.glob("state/recordings/*.live.csv"))

    def __enter__(self) -> Self:
        self.config.write_text(self.settings, encoding="utf-8")
        with (self.folder / "scentd.log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [
                    *self.through,
                    *(sys.executable, "-m", "daemon.cli", "run", "--config", str(self.config)),
                ],
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **self.environ},
            )
        process = self.process
        try:
            wait_until(lambda: '"ready"' in self.log or process.poll() is not None, "ready")
            assert process.poll() is None, self.log
        except BaseException:
            self.__exit__()  # a block that is not entered is not left either
            raise
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
