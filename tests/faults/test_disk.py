"""Faults of the disk that a service records to: full, read-only, and a process killed meanwhile.

The file systems are real: small ones in memory, mounted for the test. The recording pauses and
resumes; predictions are published throughout.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from paho.mqtt import publish

from daemon.recording.segments import list_segments
from hardware.encoding import encode_csv_header
from hardware.recording import read_recording, read_recordings
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
from tests.sandbox import ROOT, Mosquitto, ServiceProcess, Subscriber, settings, wait_until

SPEED = 50.0


@contextmanager
def mounted(*args: str, on: Path) -> Iterator[None]:
    """Mount something for as long as the block runs, or skip where this user may not."""
    needs_own_mounts()
    on.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *args, str(on)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs a mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(on)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk; return the file to remove."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"\0" * 4096)
    return ballast


def recording_settings(link: Path, model: Path, port: int, **bounds: object) -> str:
    limits = ", ".join(f"{name}: {value}" for name, value in bounds.items())
    return settings(link, [model], port, "record: true", f"recording: {{{limits}}}")


def test_a_full_disk_pauses_the_recording_and_free_space_resumes_it(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state" / "recordings"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0, compress="false")
    with (
        mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", on=folder),
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, text) as service,
    ):
        wait_until(lambda: list_segments(folder), "the first segment")
        ballast = fill(folder)
        paused = await_event(subscriber, "recording_paused")
        await_more_predictions(subscriber)
        ballast.unlink()
        await_event(subscriber, "recording_resumed")
        wait_until(lambda: len(list_segments(folder)) == 2, "the second segment")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
        whole = read_recordings([segment.path for segment in list_segments(folder)])
    assert "no space left" in paused["detail"].lower()
    assert health["recording"]["state"] == "recording"
    assert health["recording"]["pauses"] == 1
    assert health["recording"]["rows_skipped"] > 0
    assert health["recording"]["rows"] == len(whole)
    assert whole.counts.damaged == whole.counts.text == 0
    assert not whole.torn
    assert health["frames_ok"] == len(whole) + health["recording"]["rows_skipped"]
    assert logged(service, "pauses")["level"] == logged(service, "recording resumed")["level"]


def test_the_recording_leaves_the_reserve_of_the_disk_free(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state" / "recordings"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0.5)
    with (
        mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", on=folder),
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, text) as service,
    ):
        wait_until(lambda: list_segments(folder), "the first segment")
        others = folder / "others.bin"
        others.write_bytes(b"\0" * 700_000)
        paused = await_event(subscriber, "recording_paused")
        others.unlink()
        await_event(subscriber, "recording_resumed")
        health = last_health(service, subscriber)
    assert "recording.reserve_mb" in paused["detail"]
    assert health["recording"]["segments_removed"] == 0


def test_a_read_only_disk_pauses_the_recording_until_it_can_be_written_again(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state" / "recordings"
    text = recording_settings(
        link, toy_substances, broker.port, reserve_mb=0, segment_s=20, compress="false"
    )
    with (
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, text) as service,
    ):
        wait_until(lambda: list_segments(folder), "the first segment")
        with mounted("--bind", "-o", "ro", str(folder), on=folder):
            paused = await_event(subscriber, "recording_paused")
            await_more_predictions(subscriber)
            assert not subscriber.events("recording_resumed")
        await_event(subscriber, "recording_resumed")
        health = last_health(service, subscriber)
    assert "Read-only file system" in paused["detail"]
    assert health["recording"]["pauses"] == 1
    assert (
        len(read_recordings([s.path for s in list_segments(folder)])) == health["recording"]["rows"]
    )


def test_a_full_state_folder_loses_no_prediction(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    """The outbox is on the same full disk: it delivers even what it cannot store."""
    link, state = tmp_path / "ttyBOARD", tmp_path / "state"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0)
    with (
        mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", on=state),
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED, wait_for_listener=True),
        ServiceProcess(tmp_path, text) as service,
    ):
        await_more_predictions(subscriber)
        ballast = fill(state)
        await_event(subscriber, "recording_paused")
        await_more_predictions(subscriber, 10)
        ballast.unlink()
        await_event(subscriber, "recording_resumed")
        await_more_predictions(subscriber, 10)
        last_health(service, subscriber)
    moments = [line["frame_seq"] for line in subscriber.payloads("substance")]
    assert moments == sorted(set(moments))
    # The first comes before the rate is known, the second once it is.
    steps = {after - before for before, after in pairwise(moments[1:])}
    assert max(steps) <= 3, moments  # a prediction every two seconds, and at changes of the state


def test_kill_9_leaves_whole_lines_and_the_next_start_begins_a_new_run(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, folder = tmp_path / "ttyBOARD", tmp_path / "state" / "recordings"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0, compress="false")
    with SimulatedBoard(AIR, link=link, speed=SPEED), Subscriber(broker.port) as subscriber:
        for run in (1, 2):
            with ServiceProcess(tmp_path, text) as service:
                await_board(subscriber, "online")
                wait_until(lambda run=run: len(list_segments(folder)) == run, "a segment")
                await_more_predictions(subscriber)
                service.end(signal.SIGKILL)
            newest = list_segments(folder)[-1]
            assert newest.path.read_bytes().endswith(b"\n")
            assert not read_recording(newest.path).torn
    assert [(segment.run, segment.number) for segment in list_segments(folder)] == [(1, 1), (2, 1)]


def test_files_damaged_by_a_power_cut_are_repaired_at_the_next_start(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    folder = tmp_path / "state" / "recordings"
    folder.mkdir(parents=True)
    torn = folder / "r000003-0007-20260131T120000Z.live.csv"
    whole = encode_csv_header() + b"0,1,2,3,4,5,6,7,8,9,10,11,12\n"
    torn.write_bytes(whole + b"1000,1,2,3,4,5,6,7,8,9,10,11,1")
    half = folder / "r000003-0006-20260131T110000Z.live.csv.gz.part"
    half.write_bytes(os.urandom(100))
    text = recording_settings(tmp_path / "ttyNONE", toy_substances, broker.port)
    with ServiceProcess(tmp_path, text) as service:
        assert service.end() == 0
    assert torn.read_bytes() == whole
    assert not half.exists()
    assert logged(service, "recordings repaired")["bytes_cut"] == 30


@contextmanager
def ext4(image: Path, on: Path) -> Iterator[None]:
    """Mount a small file system that can be frozen, or skip where that is not possible."""
    if shutil.which("mkfs.ext4") is None or shutil.which("fsfreeze") is None:
        pytest.skip("needs mkfs.ext4 and fsfreeze")
    with image.open("wb") as stream:
        stream.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted("-o", "loop", str(image), on=on):
        yield


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Freeze a file system while the block runs: a write to it does not return, not even killed."""
    done = subprocess.run(["fsfreeze", "--freeze", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs to freeze a file system: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], check=True)


def test_recognition_goes_on_while_the_disk_hangs(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link, state = tmp_path / "ttyBOARD", tmp_path / "state"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0)
    with (
        ext4(tmp_path / "image", state),
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, text) as service,
    ):
        await_more_predictions(subscriber)
        with frozen(state):
            paused = await_event(subscriber, "recording_paused")
            await_more_predictions(subscriber, 10)
            request = json.dumps({"action": "list", "transaction": "hangs"})
            publish.single("scent/rig/request/enroll", request, port=broker.port)
            wait_until(lambda: subscriber.payloads("response/enroll"), "an answer")
            wait_until(
                lambda: subscriber.payloads("health")[-1]["recording"]["rows_skipped"] > 0,
                "skipped readings",
            )
        await_event(subscriber, "recording_resumed")
        await_more_predictions(subscriber)
        health = last_health(service, subscriber)
        rows = len(read_recordings([s.path for s in list_segments(state / "recordings")]))
    assert "has not answered" in paused["detail"]
    assert "does not answer" in subscriber.payloads("response/enroll")[0]["error"]
    assert health["recording"]["rows"] == rows
    assert health["frames_ok"] == rows + health["recording"]["rows_skipped"]
    assert health["outbox_dropped"] == 0
    moments = [line["frame_seq"] for line in subscriber.payloads("substance")]
    assert sorted(moments) == sorted(set(moments))


def test_the_service_ends_while_the_disk_hangs(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    """The kernel keeps a thread that writes to a frozen disk, but the service has let go of all."""
    link, state = tmp_path / "ttyBOARD", tmp_path / "state"
    text = recording_settings(link, toy_substances, broker.port, reserve_mb=0)
    with (
        ext4(tmp_path / "image", state),
        Subscriber(broker.port) as subscriber,
        SimulatedBoard(AIR, link=link, speed=SPEED),
        ServiceProcess(tmp_path, text) as service,
    ):
        await_more_predictions(subscriber)
        with frozen(state):
            await_more_predictions(subscriber, 5)
            service.process.send_signal(signal.SIGTERM)
            subscriber.await_text("scent/rig/status", "offline")
            wait_until(lambda: is_ending(service.pid), "the end of the main thread")
        assert service.process.wait(60.0) == 0


def is_ending(pid: int) -> bool:
    """Whether the main thread of a process has ended, and others keep it."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_a_start_that_waits_for_a_disk_ends_on_sigterm(tmp_path: Path) -> None:
    """A pipe in place of the configuration's disk: the read of the file does not return."""
    pipe = tmp_path / "rig.yaml"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "run", "--config", str(pipe)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    with process, pipe.open("wb"):  # the process has opened the other end, and reads
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
