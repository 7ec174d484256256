"""Daemon: starts and stops MQTT brokers on the loopback interface: Mosquitto or amqtt.

amqtt (pure Python, MQTT 3.1.1 only) comes with the extra `demo`; it is imported only where
`EmbeddedBroker` starts. Knows no topic and no payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"

_PORTS = range(20_000, 32_768)
"""Below the range that Linux assigns to outgoing connections and to listeners without a port (32768
to 60999)."""

_START_WITHIN_S = 30.0
_STOP_WITHIN_S = 10.0
_EMBEDDED_SHUTDOWN_S = 1.0
_POLL_S = 0.02


class BrokerStartError(ScentdError):
    """A broker does not start, or does not answer."""


class Broker(ABC):
    """A broker that runs while its block runs; it can be stopped and started on the same port."""

    name: str

    def __init__(self, port: int | None) -> None:
        self.port = free_port() if port is None else port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start; return once it accepts connections, or raise `BrokerStartError`."""

    @abstractmethod
    def stop(self, *, kill: bool = True) -> None:
        """Stop it if it runs: abruptly, or in order."""


def free_port() -> int:
    """Return a port of the loopback interface, drawn at random, that nothing uses now."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def mosquitto_program() -> str | None:
    """Return the path of Mosquitto, None where it is not installed."""
    # Debian installs it outside the PATH of users other than root.
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("mosquitto", path=search)


class Mosquitto(Broker):
    """Mosquitto in a process of its own.

    Parameters
    ----------
    folder: for its configuration and its log.
    settings: lines of its configuration beyond the listener's.
    port: to listen on; a free one by default.
    host: address to listen on.
    command_prefix: a command that starts it, such as `ip netns exec NAME`.
    """

    name = "Mosquitto"

    def __init__(
        self,
        folder: Path,
        settings: str = "allow_anonymous true",
        *,
        port: int | None = None,
        host: str = LOOPBACK,
        command_prefix: tuple[str, ...] = (),
    ) -> None:
        super().__init__(port)
        self._folder, self._settings, self._host = folder, settings, host
        self._command_prefix = command_prefix
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Id of the running process."""
        if self._process is None:
            raise RuntimeError("Mosquitto has a process only between start and stop")
        return self._process.pid

    def start(self) -> None:
        """Start it; return once its log states that it runs."""
        program = mosquitto_program()
        if program is None:
            raise BrokerStartError(
                "Mosquitto is not installed. Install it: sudo apt install mosquitto."
            )
        config = self._folder / f"mosquitto-{self.port}.conf"
        log = config.with_suffix(".log")
        # It keeps root's rights (elsewhere `user` has no effect) to read files of this folder.
        config.write_text(
            f"listener {self.port} {self._host}\nuser root\nlog_dest stderr\nlog_type error\n"
            f"log_type information\nconnection_messages false\n{self._settings}\n",
            encoding="utf-8",
        )
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [*self._command_prefix, program, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        give_up_s = time.monotonic() + _START_WITHIN_S
        # No test by a connection: another process might answer on that port.
        while b" running" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                self.stop()
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise BrokerStartError(
                    f"Mosquitto ({program}) did not listen on {self._host} port {self.port} "
                    f"within {_START_WITHIN_S:.0f} s. Its log ends with: "
                    f"{lines[-1] if lines else 'nothing'}"
                )
            time.sleep(_POLL_S)

    def stop(self, *, kill: bool = True) -> None:
        """Kill it, or let it end in order, when it writes its sessions if so configured."""
        if self._process is None:
            return
        if not kill:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_WITHIN_S)
        self._process.kill()
        self._process.wait()
        self._process = None


class EmbeddedBroker(Broker):
    """amqtt in a thread of this process; it needs no Mosquitto, but the extra `demo`."""

    name = "amqtt"

    def __init__(self) -> None:
        super().__init__(None)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it; return once it accepts connections."""
        # amqtt warns of every client that disconnects.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        started = Future[None]()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="broker", daemon=True
        )
        self._thread.start()
        try:
            started.result(_START_WITHIN_S)
        except Exception as failure:
            raise BrokerStartError(
                f"The embedded MQTT broker did not start on {LOOPBACK} port {self.port} "
                f"({failure or 'no answer'}). The loopback interface must be usable, and amqtt "
                "0.11 or newer installed: pip install --upgrade 'scentd[demo]'."
            ) from failure

    def stop(self, *, kill: bool = True) -> None:  # noqa: ARG002 - it shares this process
        """Stop it, always in order: there is no process to kill."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_WITHIN_S)
        self._thread = None

    def _run(self, started: Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(started))
        except BaseException as failure:  # noqa: BLE001 - raised again where the start is awaited
            if not started.done():
                started.set_exception(failure)

    async def _serve(self, started: Future[None]) -> None:
        from amqtt.broker import Broker  # noqa: PLC0415 - of the extra `demo`

        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
        started.set_result(None)
        await self._stopping.wait()
        # amqtt would wait longer for messages without a receiver.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(broker.shutdown(), _EMBEDDED_SHUTDOWN_S)
