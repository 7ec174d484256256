"""Real counterparts of the daemon: Mosquitto, a subscriber, a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import threading
import time
import tty
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


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
class Heard:
    """One message as a subscriber got it; `retained` says that it lay at the broker before."""

    topic: str
    text: str
    retained: bool
    qos: int


@dataclass
class Subscriber:
    """A real MQTT client that notes everything below `scent/`."""

    port: int
    heard: list[Heard] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("scent/#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            Heard(message.topic, message.payload.decode(), message.retain, message.qos)
        )
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def texts(self, topic: str) -> list[str]:
        return [message.text for message in list(self.heard) if message.topic == topic]

    def await_text(self, topic: str, text: str) -> None:
        wait_until(lambda: text in self.texts(topic), f"{text!r} on {topic}; heard {self.heard}")


def retained(port: int, topic: str) -> str | None:
    """Return what the broker keeps on a topic, None when it keeps nothing."""
    with Subscriber(port) as late:
        deadline_s = time.monotonic() + 0.5
        while time.monotonic() < deadline_s and not late.texts(topic):
            time.sleep(0.02)
        kept = [
            message.text for message in late.heard if message.topic == topic and message.retained
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

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def unplug(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
            self.link.unlink()
