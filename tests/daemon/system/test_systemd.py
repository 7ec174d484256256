"""Notifications to the service manager, over a real socket of either kind."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.system.systemd import ALIVE_PER_INTERVAL, ServiceManager
from tests.sandbox import PATIENCE_S


class NotifySocket:
    """The service manager's end of NOTIFY_SOCKET; `name` is what the variable holds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self._socket.settimeout(PATIENCE_S)

    def next(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")

    def silent(self) -> bool:
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    file = str(tmp_path / "notify")
    listener = NotifySocket(
        file if request.param == "file" else f"@scentd-{os.getpid()}-{id(file)}"
    )
    yield listener
    listener.close()


def test_every_notification_has_its_words(listener: NotifySocket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener.name})
    manager.ready("Smelling.")
    assert listener.next() == ["READY=1", "STATUS=Smelling."]
    manager.status("lemon\n(99 %)")
    assert listener.next() == ["STATUS=lemon (99 %)"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    word, moment = listener.next()
    assert word == "RELOADING=1"
    name, _, microseconds = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(microseconds) <= after
    manager.stopping()
    assert listener.next()[0] == "STOPPING=1"
    assert listener.silent()


def test_a_status_is_not_repeated(listener: NotifySocket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener.name})
    manager.ready("Smelling.")
    listener.next()
    manager.status("Smelling.")
    manager.alive()
    assert listener.silent()


def test_watchdog_messages_are_sent_when_they_are_due(listener: NotifySocket) -> None:
    now_s = 100.0
    environ = {
        "NOTIFY_SOCKET": listener.name,
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    manager = ServiceManager(environ, clock=lambda: now_s)
    assert ALIVE_PER_INTERVAL == 4  # so one is due every 5 s
    assert environ == {}, "a child could send messages for this process"
    manager.alive()
    assert listener.next() == ["WATCHDOG=1"]
    now_s += 4.9
    manager.alive()
    assert listener.silent()
    now_s += 0.2
    manager.alive()
    assert listener.next() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_without_a_watchdog_no_message_is_sent(
    listener: NotifySocket, environ: dict[str, str]
) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener.name, **environ})
    manager.alive()
    assert listener.silent()


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "/nowhere/at/all", "@scentd-nobody"])
def test_without_a_service_manager_nothing_fails(name: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"})
    manager.ready("Smelling.")
    manager.alive()
    manager.reloading()
    manager.stopping()
    assert (manager._address is not None) == name.startswith(("/", "@"))


def test_a_busy_service_manager_does_not_delay_the_service(listener: NotifySocket) -> None:
    """Its queue is full: what cannot be sent is dropped, and no call fails."""
    manager = ServiceManager({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "1"})
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    address = "\0" + listener.name[1:] if listener.name.startswith("@") else listener.name
    with filler, contextlib.suppress(BlockingIOError):
        while True:
            filler.sendto(b"STATUS=.", address)
    manager.alive()
    manager.stopping()
