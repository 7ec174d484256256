"""Daemon: which MQTT brokers are there: on this computer, or announced on the network.

Asks avahi-browse where it is installed; sends nothing itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = "_mqtt._tcp"

BROWSE_S = 6.0
"""avahi-browse ends by itself when it has shown all that is known; a network may keep it longer."""

LOOPBACK = "127.0.0.1"
PORT = 1883

_FIELDS = 9
"""Of a resolved line: state, interface, protocol, name, type, domain, host, address, port."""


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """Where a broker is, and where that is known from."""

    host: str
    port: int = PORT
    source: str = "this computer"

    def __str__(self) -> str:
        """Return host and port."""
        return f"{self.host}:{self.port}"


def announced_brokers(browse: Callable[[], str] | None = None) -> Iterator[BrokerPlace]:
    """Yield the brokers that the network announces, each address once.

    `browse` returns the lines of `avahi-browse --parsable --resolve`.
    """
    seen = set()
    for line in (browse or _browse)().splitlines():
        fields = line.split(";")
        if len(fields) < _FIELDS or fields[0] != "=" or fields[2] != "IPv4":
            continue
        host, port = fields[7], fields[8]
        if re.fullmatch(r"[0-9.]{7,15}", host) and port.isdigit() and 0 < int(port) < 1 << 16:
            place = BrokerPlace(host, int(port), "announced on the network")
            if place not in seen:
                seen.add(place)
                yield place


def _browse() -> str:
    program = shutil.which("avahi-browse")
    if program is None:
        return ""
    command = (program, "--parsable", "--resolve", "--terminate", SERVICE)
    try:
        done = subprocess.run(command, capture_output=True, timeout=BROWSE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def parse_place(text: str) -> BrokerPlace | None:
    """Return the place that HOST or HOST:PORT names, None for another text."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?", text.strip())
    if match is None:
        return None
    port = PORT if match[2] is None else int(match[2])
    return BrokerPlace(match[1].strip("[]"), port, "given") if 0 < port < 1 << 16 else None
