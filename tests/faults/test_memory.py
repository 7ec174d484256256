"""Memory and file descriptors of the running service do not grow, however long it runs.

The long run is `make test-slow ARGS="-k million -s"`, or with another number of readings
`SOAK_READINGS=5000000 pytest -m slow -k million -s`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.encoding import encode_scent
from tests.sandbox import Board, Mosquitto, ServiceProcess, Subscriber, settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

READINGS = int(os.environ.get("SOAK_READINGS", "1000000"))
RATE_HZ = 10
BATCH = 50
PER_SECOND = 5000
"""Readings a second: 500 times as fast as the board, and below what the service can take."""

FILLED = 100_000
"""Readings after which every buffer of the service is full: its history holds ten minutes, its
latencies 500 inferences, the continuous recording a dozen segments."""

MEGABYTE = 1e6


@dataclass(frozen=True)
class Footprint:
    """Resources of a process at one moment."""

    readings: int
    resident_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, readings: int) -> Footprint:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return cls(
            readings,
            int(status["VmRSS"].split()[0]) * 1024 / MEGABYTE,
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            int(status["Threads"]),
        )


class FastBoard:
    """Sends lines at `PER_SECOND`, from a thread of its own."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._stop = threading.Event()
        self._sent = 0

    def run(self) -> None:
        rng = np.random.default_rng(1)
        walk = 400 + np.cumsum(rng.normal(0, 1, (20_000, 4)), axis=0) % 200
        row = np.array((0, 0, 0, 0, 3, 20, 2, 25.5, 1013.0, 40.0, 80.0, 50.0), dtype=np.float32)
        began_s = time.monotonic()
        for reading in count(0, BATCH):
            lines = []
            for seq in range(reading, reading + BATCH):
                row[:4] = np.rint(walk[seq % len(walk)])
                row[7] = 25 + (seq % 17) / 100
                lines.append(encode_scent(seq, seq * 1000 // RATE_HZ % 2**32, row))
            data = b"".join(lines)
            while data:
                data = data[os.write(self._board.master, data) :]
            self._sent = reading + BATCH
            if self._stop.wait(max(0.0, began_s + self._sent / PER_SECOND - time.monotonic())):
                return

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def footprints(
    steps: tuple[int, ...], folder: Path, board: Board, model: Path, broker: Mosquitto
) -> list[Footprint]:
    """Send readings to a service; return its footprint after each of these numbers of them."""
    text = settings(
        board.link,
        [model],
        broker.port,
        "record: true",
        "recording: {max_mb: 8, segment_s: 600}",
    ).replace("live_stride_s: 2", "live_stride_s: 5")
    found = []
    with (
        Subscriber(broker.port) as subscriber,
        ServiceProcess(folder, text) as service,
        FastBoard(board).running(),
    ):
        readings = 0
        for more in steps:
            wait_until(
                lambda wanted=readings + more: count_readings(subscriber) >= wanted,  # type: ignore[misc]
                f"{more} more readings",
                60 + more / PER_SECOND * 20,
            )
            readings = count_readings(subscriber)
            found.append(Footprint.of(service.pid, readings))
            subscriber.received.clear()
    return found


def count_readings(subscriber: Subscriber) -> int:
    """Return how many readings the service has reported."""
    health = subscriber.payloads("health")
    return health[-1]["frames_ok"] if health else 0


def test_descriptors_and_threads_do_not_grow(
    tmp_path: Path, board: Board, toy_mixtures: Path, broker: Mosquitto
) -> None:
    before, after = footprints((5_000, 55_000), tmp_path, board, toy_mixtures, broker)
    assert after.threads == before.threads
    # A segment of the recording that is packed just now has two files open.
    assert after.descriptors <= before.descriptors + 2


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_over_a_million_readings_memory_and_descriptors_stay_flat(
    tmp_path: Path,
    board: Board,
    toy_mixtures: Path,
    broker: Mosquitto,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = (FILLED, *(READINGS // 10,) * 10)
    found = footprints(steps, tmp_path, board, toy_mixtures, broker)
    with capsys.disabled():
        for one in found:
            sys.stdout.write(
                f"\n{one.readings:>9} readings: {one.resident_mb:.2f} MB, "
                f"{one.descriptors} descriptors, {one.threads} threads"
            )
    assert found[-1].readings - found[0].readings >= READINGS
    assert found[-1].resident_mb - found[0].resident_mb < 1.0
    assert len({one.threads for one in found}) == 1
    # A segment of the recording that is packed just now has two files open.
    assert max(one.descriptors for one in found) <= min(one.descriptors for one in found) + 2
