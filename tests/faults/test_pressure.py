"""The system has nothing left to give: no more memory, no more open files. It passes."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt import publish

from daemon.recording.segments import list_segments
from daemon.system.memory import resident_mb
from hardware.recording import read_recordings
from hardware.simulator.board import SimulatedBoard
from tests.faults.rig import (
    AIR,
    await_board,
    await_event,
    await_more_predictions,
    last_health,
    said,
    settings,
)
from tests.sandbox import Mosquitto, ServiceProcess, Subscriber, wait_until

SPEED = 50.0
LITTLE_MORE = 1 << 20
"""Bytes of memory to come, a whole run of the service: less than a thread's stack."""

STANDARD_STREAMS = 3
"""A process that may open no more files than these keeps those that are open."""


@contextmanager
def limited(daemon: ServiceProcess, kind: int, most: int) -> Iterator[None]:
    """Let the kernel give the running service no more than `most` of something."""
    before = resource.prlimit(daemon.pid, kind)
    resource.prlimit(daemon.pid, kind, (most, before[1]))
    try:
        yield
    finally:
        if daemon.process.poll() is None:
            resource.prlimit(daemon.pid, kind, before)


def address_space(daemon: ServiceProcess) -> int:
    """Return the bytes that the process has mapped."""
    pages = Path(f"/proc/{daemon.pid}/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()


def configuration(link: Path, model: Path, port: int) -> str:
    return settings(
        f"port: {link}",
        model,
        port,
        "record: true",
        "recording: {segment_s: 60, reserve_mb: 0}",
    )


def test_without_memory_to_spare_it_goes_on(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    """A board that comes back and a request are served all the same.

    A thread's stack takes more than there is: what starts one late does not survive this.
    """
    link = tmp_path / "ttyBOARD"
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, configuration(link, toy_substances, broker.port)) as daemon,
    ):
        await_more_predictions(ear, 10)
        with limited(daemon, resource.RLIMIT_AS, address_space(daemon) + LITTLE_MORE):
            board.unplug()
            await_event(ear, "board_lost")
            board.replug()
            await_board(ear, "online")
            request = json.dumps({"transaction": "short"})
            publish.single(
                "scent/rig/request/status", request, hostname="127.0.0.1", port=broker.port
            )
            wait_until(lambda: said(ear, "response/status"), "an answer")
            wait_until(lambda: len(list_segments(tmp_path / "state/recordings")) > 2, "segments")
            await_more_predictions(ear, 10)
        await_more_predictions(ear)
        health = last_health(daemon, ear)
    assert said(ear, "response/status")[0]["status"] == "ok"
    assert health["board"]["losses"] == 1
    assert health["recording"]["pauses"] == 0
    assert health["recording"]["rows"] == health["frames_ok"]


def test_without_files_to_open_it_waits_for_them(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state/recordings"
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, configuration(link, toy_substances, broker.port)) as daemon,
    ):
        await_more_predictions(ear, 10)
        with limited(daemon, resource.RLIMIT_NOFILE, STANDARD_STREAMS):
            paused = await_event(ear, "recording_paused")
            await_more_predictions(ear, 10)
        await_event(ear, "recording_resumed")
        await_more_predictions(ear)
        health = last_health(daemon, ear)
    assert "Too many open files" in paused["detail"]
    assert health["recording"]["pauses"] == 1
    rows = len(read_recordings([segment.path for segment in list_segments(folder)]))
    assert rows == health["recording"]["rows"]
    assert rows + health["recording"]["rows_skipped"] == health["frames_ok"]


def test_memory_is_told_without_files_to_open() -> None:
    before_mb = resident_mb()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (STANDARD_STREAMS, limits[1]))
    try:
        assert resident_mb() >= before_mb / 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
