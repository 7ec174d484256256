"""The system runs out of memory or of open files for a while."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
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
)
from tests.sandbox import (
    Mosquitto,
    ServiceProcess,
    Subscriber,
    retained,
    settings,
    wait_until,
)

SPEED = 50.0
LITTLE_MORE = 1 << 20
"""Bytes that the service may still map: less than a thread's stack."""

STANDARD_STREAMS = 3
"""With this limit a process can open no further file; it keeps those that are open."""


@contextmanager
def limited(service: ServiceProcess, kind: int, most: int) -> Iterator[None]:
    """Limit a resource of the running service to `most` while the block runs."""
    before = resource.prlimit(service.pid, kind)
    resource.prlimit(service.pid, kind, (most, before[1]))
    try:
        yield
    finally:
        if service.process.poll() is None:
            resource.prlimit(service.pid, kind, before)


def address_space(service: ServiceProcess) -> int:
    """Return the bytes that the process has mapped."""
    pages = Path(f"/proc/{service.pid}/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()


def configuration(link: Path, model: Path, port: int) -> str:
    return settings(
        link,
        [model],
        port,
        "record: true",
        "recording: {segment_s: 60, reserve_mb: 0}",
    )


def test_the_service_continues_without_free_memory(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    """It serves a board that comes back, and a request.

    A thread's stack needs more than there is, so that code which starts a thread late fails here.
    """
    link = tmp_path / "ttyBOARD"
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED) as board,
        ServiceProcess(tmp_path, configuration(link, toy_substances, broker.port)) as service,
    ):
        await_more_predictions(subscriber, 10)
        with limited(service, resource.RLIMIT_AS, address_space(service) + LITTLE_MORE):
            board.unplug()
            await_event(subscriber, "board_lost")
            board.replug()
            await_board(subscriber, "online")
            request = json.dumps({"transaction": "short"})
            publish.single(
                "scent/rig/request/status", request, hostname="127.0.0.1", port=broker.port
            )
            wait_until(lambda: subscriber.payloads("response/status"), "an answer")
            wait_until(lambda: len(list_segments(tmp_path / "state/recordings")) > 2, "segments")
            await_more_predictions(subscriber, 10)
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert subscriber.payloads("response/status")[0]["status"] == "ok"
    assert health["board"]["losses"] == 1
    assert health["recording"]["pauses"] == 0
    assert health["recording"]["rows"] == health["frames_ok"]


def test_the_service_waits_when_it_may_open_no_more_files(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state/recordings"
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, configuration(link, toy_substances, broker.port)) as service,
    ):
        await_more_predictions(subscriber, 10)
        with limited(service, resource.RLIMIT_NOFILE, STANDARD_STREAMS):
            paused = await_event(subscriber, "recording_paused")
            await_more_predictions(subscriber, 10)
        await_event(subscriber, "recording_resumed")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
    assert "Too many open files" in paused["detail"]
    assert health["recording"]["pauses"] == 1
    rows = len(read_recordings([segment.path for segment in list_segments(folder)]))
    assert rows == health["recording"]["rows"]
    assert rows + health["recording"]["rows_skipped"] == health["frames_ok"]


def test_memory_is_measured_when_no_more_files_may_be_opened() -> None:
    before_mb = resident_mb()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (STANDARD_STREAMS, limits[1]))
    try:
        assert resident_mb() >= before_mb / 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


MEGABYTE = 1 << 20
SPARE = 64 * MEGABYTE
"""Bytes that the service may still map while a larger message is sent to it."""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    "size", [80 * MEGABYTE, pytest.param(250 * MEGABYTE, marks=pytest.mark.slow)]
)
def test_a_message_larger_than_the_memory_ends_nothing(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path, protocol: str, size: int
) -> None:
    text = settings(
        tmp_path / "ttyNONE", [toy_substances], broker.port, mqtt=f', protocol: "{protocol}"'
    )
    with (
        Subscriber(broker.port, topic="scent/rig/response/status") as subscriber,
        ServiceProcess(tmp_path, text) as service,
    ):
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "the service")
        before_mb = service.resident_mb()
        with limited(service, resource.RLIMIT_AS, address_space(service) + SPARE):
            publish.single("scent/rig/request/status", b"x" * size, qos=1, port=broker.port)

            def answered() -> list[str]:
                publish.single("scent/rig/request/status", "{}", qos=1, port=broker.port)
                return subscriber.texts("scent/rig/response/status")

            wait_until(answered, "an answer to a request after it")
            assert service.resident_mb() < before_mb + 20
        assert service.end() == 0
    assert "Traceback" not in service.log
