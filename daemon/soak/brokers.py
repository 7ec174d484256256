"""Soak: the broker under the storm: Mosquitto in a process of its own, or the demo's.

The one module of the soak that knows how a broker is run; it starts on a free port every time.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from daemon.sandbox.broker import LOOPBACK
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.sandbox.broker import EmbeddedBroker

_START_WITHIN_S = 30.0
_STOP_WITHIN_S = 10.0
_POLL_S = 0.02


class SoakBrokerError(ScentdError):
    """The storm's broker does not start."""


class SoakBroker(Protocol):
    """A broker that can be ended and started again."""

    name: str
    port: int

    def start(self) -> None:
        """Start, on another port than before; returns when it takes connections."""

    def end(self, *, kill: bool) -> None:
        """End it: killed as by a power cut, or asked to."""


def storm_broker(folder: Path) -> SoakBroker:
    """Return Mosquitto where it is installed, else the broker of the demo."""
    # Debian installs it where users other than root do not look.
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    program = shutil.which("mosquitto", path=search)
    return Embedded() if program is None else Mosquitto(program, folder)


class Mosquitto:
    """The usual broker. Its settings let a subscriber have everything at once, in order.

    Parameters
    ----------
    program : str
        Its path.
    folder : Path
        For its settings and its sessions, which outlive an orderly end.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.name = "Mosquitto"
        self.port = 0
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start on a free port."""
        self.port = _free_port()
        settings = self._folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} {LOOPBACK}\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self._folder}/\nmax_inflight_messages 0\n"
            "max_queued_messages 0\nset_tcp_nodelay true\nlog_type none\nuser root\n",
            encoding="utf-8",
        )
        self._process = subprocess.Popen(
            [self._program, "-c", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + _START_WITHIN_S
        while not _accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.end(kill=True)
                raise SoakBrokerError(
                    f"Mosquitto ({self._program}) did not take connections on {LOOPBACK} port "
                    f"{self.port} within {_START_WITHIN_S:.0f} s. Try it by hand: mosquitto -v."
                )
            time.sleep(_POLL_S)

    def end(self, *, kill: bool) -> None:
        """Kill it, or ask it to end; then it keeps its sessions."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Embedded:
    """The demo's broker (amqtt), in this process: it can be ended, not killed."""

    def __init__(self) -> None:
        self.name = "amqtt"
        self.port = 0
        self._broker: EmbeddedBroker | None = None

    def start(self) -> None:
        """Start a new one on a free port."""
        from daemon.sandbox.broker import EmbeddedBroker  # noqa: PLC0415 - of the extra `demo`

        self._broker = EmbeddedBroker()
        self._broker.__enter__()
        self.port = self._broker.port

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - it shares this process
        """End it."""
        if self._broker is not None:
            self._broker.__exit__(None, None, None)
            self._broker = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
