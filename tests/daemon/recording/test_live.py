"""The continuous recording while the disk hangs: the pipeline never waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.board.history import History
from daemon.config.settings import RecordingConfig
from daemon.recording import live
from daemon.recording.live import WAITING_LIMIT, LiveRecorder
from daemon.recording.recorder import RecorderState
from daemon.recording.requests import RecordingRequests
from daemon.recording.segments import list_segments
from daemon.request_fields import RequestError
from daemon.system.background import Data, Task, finish
from hardware.recording import RecordingWriter, read_recording
from hardware.recording_labels import read_labels
from tests.sandbox import wait_until

BOUNDS = RecordingConfig(reserve_mb=0, compress=False)


def fill(recorder: LiveRecorder, rows: int, first: int = 0) -> None:
    for number in range(first, first + rows):
        recorder.write(number * 1000, np.full(12, 100.0 + number % 800, np.float32))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every row wait for the event that is returned."""
    answers = threading.Event()
    answers.set()
    write = RecordingWriter.write

    def slow(self: RecordingWriter, *arguments: Any) -> None:
        answers.wait()
        write(self, *arguments)

    monkeypatch.setattr(RecordingWriter, "write", slow)
    monkeypatch.setattr(live, "HANGS_AFTER_S", 0.1)
    return answers


def test_readings_wait_for_a_disk_that_hangs_and_those_beyond_the_bound_are_counted(
    tmp_path: Path, hanging: threading.Event
) -> None:
    changes: list[str | None] = []
    with LiveRecorder(tmp_path, BOUNDS, wanted=True, on_change=changes.append) as recorder:
        fill(recorder, 1)
        wait_until(lambda: recorder.report.rows == 1, "the first row")
        assert recorder.segment_at(0) is not None
        hanging.clear()
        fill(recorder, WAITING_LIMIT + 50, first=1)
        wait_until(lambda: recorder.check() or changes, "the pause")
        assert recorder.segment_at(1000) is None
        report = recorder.report
        assert report.state is RecorderState.PAUSED
        assert "has not answered" in str(report.why)
        assert 49 <= report.rows_skipped <= 50  # one may have been begun
        assert report.pauses == 1
        hanging.set()
        wait_until(lambda: recorder.check() or changes[-1] is None, "the resumption")
        assert recorder.report.state is RecorderState.RECORDING
        whole = 1051 - report.rows_skipped
        wait_until(lambda: recorder.report.rows == whole, "the rows that waited")
    (segment,) = list_segments(tmp_path)
    assert len(read_recording(segment.path)) == whole


def test_the_end_waits_for_no_disk_and_counts_what_it_leaves(
    tmp_path: Path, hanging: threading.Event
) -> None:
    with LiveRecorder(tmp_path, BOUNDS, wanted=True, on_change=lambda _: None) as recorder:
        fill(recorder, 5)
        wait_until(lambda: recorder.report.rows == 5, "the rows")
        hanging.clear()
        fill(recorder, 10, first=5)
        recorder.drain()
        assert recorder.report.rows_skipped == 9
    hanging.set()


def test_requests_start_stop_and_list_the_recording(tmp_path: Path) -> None:
    with LiveRecorder(tmp_path, BOUNDS, wanted=False, on_change=lambda _: None) as recorder:
        handle = RecordingRequests(recorder, tmp_path, History()).handle

        def answer(**payload: str) -> Data:
            data = handle(dict(payload))
            return data if isinstance(data, dict) else finish(data)

        assert answer()["recording"]["state"] == "off"
        assert answer(action="start")["recording"]["state"] == "waiting"
        fill(recorder, 5)
        wait_until(lambda: recorder.report.rows == 5, "the rows")
        listed = answer(action="list")
        assert answer(action="stop")["recording"]["state"] == "off"
    (segment,) = list_segments(tmp_path)
    assert listed["recording"]["segment"] == segment.name
    assert listed["segments"] == [{"file": segment.name, "bytes": segment.size}]


@pytest.mark.parametrize("payload", [{"action": "erase"}, {"action": 1}, {"file": "../x"}])
def test_a_request_for_anything_else_is_refused(tmp_path: Path, payload: dict[str, object]) -> None:
    recorder = LiveRecorder(tmp_path, BOUNDS, wanted=False, on_change=lambda _: None)
    with recorder, pytest.raises(RequestError):
        RecordingRequests(recorder, tmp_path, History()).handle(payload)


def test_the_last_and_the_coming_seconds_are_labelled_in_every_segment(tmp_path: Path) -> None:
    history, bounds = History(), RecordingConfig(reserve_mb=0, compress=False, segment_s=20)

    def read(number: int) -> None:
        values = np.full(12, 100.0 + number % 800, np.float32)
        history.push(1000 * number, values)
        recorder.write(1000 * number, values)

    with LiveRecorder(tmp_path, bounds, wanted=False, on_change=lambda _: None) as recorder:
        handle = RecordingRequests(recorder, tmp_path, history).handle

        def answer(**payload: Any) -> Data:
            data = handle({"action": "label", **payload})
            return data if isinstance(data, dict) else finish(data)

        with pytest.raises(RequestError, match="no reading yet"):
            answer(label="tea", last_s=10)
        read(0)
        steps = handle({"action": "label", "label": "tea", "seconds": 10})
        assert not isinstance(steps, dict)
        task, number = Task(steps), 0
        while task.step() is not None:
            if number < 20:
                number += 1
                read(number)
        wait_until(lambda: recorder.report.state is RecorderState.OFF, "the end of the recording")
        with pytest.raises(RequestError, match="not recorded"):
            answer(label="tea", last_s=10)
        recorder.start()
        for later in range(100, 130):
            read(later)
        labelled = answer(label="milk", last_s=15)["labelled"]
    first, *others = list_segments(tmp_path)
    assert [s.label for s in read_labels(first.path).stretches] == ["tea"]
    assert [part["file"] for part in labelled] == [item.name for item in others]
    assert read_labels(others[0].path).stretches[0].start_ms == 114_000
