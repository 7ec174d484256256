"""Faults of the board, each against the running service on real pseudo-terminals.

The process stays `online` through all of them: it is the board that is gone, and says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hardware.encoding import encode_scent
from hardware.simulator.board import SimulatedBoard
from tests.faults.rig import (
    AIR,
    await_board,
    await_event,
    await_more_predictions,
    events,
    last_health,
    logged,
    needs_own_mounts,
    said,
    settings,
)
from tests.faults.usb import UsbBus
from tests.sandbox import (
    QUIET_ROW,
    Board,
    Mosquitto,
    ServiceProcess,
    Subscriber,
    retained,
    wait_until,
)

SPEED = 20.0
IDS = "10c4:ea60:0001"


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "ttyBOARD"


def readings(first: int, number: int, period_ms: int, start_ms: int) -> bytes:
    """Return lines of a quiet board; the noise is seeded by the line."""
    lines = []
    for seq in range(first, first + number):
        values = np.array(QUIET_ROW, np.float32)
        values[:4] += np.random.default_rng(seq).integers(0, 2, 4)
        lines.append(encode_scent(seq, start_ms + (seq - first) * period_ms, values))
    return b"".join(lines)


def test_a_board_absent_at_start_is_waited_for(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(f"port: {link}", toy_substances, broker.port)
    with Subscriber(broker.port) as ear, ServiceProcess(tmp_path, text) as daemon:
        lost = await_event(ear, "board_lost")
        assert retained(broker.port, "scent/rig/status") == "online"
        assert retained(broker.port, "scent/rig/sensor/status") == "offline"
        with SimulatedBoard(AIR, link=link, speed=SPEED):
            await_board(ear, "online")
            back = await_event(ear, "board_back")
            health = last_health(daemon, ear)
    assert f"There is no serial port {link}" in lost["detail"]
    assert (lost["t_ms"], lost["frame_seq"]) == (None, None)
    assert back["frame_seq"] is not None
    assert logged(daemon, "There is no serial port")["level"] == "warning"
    assert logged(daemon, "readings come again")["level"] == "warning"
    assert health["board"] == {"state": "online", "why": None, "losses": 1}


def test_a_board_comes_back_behind_its_link_as_another_device(
    broker: Mosquitto,
    tmp_path: Path,
    link: Path,
    toy_substances: Path,
    record_property: Callable[[str, object], None],
) -> None:
    text = settings(f"port: {link}", toy_substances, broker.port)
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        await_board(ear, "online")
        first = link.readlink()
        board.unplug()
        await_board(ear, "offline")
        assert retained(broker.port, "scent/rig/status") == "online"
        taken, other = os.openpty()  # the old name goes to somebody else meanwhile
        board.replug()
        wait_until(lambda: board.plugged, "the board to be plugged in")
        plugged_s = time.monotonic()
        await_board(ear, "online")
        record_property("replug_to_online_s", round(time.monotonic() - plugged_s, 2))
        assert link.readlink() != first
        await_more_predictions(ear)
        health = last_health(daemon, ear)
        os.close(taken)
        os.close(other)
    assert "went away" in events(ear, "board_lost")[0]["detail"]
    assert len(events(ear, "board_back")) == 1
    assert health["board"]["losses"] == 1
    assert health["port_reconnects"] == 1


def test_a_board_known_by_its_usb_identity_comes_back_under_another_name(
    broker: Mosquitto,
    tmp_path: Path,
    toy_substances: Path,
    record_property: Callable[[str, object], None],
) -> None:
    needs_own_mounts()
    bus = UsbBus(tmp_path / "usb")
    text = settings(f'usb: "{IDS}"', toy_substances, broker.port)
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, speed=SPEED) as board,
        SimulatedBoard(AIR, speed=SPEED) as stranger,
    ):
        bus.plug("ttyUSB0", IDS, board.port)
        bus.plug("ttyUSB1", "1a86:7523:0001", stranger.port)
        with ServiceProcess(tmp_path, text, command_prefix=bus.seen_by) as daemon:
            await_board(ear, "online")
            board.unplug()
            wait_until(lambda: not board.plugged, "the board to be unplugged")
            bus.unplug("ttyUSB0")
            await_board(ear, "offline")
            board.replug()
            wait_until(lambda: board.plugged, "the board to be plugged in")
            plugged_s = time.monotonic()
            bus.plug("ttyUSB2", IDS, board.port)
            await_board(ear, "online")
            record_property("replug_to_online_s", round(time.monotonic() - plugged_s, 2))
            await_more_predictions(ear)
            health = last_health(daemon, ear)
        assert stranger.report.sent_bytes == 0
    opened = [line for line in daemon.log.splitlines() if '"port opened"' in line]
    assert ["ttyUSB0" in opened[0], "ttyUSB2" in opened[1]] == [True, True]
    assert health["board"]["losses"] == 1


def test_a_silent_board_is_told_apart_from_an_absent_one(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(f"port: {link}", toy_substances, broker.port)
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        await_board(ear, "online")
        await_more_predictions(ear)  # its rate is known by now
        board.inject(f"pause@0:{12 * SPEED}")
        lost = await_event(ear, "board_lost")
        await_board(ear, "offline")
        await_event(ear, "board_back")
        await_board(ear, "online")
        await_more_predictions(ear)
        health = last_health(daemon, ear)
    assert "The port is open, but the board sent nothing" in lost["detail"]
    assert lost["frame_seq"] is not None
    assert logged(daemon, "the board sent nothing")["level"] == "warning"
    assert health["board"] == {"state": "online", "why": None, "losses": 1}
    assert health["port_reconnects"] == 0


def test_a_board_that_talks_garbage_is_heard_again_afterwards(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    noise = np.random.default_rng(3).bytes(300)
    text = settings(f"port: {board.link}", toy_substances, broker.port)
    with Subscriber(broker.port) as ear, ServiceProcess(tmp_path, text) as daemon:
        wait_until(lambda: "port opened" in daemon.log, "the port to open")
        board.send(readings(0, 40, 1000, 0))
        await_board(ear, "online")
        with board.sending(noise + b"\n"):
            lost = await_event(ear, "board_lost")
            await_board(ear, "offline")
        board.send(b"\n" + readings(60, 40, 1000, 60_000))
        await_event(ear, "board_back")
        await_board(ear, "online")
        health = last_health(daemon, ear)
    assert "no line was a reading" in lost["detail"]
    assert "source.baud is 115200" in lost["detail"]
    assert health["frames_ok"] == 80
    assert health["frames_bad"]["binary"] > 10


def test_a_board_that_reboots_into_its_banner_is_followed(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(f"port: {link}", toy_substances, broker.port)
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        await_board(ear, "online")
        for boots in (2, 3, 4):
            board.inject("reboot@0")
            wait_until(lambda boots=boots: board.report.boots == boots, "the board to reboot")
            await_more_predictions(ear)
        health = last_health(daemon, ear)
    assert health["board_restarts"] == 3
    assert health["frames_bad"]["text"] >= 6
    assert health["board"] == {"state": "online", "why": None, "losses": 0}
    assert {line["state"] for line in said(ear, "substance")} <= {"warming_up", "ambient"}


def test_a_board_that_changes_its_rate_is_followed(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    text = settings(f"port: {board.link}", toy_substances, broker.port)

    def rates() -> Iterator[float | None]:
        return (line["rate_hz"] for line in said(ear, "info"))

    with Subscriber(broker.port) as ear, ServiceProcess(tmp_path, text) as daemon:
        wait_until(lambda: "port opened" in daemon.log, "the port to open")
        board.send(readings(0, 30, 1000, 0))
        wait_until(lambda: 1.0 in rates(), "1 Hz to be told")
        board.send(readings(30, 30, 500, 30_000))
        wait_until(lambda: 2.0 in rates(), "2 Hz to be told")
        board.send(readings(60, 30, 1000, 45_500))
        wait_until(lambda: list(rates())[-1] == 1.0, "1 Hz to be told again")
        health = last_health(daemon, ear)
    assert health["frames_ok"] == 90
    assert health["frames_lost"] == 0
    assert health["board"]["losses"] == 0


def test_a_stuck_and_a_saturated_channel_are_told_and_their_recovery_too(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(f"port: {link}", toy_substances, broker.port)
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(
            AIR,
            link=link,
            speed=50,
            wait_for_listener=True,
            faults="saturate:VOC@60:60,freeze@200:60",
        ),
        ServiceProcess(tmp_path, text) as daemon,
    ):
        wait_until(
            lambda: {"VOC", "Humidity"} <= {e["channel"] for e in events(ear, "channel_recovered")},
            "both channels to recover",
        )
        health = last_health(daemon, ear)
    faults = {event["channel"]: event["detail"] for event in events(ear, "channel_fault")}
    assert faults["VOC"] == "saturated"
    assert faults["Humidity"] == "stuck"
    missing = [line["channels_missing"] for line in said(ear, "substance")]
    assert ["VOC"] in missing
    assert missing[-1] == []
    assert set(health["channels"].values()) == {"ok"}
    assert health["channel_faults"] == len(events(ear, "channel_fault"))
    assert logged(daemon, "channel fault")["level"] == "warning"
    assert logged(daemon, "channel recovered")["level"] == "warning"
