"""Daemon: notifies the service manager by the protocol of sd_notify(3).

One datagram of `NAME=value` lines on the socket that NOTIFY_SOCKET names. May import the standard
library alone. Without a service manager every method does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

TIMEOUT_S = 1.0
"""How long `ready`, `reloading` and `stopping` wait for a busy service manager. `status` and
`alive` do not wait: they are soon repeated."""

ALIVE_PER_INTERVAL = 4
"""Watchdog messages per interval after which systemd would kill the service."""


class ServiceManager:
    """The service manager that started this process, if one did.

    Parameters
    ----------
    environ: holds NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; the process's own by default. They
        are removed from it, so that no child process sends messages in this process's name.
    clock: seconds of the monotonic clock.
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

    def ready(self, status: str) -> None:
        """Notify that the service is up, or up again after `reloading`."""
        self._status = status
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`; the same one is not sent twice."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}", timeout_s=0.0)

    def alive(self) -> None:
        """Send a watchdog message if one is due; call it after every piece of work."""
        if self._alive_every_s is None or self._clock() < self._next_alive_s:
            return
        self._next_alive_s = self._clock() + self._alive_every_s
        self._send("WATCHDOG=1", timeout_s=0.0)

    def reloading(self) -> None:
        """Notify that the configuration is being read again; `ready` ends that."""
        # systemd distinguishes overlapping reloads by the time (Type=notify-reload, version 253).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Notify that the service is ending in good order."""
        self._send("STOPPING=1", "STATUS=Stopping.")

    def _send(self, *lines: str, timeout_s: float = TIMEOUT_S) -> None:
        if self._address is None:
            return
        # An absent service manager must not stop the recognition.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        ):
            channel.settimeout(timeout_s)
            channel.sendto("\n".join(lines).encode(), self._address)


def _address(name: str) -> str | None:
    """Return the address of the socket; a leading @ stands for the abstract namespace's zero."""
    if name.startswith("@"):
        return "\0" + name[1:]
    # Other names, such as vsock:, are not for a service on this machine.
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
