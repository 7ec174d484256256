"""Faults of the board, each with the running service on real pseudo-terminals.

The process stays `online` throughout; only `sensor/status` says that the board is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    last_health,
    logged,
    needs_own_mounts,
)
from tests.faults.usb import UsbBus
from tests.sandbox import (
    QUIET_ROW,
    Board,
    Mosquitto,
    ServiceProcess,
    Subscriber,
    retained,
    settings,
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


def test_the_service_waits_for_a_board_absent_at_start(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], broker.port)
    with Subscriber(broker.port) as subscriber, ServiceProcess(tmp_path, text) as service:
        lost = await_event(subscriber, "board_lost")
        for topic, state in (("status", "online"), ("sensor/status", "offline")):
            wait_until(
                lambda topic=topic, state=state: (
                    retained(broker.port, f"scent/rig/{topic}") == state
                ),
                f"{topic} {state}",
            )
        with SimulatedBoard(AIR, link=link, speed=SPEED):
            await_board(subscriber, "online")
            back = await_event(subscriber, "board_back")
            health = last_health(service, subscriber)
    assert f"There is no serial port {link}" in lost["detail"]
    assert (lost["t_ms"], lost["frame_seq"]) == (None, None)
    assert back["frame_seq"] is not None
    assert logged(service, "There is no serial port")["level"] == "warning"
    assert logged(service, "readings come again")["level"] == "warning"
    assert health["board"] == {"state": "online", "why": None, "losses": 1}


def test_a_board_returns_behind_its_link_as_another_device(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        # Open at the same time as the first, so that its device has another name for certain.
        SimulatedBoard(AIR, speed=SPEED, wait_for_listener=True) as again,
        ServiceProcess(tmp_path, text) as service,
    ):
        await_board(subscriber, "online")
        board.unplug()
        await_board(subscriber, "offline")
        assert retained(broker.port, "scent/rig/status") == "online"
        link.symlink_to(again.port)
        await_board(subscriber, "online")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert "went away" in subscriber.events("board_lost")[0]["detail"]
    assert len(subscriber.events("board_back")) == 1
    assert health["board"]["losses"] == 1
    assert health["port_reconnects"] == 1


def test_a_board_is_found_by_its_usb_identity_under_another_name(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    needs_own_mounts()
    bus = UsbBus(tmp_path / "usb")
    text = settings("", [toy_substances], broker.port).replace("port: }", f'usb: "{IDS}"}}', 1)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, speed=SPEED) as board,
        SimulatedBoard(AIR, speed=SPEED) as stranger,
    ):
        bus.plug("ttyUSB0", IDS, board.port)
        bus.plug("ttyUSB1", "1a86:7523:0001", stranger.port)
        with ServiceProcess(tmp_path, text, command_prefix=bus.seen_by) as service:
            await_board(subscriber, "online")
            board.unplug()
            wait_until(lambda: not board.plugged, "the board to be unplugged")
            bus.unplug("ttyUSB0")
            await_board(subscriber, "offline")
            board.replug()
            wait_until(lambda: board.plugged, "the board to be plugged in")
            bus.plug("ttyUSB2", IDS, board.port)
            await_board(subscriber, "online")
            await_more_predictions(subscriber)
            health = last_health(service, subscriber)
        assert stranger.report.sent_bytes == 0
    opened = [line for line in service.log.splitlines() if '"port opened"' in line]
    assert ["ttyUSB0" in opened[0], "ttyUSB2" in opened[1]] == [True, True]
    assert health["board"]["losses"] == 1


def test_a_silent_board_is_reported_as_silent_not_as_absent(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, text) as service,
    ):
        await_board(subscriber, "online")
        await_more_predictions(subscriber)  # its rate is known by now
        board.inject(f"pause@0:{12 * SPEED}")
        lost = await_event(subscriber, "board_lost")
        await_board(subscriber, "offline")
        await_event(subscriber, "board_back")
        await_board(subscriber, "online")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert "The port is open, but the board sent nothing" in lost["detail"]
    assert lost["frame_seq"] is not None
    assert logged(service, "the board sent nothing")["level"] == "warning"
    assert health["board"] == {"state": "online", "why": None, "losses": 1}
    assert health["port_reconnects"] == 0


def test_a_board_that_sends_garbage_is_decoded_again_afterwards(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    noise = np.random.default_rng(3).bytes(300)
    text = settings(board.link, [toy_substances], broker.port)
    with Subscriber(broker.port) as subscriber, ServiceProcess(tmp_path, text) as service:
        wait_until(lambda: "port opened" in service.log, "the port to open")
        board.send(readings(0, 40, 1000, 0))
        await_board(subscriber, "online")
        with board.sending(noise + b"\n"):
            lost = await_event(subscriber, "board_lost")
            await_board(subscriber, "offline")
        board.send(b"\n" + readings(60, 40, 1000, 60_000))
        await_event(subscriber, "board_back")
        await_board(subscriber, "online")
        health = last_health(service, subscriber)
    assert "no line was a reading" in lost["detail"]
    assert "source.baud is 115200" in lost["detail"]
    assert health["frames_ok"] == 80
    assert health["frames_bad"]["binary"] > 10


def test_readings_continue_after_a_board_reboots(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, text) as service,
    ):
        await_board(subscriber, "online")
        for boots in (2, 3, 4):
            board.inject("reboot@0")
            wait_until(lambda boots=boots: board.report.boots == boots, "the board to reboot")
            await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert health["board_restarts"] == 3
    assert health["frames_bad"]["text"] >= 6
    assert health["board"] == {"state": "online", "why": None, "losses": 0}
    assert {line["state"] for line in subscriber.payloads("substance")} <= {"warming_up", "ambient"}


def test_a_changed_rate_of_the_board_is_measured(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    text = settings(board.link, [toy_substances], broker.port)

    def rates() -> Iterator[float | None]:
        return (line["rate_hz"] for line in subscriber.payloads("info"))

    with Subscriber(broker.port) as subscriber, ServiceProcess(tmp_path, text) as service:
        wait_until(lambda: "port opened" in service.log, "the port to open")
        board.send(readings(0, 30, 1000, 0))
        wait_until(lambda: 1.0 in rates(), "1 Hz in info")
        board.send(readings(30, 30, 500, 30_000))
        wait_until(lambda: 2.0 in rates(), "2 Hz in info")
        board.send(readings(60, 30, 1000, 45_500))
        wait_until(lambda: list(rates())[-1] == 1.0, "1 Hz in info again")
        health = last_health(service, subscriber)
    assert health["frames_ok"] == 90
    assert health["frames_lost"] == 0
    assert health["board"]["losses"] == 0


def test_a_stuck_and_a_saturated_channel_are_reported_and_their_recovery_too(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], broker.port)
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(
            AIR,
            link=link,
            speed=50,
            wait_for_listener=True,
            faults="saturate:VOC@60:60,freeze@200:60",
        ),
        ServiceProcess(tmp_path, text) as service,
    ):
        wait_until(
            lambda: (
                {"VOC", "Humidity"}
                <= {e["channel"] for e in subscriber.events("channel_recovered")}
            ),
            "both channels to recover",
        )
        health = last_health(service, subscriber)
    faults = {event["channel"]: event["detail"] for event in subscriber.events("channel_fault")}
    assert faults["VOC"] == "saturated"
    assert faults["Humidity"] == "stuck"
    missing = [line["channels_missing"] for line in subscriber.payloads("substance")]
    assert ["VOC"] in missing
    assert missing[-1] == []
    assert set(health["channels"].values()) == {"ok"}
    assert health["channel_faults"] == len(subscriber.events("channel_fault"))
    assert logged(service, "channel fault")["level"] == "warning"
    assert logged(service, "channel recovered")["level"] == "warning"
