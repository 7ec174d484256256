"""Daemon: where a live board's bytes come from: a serial port that may vanish and return.

May import pyserial and the configuration's values. Must never decode a line: it
gives bytes and their arrival time, nothing else. Recordings and standard input
need no port and are read by `hardware.recording`, through the same decoder.
"""

from __future__ import annotations

import errno
import grp
import os
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import serial

from daemon.system.backoff import Backoff
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.config.settings import SourceConfig
    from daemon.system.signals import StopEvent

READ_TIMEOUT_S = 0.2
"""How long a read waits for a byte: also how soon a reader notices that it shall stop."""

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 2.0
"""A replugged board is back within this time."""

WRITE_GROUP_BITS = 0o060


class SourceError(ScentdError):
    """The board's bytes cannot be had; the message says why and what to do."""


class PortMissingError(SourceError):
    """No such port, or no such USB device, is there now."""


class PortBusyError(SourceError):
    """Another process holds the port."""


class PortForbiddenError(SourceError):
    """The user that scentd runs as may not open the port."""


class NotAPortError(SourceError):
    """The path is something else than a serial port; waiting will not change that."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes as they came.

    Attributes
    ----------
    data: never empty.
    arrival_ms: monotonic clock at their arrival, in milliseconds.
    """

    data: bytes
    arrival_ms: float


@dataclass(frozen=True, slots=True)
class PortOpened:
    """The port is there and locked: bytes may follow."""

    path: str


@dataclass(frozen=True, slots=True)
class PortClosed:
    """The port is gone, or could not be opened; `reason` is the paragraph for the operator."""

    reason: str


Arrival = Chunk | PortOpened | PortClosed


def monotonic_ms() -> float:
    """Return the process's steady clock in milliseconds."""
    return time.monotonic_ns() / 1e6


class SerialSource:
    """A board on a serial port: opened with backoff, its unplugging noticed, its return healed.

    Parameters
    ----------
    config : SourceConfig
        The port's path or the adapter's USB ids.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config

    def arrivals(self, stop: StopEvent) -> Iterator[Arrival]:
        """Yield what the port does until `stop` is set; the generator closes the port.

        Raises
        ------
        NotAPortError
            If the path can never become a serial port.
        """
        backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S)
        unplugged = False
        while not stop.is_set():
            try:
                port = open_port(self._config)
            except NotAPortError:
                raise
            except SourceError as error:
                # That an unplugged board's port is missing is no news.
                if not (unplugged and isinstance(error, PortMissingError)):
                    yield PortClosed(str(error))
                stop.wait(backoff.next_s())
                continue
            unplugged = False
            with port:
                yield PortOpened(str(port.port))
                while not stop.is_set():
                    try:
                        # One byte at least, then whatever else is there already.
                        data = port.read(max(1, port.in_waiting))
                    except (serial.SerialException, OSError):
                        unplugged = True
                        yield PortClosed(_unplugged(str(port.port)))
                        break
                    if data:
                        backoff.reset()
                        yield Chunk(data, monotonic_ms())
            stop.wait(backoff.next_s())


def open_port(config: SourceConfig) -> serial.Serial:
    """Open the configured port without resetting the board, and lock it.

    Raises
    ------
    SourceError
        One of its kinds, with the paragraph that says what to do.
    """
    path = find_port(config)
    port = serial.Serial()
    port.port = path
    port.baudrate = config.baud
    port.timeout = READ_TIMEOUT_S
    port.exclusive = True
    # The usual USB adapters wire DTR and RTS to an ESP32's reset and boot pins:
    # both must rest before the port opens, or the board restarts.
    port.dtr = False
    port.rts = False
    try:
        port.open()
    except (serial.SerialException, OSError, ValueError) as error:
        raise _explained(path, error) from None
    return port


def list_ports() -> list[Any]:
    """Return what pyserial knows of the serial ports that are there now."""
    # Loaded only where it is needed: a port that is given and there needs no search.
    found: list[Any] = import_module("serial.tools.list_ports").comports()
    return found


def find_port(config: SourceConfig) -> str:
    """Return the path to open: the configured one, or that of the USB device with the ids."""
    if config.usb is None:
        # The configuration holds exactly one of the two.
        return str(config.port)
    vendor, product, *rest = config.usb.split(":")
    wanted = (int(vendor, 16), int(product, 16))
    found = [
        item
        for item in list_ports()
        if (item.vid, item.pid) == wanted and (not rest or item.serial_number == rest[0])
    ]
    if len(found) == 1:
        return str(found[0].device)
    if not found:
        raise PortMissingError(
            f"No USB serial adapter with the ids {config.usb} is plugged in. {_ports_told()} "
            "Plug the board in, or correct source.usb."
        )
    told = ", ".join(f"{item.device} (serial number {item.serial_number})" for item in found)
    raise PortMissingError(
        f"{len(found)} USB serial adapters have the ids {config.usb}: {told}. Add the serial "
        f"number of the board's: usb: {vendor}:{product}:{found[0].serial_number}."
    )


def _explained(path: str, error: Exception) -> SourceError:
    """Turn what pyserial and the system said into the paragraph with the mend."""
    code = getattr(error, "errno", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    if code in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        return PortMissingError(
            f"There is no serial port {path}. {_ports_told()} Plug the board in, or correct "
            "source.port."
        )
    if code in {errno.EACCES, errno.EPERM}:
        return PortForbiddenError(_forbidden(path))
    if code in {errno.EBUSY, errno.EAGAIN} or "exclusively lock" in str(error):
        return PortBusyError(
            f"The serial port {path} is held by another program{_holders(path)}. Stop it "
            "(for the installed service: sudo systemctl stop scentd), or use another port."
        )
    if code == errno.ENOTTY or "Inappropriate ioctl" in str(error) or code == errno.EISDIR:
        return NotAPortError(
            f"{path} is not a serial port but a {_kind(path)}. Name the board's port, for example "
            "/dev/ttyUSB0; to recognise a recording use: scentd replay FILE."
        )
    return PortMissingError(
        f"The serial port {path} could not be opened ({error}). Unplug the board, plug it in "
        "again, and see what the kernel says: sudo dmesg | tail."
    )


def _kind(path: str) -> str:
    if Path(path).is_dir():
        return "folder"
    return "file" if Path(path).is_file() else "device of another kind"


def _forbidden(path: str) -> str:
    """Say which group may use the port: it differs between distributions."""
    try:
        status = Path(path).stat()
        group = grp.getgrgid(status.st_gid).gr_name
        mode = status.st_mode
    except (OSError, KeyError):
        group, mode = "dialout", WRITE_GROUP_BITS
    user = os.environ.get("USER") or str(os.getuid())
    if mode & WRITE_GROUP_BITS == WRITE_GROUP_BITS and group != "root":
        return (
            f"User {user} may not open the serial port {path}: it belongs to group {group}. Join "
            f"it with: sudo usermod -aG {group} {user}; then log out and in again."
        )
    return (
        f"User {user} may not open the serial port {path}, and neither may its group {group}. "
        "Install the udev rule that comes with scentd (systemd/), or: sudo chmod g+rw "
        f"{path} after sudo chgrp dialout {path}."
    )


def _holders(path: str) -> str:
    """Name the processes that hold the port, as far as this user may see them."""
    target = os.path.realpath(path)
    holders = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            held = any(
                os.path.realpath(descriptor) == target for descriptor in (process / "fd").iterdir()
            )
            name = (process / "comm").read_text(encoding="utf-8").strip() if held else ""
        except OSError:
            continue  # another user's process, or one that just ended
        if held:
            holders.append(f"{name} (process {process.name})")
    return f": {', '.join(holders)}" if holders else ""


def _ports_told() -> str:
    ports = sorted(str(item.device) for item in list_ports())
    stable = Path("/dev/serial/by-id")
    ports += sorted(str(link) for link in stable.glob("*")) if stable.is_dir() else []
    return f"The serial ports here are: {', '.join(ports)}." if ports else "No serial port is here."


def _unplugged(path: str) -> str:
    return (
        f"The board on {path} went away. scentd waits for it and goes on when it is plugged in "
        "again."
    )
