"""The system clock jumps by years at the first NTP sync: a Raspberry Pi has no clock chip.

The service runs with a wall clock that the test sets (`wall_clock.c`, preloaded); everything else
that the kernel provides is real, above all the monotonic clock.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daemon.recording.segments import list_segments
from hardware.recording import read_recordings
from hardware.simulator.board import SimulatedBoard
from tests.faults.rig import AIR, await_more_predictions, last_health
from tests.sandbox import Mosquitto, ServiceProcess, Subscriber, settings, wait_until

SOURCE = Path(__file__).with_name("wall_clock.c")
YEAR_S = 365 * 86400
SPEED = 20.0


class WallClock:
    """The time of day that one process sees."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or pytest.skip("needs a C compiler: sudo apt install gcc")
        self._library = folder / "wall_clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True
        )
        self._setting = folder / "wall_clock"
        self.set(0, synced=True)

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "SCENT_TEST_CLOCK": str(self._setting)}

    def set(self, shift_s: int, *, synced: bool) -> None:
        setting = os.open(self._setting, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(setting, struct.pack("=qq", shift_s, synced), 0)
        os.close(setting)


def unix_s(payload: dict[str, Any]) -> float:
    return datetime.fromisoformat(payload["ts"]).timestamp()


def test_the_first_ntp_sync_changes_times_and_nothing_else(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    clock, link = WallClock(tmp_path), tmp_path / "ttyBOARD"
    clock.set(-7 * YEAR_S, synced=False)
    text = settings(
        link,
        [toy_substances],
        broker.port,
        "record: true",
        "recording: {segment_s: 60, reserve_mb: 0, compress: false}",
    )
    began_s = time.time()
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED, wait_for_listener=True),
        ServiceProcess(tmp_path, text, environ=clock.environ) as service,
    ):
        await_more_predictions(subscriber, 10)
        clock.set(0, synced=True)
        wait_until(
            lambda: subscriber.payloads("substance")[-1]["clock_synced"], "a synchronised time"
        )
        await_more_predictions(subscriber, 30)
        health = last_health(service, subscriber)
    predictions = subscriber.payloads("substance")
    early = [line for line in predictions if not line["clock_synced"]]
    late = predictions[len(early) :]
    assert len(early) >= 10
    assert all(line["clock_synced"] for line in late)
    # One reading may be between the two settings of the clock.
    assert all(unix_s(line) < began_s - 6 * YEAR_S for line in early[:-1])
    assert all(began_s - 1 < unix_s(line) < time.time() + 1 for line in late)
    frames = [line["frame_seq"] for line in predictions[1:]]
    assert max(after - before for before, after in pairwise(frames)) <= 3
    assert [line["seq"] for line in predictions] == sorted({line["seq"] for line in predictions})
    assert {line["boot_id"] for line in predictions} == {health["boot_id"]}
    assert 0 < health["uptime_s"] < YEAR_S
    assert health["board"]["losses"] == 0
    assert health["broker"]["connections"] == 1
    assert health["frames_lost"] == 0
    assert not subscriber.events("board_lost")
    recorded = read_recordings([item.path for item in list_segments(tmp_path / "state/recordings")])
    assert recorded.timestamp_ms is not None
    steps_ms = {int(b - a) for a, b in pairwise(recorded.timestamp_ms)}
    assert max(steps_ms) <= 1000


@pytest.mark.parametrize("years", [-7, 7])
def test_waiting_messages_do_not_expire_when_the_clock_jumps(
    absent_broker: Mosquitto, tmp_path: Path, toy_substances: Path, years: int
) -> None:
    """A jump of years is not an outage of years: no waiting message is removed as too old."""
    clock, link = WallClock(tmp_path), tmp_path / "ttyBOARD"
    clock.set(years * YEAR_S, synced=False)
    text = settings(link, [toy_substances], absent_broker.port, "log: {level: debug}")
    with (
        SimulatedBoard(AIR, link=link, speed=SPEED, wait_for_listener=True) as board,
        ServiceProcess(tmp_path, text, environ=clock.environ) as service,
    ):
        wait_until(lambda: board.now_s > 60, "a minute of readings")
        clock.set(0, synced=True)
        at_s = board.now_s
        wait_until(lambda: board.now_s > at_s + 60, "another minute")
        absent_broker.start()
        with Subscriber(absent_broker.port) as subscriber:
            await_more_predictions(subscriber, 30)
            health = last_health(service, subscriber)
    frames = [line["frame_seq"] for line in subscriber.payloads("substance")]
    assert frames == sorted(frames)
    assert frames[0] < 30
    assert max(after - before for before, after in pairwise(frames[1:])) <= 3
    assert health["board"]["losses"] == 0
