"""Daemon: where the web server listens, whom it trusts, whose recordings it shows.

May import the standard library alone.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_PORT = 8733
DEFAULT_HOST = "127.0.0.1"

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names by which a browser on this computer reaches the loopback interface."""

_LARGEST_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class WebOptions:
    """The options of `scentd web`.

    Attributes
    ----------
    host, port: where it listens; port 0 takes a free one.
    root_path: prefix of the path under which a proxy serves the page; empty without one.
    allowed_hosts: names by which the page is reached besides those of this computer.
    trusted: addresses of proxies that have checked who calls, such as Home Assistant's ingress.
    only_trusted: whether all others are refused; no token is needed then.
    state_dirs: state folders by rig; the page shows and changes their recordings.
    configs: configuration files by rig; their models play recordings back.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    root_path: str = ""
    allowed_hosts: frozenset[str] = frozenset()
    trusted: frozenset[str] = frozenset()
    only_trusted: bool = False
    state_dirs: Mapping[str, Path] = field(default_factory=dict)
    configs: Mapping[str, Path] = field(default_factory=dict)


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `8733`, `0.0.0.0:8733`, `[::]:8733`.

    Raises
    ------
    UsageError: the text names no address and port.
    """
    host, _, port = text.rpartition(":")
    host = (host or DEFAULT_HOST).removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > _LARGEST_PORT:
        raise UsageError(
            f"--listen must be PORT, ADDRESS:PORT or [ADDRESS]:PORT with a port up to "
            f"{_LARGEST_PORT}, and {text!r} came. For example: --listen 0.0.0.0:{DEFAULT_PORT}"
        )
    return host, int(port)


def parse_root_path(text: str) -> str:
    """Return a prefix of paths with a slash at its beginning and none at its end; "" for none.

    Raises
    ------
    UsageError: the text is no path.
    """
    prefix = text.rstrip("/")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"--root-path must be a path such as /scent, of letters, digits and . _ ~ -, and "
            f"{text!r} came."
        )
    return prefix


def parse_host_name(text: str) -> str:
    """Return the name of a host in lower case, without a port.

    Raises
    ------
    UsageError: it is no such name.
    """
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"--allow-host must be a name without a port, such as scent.example.org, and {text!r} "
            "came."
        )
    return text.lower()


def parse_address(text: str) -> str:
    """Return an IP address in its usual form.

    Raises
    ------
    UsageError: it is no address.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(
            f"--trust must be the IP address of a proxy, such as 172.30.32.2, and {text!r} came."
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
