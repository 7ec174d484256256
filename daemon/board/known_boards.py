"""Daemon: which serial ports are those of known boards, by the ids of their USB chips.

Knows ids and names alone; opens no port. The chip does not identify the board behind it: it is one
that such boards have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN_CHIPS = {
    (0x10C4, 0xEA60): "CP210x",
    (0x1A86, 0x7523): "CH340",
    (0x1A86, 0x5523): "CH341",
    (0x1A86, 0x55D4): "CH9102",
    (0x0403, 0x6001): "FTDI",
    (0x0403, 0x6015): "FTDI",
    (0x303A, 0x1001): "ESP32-S3 or -C3",
}
"""USB serial chips of the boards (build-a-board.md) by vendor and product; the udev rule in
systemd/99-scentd.rules has the same."""

KNOWN_VENDORS = {0x239A: "Adafruit board"}
"""Vendors all of whose devices are boards."""

LINK_FOLDERS = (Path("/dev/serial/by-id"), Path("/dev/serial/by-path"))


def chip_of(port: Any) -> str | None:
    """Return the chip of a port that pyserial describes, None for no known one."""
    return KNOWN_CHIPS.get((port.vid, port.pid)) or KNOWN_VENDORS.get(port.vid)


def known_boards(ports: Iterable[Any]) -> list[Any]:
    """Return the ports whose USB chip is that of a board, sorted by their device."""
    found = [port for port in ports if chip_of(port) is not None]
    return sorted(found, key=lambda port: str(port.device))


def lasting_names(ports: Iterable[Any]) -> list[str]:
    """Return a name of each port that stays the same when boards are plugged in again.

    It is the link below by-id, or where chips cannot be told apart that below by-path, which names
    the socket; the device itself where neither exists.
    """
    ports, (by_id, by_path) = list(ports), LINK_FOLDERS
    numbers = [(port.vid, port.pid, port.serial_number) for port in ports]
    names = []
    for port, number in zip(ports, numbers, strict=True):
        distinct = number[2] and numbers.count(number) == 1
        places = (by_id, by_path) if distinct or len(ports) == 1 else (by_path, by_id)
        links = (_link_to(str(port.device), place) for place in places)
        names.append(next(filter(None, links), str(port.device)))
    return names


def _link_to(device: str, folder: Path) -> str | None:
    for link in sorted(folder.glob("*")):
        if os.path.realpath(link) == os.path.realpath(device):
            return str(link)
    return None
