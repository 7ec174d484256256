"""Daemon: the bytes of a live board: a serial port that may be unplugged and return.

May import pyserial and the configuration's values. Must never decode a line: it gives bytes and
their time of arrival. Recordings and standard input are read by `hardware.recording`.
"""

from __future__ import annotations

import errno
import grp
import os
import termios
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import serial

from daemon.board.known_boards import chip_of, known_boards, lasting_names
from daemon.config.settings import AUTO_PORT
from daemon.system.backoff import Backoff
from daemon.system.owner import with_own_rights
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.config.settings import SourceConfig
    from daemon.system.signals import StopEvent

READ_TIMEOUT_S = 0.2
"""Time that a read waits for a byte, and so until a reader notices `stop`."""

FIRST_REOPEN_S = 0.25
LONGEST_REOPEN_S = 2.0
"""A board that is plugged in again is found within this time."""

WRITE_GROUP_BITS = 0o060

PORT_ERRORS = (serial.SerialException, OSError, termios.error)
"""What pyserial raises while a port is opened, read or hangs up; termios.error is no OSError."""


class SourceError(ScentdError):
    """The board's bytes cannot be read; the message says why and what to do."""


class PortMissingError(SourceError):
    """There is no such port or USB device now."""


class PortBusyError(SourceError):
    """Another process holds the port."""


class PortForbiddenError(SourceError):
    """The user that runs scentd may not open the port."""


class NotAPortError(SourceError):
    """The path is no serial port, but a folder or file; later a port may be there."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes as received, at least one, and the monotonic clock at their arrival."""

    data: bytes
    arrival_ms: float


@dataclass(frozen=True, slots=True)
class PortOpened:
    """The port is open and locked: bytes may follow."""

    path: str


@dataclass(frozen=True, slots=True)
class PortClosed:
    """The port is gone, or could not be opened; `reason` is a paragraph for the operator."""

    reason: str


Arrival = Chunk | PortOpened | PortClosed


def monotonic_ms() -> float:
    """Return the monotonic clock in milliseconds."""
    return time.monotonic_ns() / 1e6


def read_port(config: SourceConfig, stop: StopEvent) -> Iterator[Arrival]:
    """Yield what a port does until `stop` is set; it is opened again, with backoff, after a loss.

    The generator closes the port.

    Raises
    ------
    NotAPortError: the first attempt found no serial port at the path, but something else.
    """
    backoff = Backoff(first_s=FIRST_REOPEN_S, longest_s=LONGEST_REOPEN_S)
    unplugged, first = False, True
    while not stop.is_set():
        try:
            port = open_port(config)
        except SourceError as error:
            # Later, a container or a script may have made it while the board is away.
            if first and isinstance(error, NotAPortError):
                raise
            first = False
            # That an unplugged board's port is missing has been reported.
            if not (unplugged and isinstance(error, PortMissingError)):
                yield PortClosed(str(error))
            stop.wait(backoff.next_s())
            continue
        unplugged = first = False
        with port:
            yield PortOpened(str(port.port))
            while not stop.is_set():
                try:
                    data = read_available(port)
                except PortMissingError as error:
                    unplugged = True
                    yield PortClosed(
                        f"{error} scentd waits for it and goes on when it is plugged in again."
                    )
                    break
                if data:
                    backoff.reset()
                    yield Chunk(data, monotonic_ms())
        stop.wait(backoff.next_s())


def open_port(config: SourceConfig) -> serial.Serial:
    """Open the configured port without resetting the board, and lock it.

    Raises
    ------
    SourceError: one of its kinds, with a paragraph that says what to do.
    """
    path = find_port(config)
    port = serial.Serial()
    port.port = path
    port.baudrate = config.baud
    port.timeout = READ_TIMEOUT_S
    port.exclusive = True
    # The usual USB adapters connect DTR and RTS to an ESP32's reset and boot pins: both must be
    # inactive before the port opens, or the board restarts.
    port.dtr = False
    port.rts = False
    try:
        with with_own_rights():
            port.open()
    except (*PORT_ERRORS, ValueError) as error:
        raise _explained(path, error) from None
    return port


def read_available(port: serial.Serial) -> bytes:
    """Wait for one byte, then return all that are there; none after READ_TIMEOUT_S.

    Raises
    ------
    PortMissingError: the board was unplugged.
    """
    try:
        data: bytes = port.read(max(1, port.in_waiting))
    except PORT_ERRORS:
        raise PortMissingError(f"The board on {port.port} went away.") from None
    return data


def list_ports() -> list[Any]:
    """Return pyserial's descriptions of the serial ports."""
    # Imported only when needed: a configured path needs no search.
    found: list[Any] = import_module("serial.tools.list_ports").comports()
    return found


def find_port(config: SourceConfig) -> str:
    """Return the path to open: the configured one, that of the USB device with the ids, or auto.

    `auto` is the only port whose USB chip is that of a board.
    """
    if config.port == AUTO_PORT:
        return _only_known_board()
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
            f"No USB serial adapter with the ids {config.usb} is plugged in. {_list_of_ports()} "
            "Plug the board in, or correct source.usb."
        )
    numbers = [item.serial_number for item in found]
    listed = ", ".join(
        f"{item.device} ({f'serial number {number}' if number else 'without a serial number'})"
        for item, number in zip(found, numbers, strict=True)
    )
    usable = [number for number in numbers if number and numbers.count(number) == 1]
    mend = (
        f"Add the serial number of the board's: usb: {vendor}:{product}:{usable[0]}."
        if len(usable) == len(found)
        else "Their serial numbers do not tell them apart. Name the socket of the board "
        f"instead: port: {lasting_names(found)[0]}, or a link of a udev rule of your "
        "own, in the place of usb."
    )
    raise PortMissingError(
        f"{len(found)} USB serial adapters have the ids {config.usb}: {listed}. {mend}"
    )


def _only_known_board() -> str:
    boards = known_boards(list_ports())
    if len(boards) == 1:
        return str(boards[0].device)
    if not boards:
        raise PortMissingError(
            f"No USB serial adapter of a known board is plugged in. {_list_of_ports()} Plug the "
            "board in, or name its port: source: {port: PATH}."
        )
    names = lasting_names(boards)
    listed = ", ".join(
        f"{name} ({chip_of(port)})" for name, port in zip(names, boards, strict=True)
    )
    raise PortMissingError(
        f"{len(boards)} ports may be the board: {listed}. `port: auto` opens none of several; name "
        f"one: source: {{port: {names[0]}}}."
    )


def _explained(path: str, error: Exception) -> SourceError:
    """Return the error of pyserial or the system with its explanation and remedy."""
    code = getattr(error, "errno", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    if code in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        return PortMissingError(
            f"There is no serial port {path}. {_list_of_ports()} Plug the board in, or correct "
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
    """Return the remedy, with the group that may use the port: it differs by distribution."""
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
    """Return the processes that hold the port, as far as this user may see them."""
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


def _list_of_ports() -> str:
    ports = sorted(str(item.device) for item in list_ports())
    stable = Path("/dev/serial/by-id")
    ports += sorted(str(link) for link in stable.glob("*")) if stable.is_dir() else []
    return f"The serial ports here are: {', '.join(ports)}." if ports else "No serial port is here."
