"""Serial ports: opened, locked, opened again after an unplugging, and their errors explained."""

from __future__ import annotations

import errno
import os
import re
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import serial

from daemon.board import known_boards, port
from daemon.board.port import (
    Chunk,
    NotAPortError,
    PortBusyError,
    PortClosed,
    PortForbiddenError,
    PortMissingError,
    PortOpened,
    open_port,
    read_available,
    read_port,
)
from daemon.config.settings import SourceConfig
from daemon.system.signals import StopEvent
from tests.sandbox import ROOT, wait_until

if TYPE_CHECKING:
    from daemon.board.port import Arrival
    from tests.sandbox import Board


class Reader:
    """Collects the arrivals of a port in a thread, as the service does."""

    def __init__(self, source: SourceConfig) -> None:
        self.seen: list[Arrival] = []
        self._stop = StopEvent()
        self._thread = threading.Thread(target=self._read, args=(source,))

    def _read(self, source: SourceConfig) -> None:
        for arrival in read_port(source, self._stop):
            self.seen.append(arrival)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def data(self) -> bytes:
        return b"".join(item.data for item in list(self.seen) if isinstance(item, Chunk))

    def count(self, kind: type) -> int:
        return sum(isinstance(item, kind) for item in list(self.seen))


def test_bytes_arrive_with_increasing_times(board: Board) -> None:
    with Reader(SourceConfig(port=str(board.link))) as reader:
        wait_until(lambda: reader.count(PortOpened), "the port to open")
        board.send(b"one\n")
        wait_until(lambda: reader.data() == b"one\n", "the first line")
        board.send(b"two\n")
        wait_until(lambda: reader.data() == b"one\ntwo\n", "the second line")
    times_ms = [item.arrival_ms for item in reader.seen if isinstance(item, Chunk)]
    assert times_ms == sorted(times_ms)


def test_the_port_is_opened_again_after_the_board_was_unplugged(board: Board) -> None:
    with Reader(SourceConfig(port=str(board.link))) as reader:
        wait_until(lambda: reader.count(PortOpened) == 1, "the port to open")
        board.unplug()
        wait_until(lambda: reader.count(PortClosed) >= 1, "the loss to be noticed")
        board.plug()
        wait_until(lambda: reader.count(PortOpened) == 2, "the port to open again")
        board.send(b"back\n")
        wait_until(lambda: reader.data() == b"back\n", "bytes after the return")


def test_a_folder_in_the_place_of_a_port_that_went_away_is_waited_out(board: Board) -> None:
    with Reader(SourceConfig(port=str(board.link))) as reader:
        wait_until(lambda: reader.count(PortOpened) == 1, "the port to open")
        board.unplug()
        board.link.mkdir()
        wait_until(lambda: "folder" in str(reader.seen), "the folder to be noticed")
        board.link.rmdir()
        board.plug()
        wait_until(lambda: reader.count(PortOpened) == 2, "the port to open again")


def hang_up(*_: object) -> None:
    """Fail as the kernel does for a terminal that hangs up; termios.error is no OSError."""
    raise termios.error(errno.EIO, "Input/output error")


def test_a_terminal_that_hangs_up_while_it_is_opened_is_explained(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial.serialposix.termios, "tcsetattr", hang_up)
    with pytest.raises(PortMissingError, match=r"could not be opened .*Input/output error"):
        open_port(SourceConfig(port=str(board.link)))


def test_a_terminal_that_hangs_up_while_it_is_read_went_away(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_port(SourceConfig(port=str(board.link))) as opened:
        monkeypatch.setattr(opened, "read", hang_up)
        with pytest.raises(PortMissingError, match="went away"):
            read_available(opened)


def test_the_error_for_a_missing_port_lists_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(PortMissingError, match=r"There is no serial port .*ttyNONE.*source\.port"):
        open_port(SourceConfig(port=str(tmp_path / "ttyNONE")))


def test_a_port_that_another_process_holds_is_busy(board: Board) -> None:
    holder = serial.Serial(str(board.link), exclusive=True)
    try:
        with pytest.raises(PortBusyError, match="held by another program"):
            open_port(SourceConfig(port=str(board.link)))
    finally:
        holder.close()


def test_the_error_for_missing_permission_names_the_group_to_join(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may open everything, so the refusal itself is injected below pyserial.
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(board.link))

    board.link.chmod(0o660)
    os.chown(board.link, 0, 20)
    monkeypatch.setattr(serial.serialposix.os, "open", refuse)
    with pytest.raises(PortForbiddenError, match=r"group dialout.*usermod -aG dialout"):
        open_port(SourceConfig(port=str(board.link)))


@pytest.mark.parametrize("kind", ["file", "folder", "device of another kind"])
def test_the_error_for_a_path_that_is_no_port_says_what_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recording.csv"
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/null")
    with pytest.raises(NotAPortError, match=f"not a serial port but a {kind}"):
        open_port(SourceConfig(port=str(path)))


class Adapter:
    """One USB serial adapter, as the operating system describes it."""

    vid, pid = 0x10C4, 0xEA60

    def __init__(self, device: str, serial_number: str | None) -> None:
        self.device = device
        self.serial_number = serial_number


@pytest.mark.parametrize(
    ("usb", "found"), [("10c4:ea60:B", "/dev/ttyUSB1"), ("10C4:EA60:A", "/dev/ttyUSB0")]
)
def test_a_usb_adapter_is_found_by_its_ids(
    usb: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = [Adapter("/dev/ttyUSB0", "A"), Adapter("/dev/ttyUSB1", "B")]
    monkeypatch.setattr(port, "list_ports", lambda: adapters)
    assert port.find_port(SourceConfig(usb=usb)) == found


def test_two_equal_usb_adapters_are_distinguished_by_serial_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapters = [Adapter("/dev/ttyUSB0", "A"), Adapter("/dev/ttyUSB1", "B")]
    monkeypatch.setattr(port, "list_ports", lambda: adapters)
    with pytest.raises(PortMissingError, match="usb: 10c4:ea60:A"):
        port.find_port(SourceConfig(usb="10c4:ea60"))


@pytest.mark.parametrize("number", [None, "0001"])
def test_usb_adapters_that_no_serial_number_tells_apart_are_named_by_their_socket(
    number: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pci-0000:00:14.0-usb-0:1:1.0-port0").symlink_to("/dev/ttyUSB0")
    monkeypatch.setattr(known_boards, "LINK_FOLDERS", (tmp_path / "by-id", tmp_path))
    adapters = [Adapter("/dev/ttyUSB0", number), Adapter("/dev/ttyUSB1", number)]
    monkeypatch.setattr(port, "list_ports", lambda: adapters)
    usb = "10c4:ea60" if number is None else f"10c4:ea60:{number}"
    with pytest.raises(PortMissingError, match=rf"port: {tmp_path}/pci-\S+-port0") as raised:
        port.find_port(SourceConfig(usb=usb))
    assert "None" not in str(raised.value)
    assert "Add the serial" not in str(raised.value)


def test_auto_opens_the_only_known_board_and_no_other_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modem = Adapter("/dev/ttyUSB0", "A")
    modem.vid = 0x1234  # type: ignore[misc]
    adapters = [modem, Adapter("/dev/ttyUSB1", "B")]
    monkeypatch.setattr(port, "list_ports", lambda: adapters)
    assert port.find_port(SourceConfig(port="auto")) == "/dev/ttyUSB1"
    monkeypatch.setattr(port, "list_ports", lambda: [modem])
    with pytest.raises(PortMissingError, match="No USB serial adapter of a known board"):
        port.find_port(SourceConfig(port="auto"))


def test_auto_names_several_boards_by_links_that_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_id, by_path = tmp_path / "by-id", tmp_path / "by-path"
    for folder, name, device in (
        (by_id, "usb-CP2102_B", "/dev/ttyUSB1"),
        (by_path, "socket-1", "/dev/ttyUSB1"),
        (by_path, "socket-2", "/dev/ttyUSB2"),
        (by_id, "usb-CH340", "/dev/ttyUSB2"),
        (by_path, "socket-3", "/dev/ttyUSB3"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(device)
    monkeypatch.setattr(known_boards, "LINK_FOLDERS", (by_id, by_path))
    first, *rest = [Adapter(f"/dev/ttyUSB{number}", None) for number in (1, 2, 3)]
    first.serial_number = "B"
    for adapter in rest:
        adapter.vid, adapter.pid = 0x1A86, 0x7523  # type: ignore[misc]
    monkeypatch.setattr(port, "list_ports", lambda: [first, *rest])
    with pytest.raises(PortMissingError) as raised:
        port.find_port(SourceConfig(port="auto"))
    text = str(raised.value)
    assert f"3 ports may be the board: {by_id}/usb-CP2102_B (CP210x)" in text
    assert f"{by_path}/socket-2 (CH340), {by_path}/socket-3 (CH340)" in text


def test_the_known_chips_are_those_of_the_udev_rule() -> None:
    rule = (ROOT / "systemd" / "99-scentd.rules").read_text(encoding="utf-8")
    found = {
        (int(vendor, 16), int(product, 16))
        for vendor, products in re.findall(
            r'idVendor\}=="(\w+)", ATTR\{idProduct\}=="([\w|]+)"', rule
        )
        for product in products.split("|")
    }
    assert found == set(known_boards.KNOWN_CHIPS)


def test_an_absent_usb_adapter_is_explained() -> None:
    with pytest.raises(PortMissingError, match="No USB serial adapter with the ids ffff:fffe"):
        port.find_port(SourceConfig(usb="ffff:fffe"))
