"""Daemon: what systemd is told of this process, by the protocol of sd_notify(3).

One datagram of `NAME=value` lines on the socket that NOTIFY_SOCKET names. Knows no pipeline:
who calls `alive` vouches for having got ahead. May import the standard library alone; without a
service manager every method does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

PATIENCE_S = 1.0
"""How long `ready`, `reloading` and `stopping` wait for a service manager that is busy. A status or
a sign of life waits for nobody: the next one comes soon, and readings come now."""

ALIVE_PER_INTERVAL = 4
"""So many signs of life in the time after which systemd would kill a silent service."""


class ServiceManager:
    """The service manager that started this process, if one did.

    Parameters
    ----------
    environ : mutable mapping, optional
        Where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID stand; the process's own unless said
        otherwise. They are taken out of it, so that no child speaks in this process's name.
    clock : callable
        Seconds of the monotonic clock.
    """

    def __init__(
        self,
        environ: MutableMapping[str, str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._alive_every_s = _alive_every_s(
            environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        )
        self._clock = clock
        self._next_alive_s = -float("inf")
        self._status = ""

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._address is not None

    @property
    def alive_every_s(self) -> float | None:
        """How often a sign of life is sent, in seconds; None where nobody watches."""
        return self._alive_every_s

    def ready(self, status: str) -> None:
        """Say that the service is up, or up again after `reloading`."""
        self._status = status
        self._tell("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`; the same one is not sent twice."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={_line(text)}", patience_s=0.0)

    def alive(self) -> None:
        """Feed the watchdog, as often as it is due; call it after every piece of work."""
        if self._alive_every_s is None or self._clock() < self._next_alive_s:
            return
        self._next_alive_s = self._clock() + self._alive_every_s
        self._tell("WATCHDOG=1", patience_s=0.0)

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        # systemd tells by the time which of two overlapping reloads this is (notify-reload, 253).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the service goes down in good order."""
        self._tell("STOPPING=1", "STATUS=Stopping.")

    def _tell(self, *lines: str, patience_s: float = PATIENCE_S) -> None:
        if self._address is None:
            return
        # A service manager that is gone or deaf is no reason to stop smelling.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        ):
            channel.settimeout(patience_s)
            channel.sendto("\n".join(lines).encode(), self._address)


def _address(name: str) -> str | None:
    """Return the address of the socket; a leading @ stands for the abstract namespace's zero."""
    if name.startswith("@"):
        return "\0" + name[1:]
    # vsock: names, for virtual machines that tell their host, are not for a service inside one.
    return name if name.startswith("/") else None


def _alive_every_s(microseconds: str, process: str) -> float | None:
    if process and process != str(os.getpid()):
        return None
    if not microseconds.isascii() or not microseconds.isdigit() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6 / ALIVE_PER_INTERVAL


def _line(text: str) -> str:
    """Return the text on one line: a newline would begin another assignment."""
    return " ".join(text.split())
