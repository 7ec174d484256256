"""The board on its pseudo-terminal, read by pyserial and decoded by the real decoder."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import serial

from hardware.channels import CHANNEL_NAMES, UINT32_INFINITY, channel_index
from hardware.errors import UsageError
from hardware.frames import Quality
from hardware.protocol import LineCounts, LineDecoder
from hardware.simulator.board import BoardReport, SimulatedBoard, SimulatorError
from hardware.simulator.board_firmware import Dialect
from hardware.simulator.signals import SyntheticSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hardware.frames import SensorFrame

_VOC = channel_index("VOC")


class SerialClient:
    """A serial client with a thread that reads until the port disappears."""

    def __init__(self, port: str) -> None:
        self.received = b""
        self._port = serial.Serial(port, 115200, timeout=0.05)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, name="client")
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                some = self._port.read(self._port.in_waiting or 1)
            except (serial.SerialException, OSError):
                return
            self.received += some
            if self._done.is_set() and (not some or time.monotonic() > self._end):
                return

    def close(self) -> bytes:
        """Stop, close the port and return everything read, without waiting for the board."""
        self._end = time.monotonic() + 0.5
        self._done.set()
        self._thread.join()
        self._port.close()
        return self.received


@contextmanager
def listening(port: str) -> Iterator[SerialClient]:
    client = SerialClient(port)
    try:
        yield client
    finally:
        client.close()


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition that another thread fulfils."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def play(
    scenario: str = "almond:60", *, faults: str = "", **options: object
) -> tuple[bytes, BoardReport]:
    """Play a scenario as fast as it can be read; return every byte and the board's report."""
    signal = SyntheticSignal(scenario, seed=11)
    board = SimulatedBoard(
        signal, speed=300, faults=faults or (), wait_for_listener=True, **options
    )
    with board, listening(board.port) as client:
        assert board.wait(30)
        report = board.report
    return client.received, report


def decode(received: bytes) -> tuple[list[SensorFrame], LineCounts]:
    decoder = LineDecoder()
    frames = decoder.feed(received)
    return frames + decoder.finish(), decoder.counts


def test_a_serial_client_reads_every_reading_of_the_signal() -> None:
    frames, counts = decode(play()[0])
    expected = np.array(list(islice(iter(SyntheticSignal("almond:60", seed=11)), 60)))
    np.testing.assert_array_equal([frame.values for frame in frames], expected)
    assert [frame.frame_seq for frame in frames] == list(range(60))
    assert (counts.damaged, counts.lost, counts.text) == (0, 0, 2)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_dialect_sends_the_same_readings(dialect: Dialect) -> None:
    frames, counts = decode(play("almond:30", dialect=dialect)[0])
    expected = np.array(list(islice(iter(SyntheticSignal("almond:30", seed=11)), 30)))
    np.testing.assert_array_equal([frame.values for frame in frames], expected)
    assert counts.damaged == 0
    clocks = [frame.device_ms for frame in frames]
    if dialect is Dialect.LABELLED:
        assert set(clocks) == {None}
        assert counts.headers == 3
    else:
        assert clocks == [1000 * row for row in range(30)]


def test_the_same_seeds_send_the_same_bytes() -> None:
    faults = "garbage@5:3,drop@15:10,truncate@30:5,stuck:VOC@40:5"
    assert play(faults=faults)[0] == play(faults=faults)[0]


def test_an_accelerated_board_keeps_its_own_clock() -> None:
    started = time.monotonic()
    frames, _ = decode(play("almond:60")[0])
    taken_s = time.monotonic() - started
    assert frames[-1].device_ms == 59_000
    assert taken_s < 59, "the device clock, not the wall's, was accelerated"


def test_an_injected_clock_and_sleep_control_the_board() -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    signal = SyntheticSignal("almond:10", seed=1)
    with SimulatedBoard(signal, speed=4, clock=lambda: now[0], sleep=sleep) as board:
        assert board.wait(10)
    assert slept == pytest.approx([0.25] * 9)


def test_garbage_is_counted_and_the_next_line_is_read() -> None:
    received, _ = play(faults="garbage@10:5")
    frames, counts = decode(received)
    assert counts.damaged >= 1
    assert frames[-1].frame_seq == 59
    assert len(frames) >= 55


def test_dropped_bytes_fail_the_checksum_and_count_as_lost() -> None:
    frames, counts = decode(play(faults="drop@10:30")[0])
    assert counts.checksum + counts.malformed >= 10
    assert counts.lost == 60 - len(frames)
    assert frames[-1].frame_seq == 59


def test_truncated_lines_affect_no_other_line() -> None:
    frames, counts = decode(play(faults="truncate@10:5")[0])
    assert [frame.frame_seq for frame in frames] == [*range(10), *range(15, 60)]
    assert counts.lost == 5


def test_the_board_continues_after_two_faults_shorten_the_same_lines() -> None:
    faults = ",".join(["drop@5:30", *(f"truncate@{start}:30" for start in range(5, 15))])
    frames, _ = decode(play(faults=faults)[0])
    assert frames[-1].device_ms == 59_000


def test_a_stuck_channel_repeats_the_number_it_had() -> None:
    frames, _ = decode(play("nutmeg:60", faults="stuck:VOC@10:30")[0])
    voc = [float(frame.values[_VOC]) for frame in frames]
    assert len(set(voc[10:40])) == 1
    assert len(set(voc[40:])) > 1


_WRONG_NUMBERS = (
    ("saturate:VOC", "VOC", 1023.0, Quality.SATURATED),
    ("saturate:Benzene", "Benzene", UINT32_INFINITY, Quality.SATURATED),
    ("inf:LPG", "LPG", float("inf"), Quality.SATURATED),
    ("uint32:Alcohol", "Alcohol", UINT32_INFINITY, Quality.SATURATED),
    ("nan:CO", "CO", float("nan"), Quality.MISSING),
)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_wrong_numbers_are_sent_unchanged(dialect: Dialect) -> None:
    faults = ",".join(f"{fault}@4:4" for fault, *_ in _WRONG_NUMBERS)
    frames, _ = decode(play("almond:12", faults=faults, dialect=dialect)[0])
    struck = frames[4:8]
    for _, channel, number, quality in _WRONG_NUMBERS:
        column = channel_index(channel)
        read = [frame.values[column] for frame in struck]
        np.testing.assert_array_equal(read, [np.float32(number)] * 4)
        assert {int(frame.quality[column]) for frame in struck} == {int(quality)}
        assert all(frame.quality[column] == Quality.OK for frame in (*frames[:4], *frames[8:]))


def test_a_frozen_bme680_sends_the_row_of_the_recordings() -> None:
    frames, _ = decode(play("almond:12", faults="freeze@4:8")[0])
    frozen = dict(zip(CHANNEL_NAMES, frames[-1].values.tolist(), strict=True))
    assert frozen["Temperature"] == pytest.approx(33.59)
    assert frozen["Gas_Resistance"] == 0
    assert frozen["Altitude"] == pytest.approx(3170.54)
    assert frozen["NO2"] == frames[-1].values[0] > 0


def test_a_pause_sends_nothing_and_skips_no_sequence_number() -> None:
    received, report = play(faults="pause@10:20")
    frames, counts = decode(received)
    assert [frame.frame_seq for frame in frames] == list(range(40))
    assert (frames[10].device_ms, counts.lost, report.missed_readings) == (30_000, 0, 20)


def test_jitter_moves_readings_but_neither_reorders_nor_loses_them() -> None:
    frames, counts = decode(play(faults="jitter@5:50")[0])
    steps = np.diff([frame.device_ms for frame in frames])
    assert np.all(steps >= 0)
    assert len(set(steps.tolist())) > 10
    assert counts.lost == 0
    assert frames[-1].device_ms == 59_000


def test_the_device_clock_jumps_and_wraps() -> None:
    frames, counts = decode(play("almond:30", faults="clock-jump@10,clock-wrap@20")[0])
    clock = [frame.device_ms for frame in frames]
    assert clock[10] == 3_600_000 + 10_000
    assert clock[20] == 2**32 - 1500
    assert clock[22] == 500
    assert (counts.restarts, counts.lost) == (0, 0)


def test_a_reboot_sends_the_banner_again() -> None:
    frames, counts = decode(play(faults="reboot@30")[0])
    assert [frame.frame_seq for frame in frames] == [*range(30), *range(30)]
    assert [row for row, frame in enumerate(frames) if frame.restarted] == [30]
    assert frames[30].device_ms == 0
    assert (counts.restarts, counts.text) == (1, 4)


def test_an_unplugged_board_comes_back_rebooted_behind_the_same_link(tmp_path: Path) -> None:
    link = tmp_path / "board"
    signal = SyntheticSignal("almond:600", rate_hz=10.0, seed=1)
    with SimulatedBoard(signal, link=link, speed=10) as board:
        assert board.port == str(link)
        first_target = link.readlink()
        with listening(board.port) as before:
            until(lambda: before.received.count(b"\n") > 20)
            board.unplug()
            until(lambda: not board.plugged)
            assert not os.path.lexists(link)
            # The pseudo-terminal no longer exists: reading it fails rather than returning nothing.
            until(lambda: not before._thread.is_alive())
        board.replug()
        until(lambda: board.plugged)
        with listening(board.port) as after:
            until(lambda: after.received.count(b"\n") > 20)
    frames, _ = decode(after.received)
    assert frames[0].frame_seq < 20
    assert board.report.boots == 2
    assert board.report.missed_readings > 0
    assert not os.path.lexists(link)
    assert str(first_target).startswith("/dev/")


def test_the_odour_continues_while_the_board_is_unplugged(tmp_path: Path) -> None:
    signal = SyntheticSignal("almond:60", seed=11)
    link = tmp_path / "board"
    with SimulatedBoard(signal, link=link, speed=100, faults="unplug@20:10") as board:
        assert board.wait(10)
        report = board.report
    assert (report.missed_readings, report.boots, report.faults) == (10, 2, 1)


def test_injected_faults_start_at_once() -> None:
    signal = SyntheticSignal("nutmeg:600", rate_hz=10.0, seed=1)
    with SimulatedBoard(signal, speed=10) as board, listening(board.port) as client:
        until(lambda: board.now_s > 3)
        board.inject("saturate:CO@0:1")
        until(lambda: board.report.faults == 1)
        until(lambda: board.now_s > 8)
    frames, _ = decode(client.received)
    saturated = [frame for frame in frames if frame.quality[channel_index("CO")] != Quality.OK]
    assert 9 <= len(saturated) <= 10


def test_a_board_without_client_is_never_blocked() -> None:
    signal = SyntheticSignal("almond:200", seed=1)
    with SimulatedBoard(signal, speed=2000) as board:
        assert board.wait(10)
        report = board.report
    assert (report.readings, report.lines_without_listener, report.sent_bytes) == (200, 200, 0)


def test_bytes_that_a_client_does_not_read_are_lost_and_counted() -> None:
    signal = SyntheticSignal("almond:300", seed=1, loop=True)
    with SimulatedBoard(signal, speed=2000) as board, serial.Serial(board.port, 115200):
        until(lambda: board.report.overrun_bytes > 1000)
        assert board.report.sent_bytes > 0


def test_a_link_in_place_of_a_file_is_refused_and_the_file_kept(tmp_path: Path) -> None:
    link = tmp_path / "precious"
    link.write_text("notes")
    with (
        pytest.raises(UsageError, match="not a symbolic link"),
        SimulatedBoard(SyntheticSignal("air:10"), link=link),
    ):
        pass
    assert link.read_text() == "notes"


def test_a_stale_link_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "board"
    link.symlink_to("/dev/pts/99999")
    with SimulatedBoard(SyntheticSignal("air:10"), link=link):
        serial.Serial(str(link), 115200).close()
    assert not os.path.lexists(link)


def test_a_link_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SimulatorError, match="folder must exist"),
        SimulatedBoard(SyntheticSignal("air:10"), link=tmp_path / "none" / "board"),
    ):
        pass


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="above zero"):
        SimulatedBoard(SyntheticSignal("air:10"), speed=speed)


def test_an_exception_of_the_signal_is_raised_when_the_block_ends() -> None:
    class Broken:
        rate_hz = 1.0

        def __iter__(self) -> Iterator[np.ndarray]:
            raise RuntimeError("no rows")

    def hold() -> None:
        with SimulatedBoard(Broken()) as board:
            board.wait(5)

    with pytest.raises(RuntimeError, match="no rows"):
        hold()


def test_no_thread_and_no_descriptor_remains_after_the_board() -> None:
    threads, descriptors = threading.active_count(), _open_descriptors()
    for _ in range(3):
        play("almond:5")
    assert threading.active_count() == threads
    assert _open_descriptors() == descriptors


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
