"""The continuous recording: in segments, bounded, compressed, repaired; it never stops the rig."""

from __future__ import annotations

import gzip
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from structlog.testing import capture_logs

from daemon.config.settings import RecordingConfig
from daemon.recording.recorder import Recorder, RecorderState
from daemon.recording.segments import (
    compress_segment,
    list_segments,
    remove_oldest,
    repair_segments,
)
from hardware.recording import read_recording, read_recordings
from hardware.recording_labels import LabelledStretch, change_labels
from hardware.segment_names import segment_name
from tests.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UTC = "20260131T120000Z"


class Clock:
    """A steady clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def row(number: int) -> np.ndarray:
    return np.full(12, 100 + number % 800, np.float32)


def fill(recorder: Recorder, rows: int, first: int = 0) -> None:
    for number in range(first, first + rows):
        recorder.write(number * 1000, row(number))


def plain(**bounds: float) -> RecordingConfig:
    return RecordingConfig(**{"reserve_mb": 0, "compress": False, **bounds})  # type: ignore[arg-type]


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the kernel refuse every write to a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with capture_logs():  # the test's own output may be a file as well
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_segments_of_a_run_hold_every_row_once_and_in_order(tmp_path: Path) -> None:
    with Recorder(tmp_path, plain(segment_s=10)) as recorder:
        fill(recorder, 35)
    segments = list_segments(tmp_path)
    assert [(item.run, item.number) for item in segments] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    whole = read_recordings([item.path for item in segments])
    assert whole.timestamp_ms is not None
    assert whole.timestamp_ms.tolist() == [number * 1000 for number in range(35)]
    np.testing.assert_array_equal(whole.values, [row(number) for number in range(35)])


def test_a_new_start_is_a_new_run_whatever_the_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rig without a clock chip may start years ago; its newest segment is still the newest."""
    for year in ("2026", "1970", "2031"):
        monkeypatch.setattr(
            "daemon.recording.recorder.time.strftime", lambda *_, y=year: f"{y}0101T000000Z"
        )
        with Recorder(tmp_path, plain()) as recorder:
            fill(recorder, 3)
    assert [item.path.name for item in list_segments(tmp_path)] == [
        "r000001-0001-20260101T000000Z.live.csv",
        "r000002-0001-19700101T000000Z.live.csv",
        "r000003-0001-20310101T000000Z.live.csv",
    ]


def test_time_that_begins_anew_begins_another_run(tmp_path: Path) -> None:
    with Recorder(tmp_path, plain()) as recorder:
        fill(recorder, 5)
        fill(recorder, 5)
    assert [(item.run, item.number) for item in list_segments(tmp_path)] == [(1, 1), (2, 1)]


def test_the_bound_holds_at_every_row_and_the_oldest_go_first(tmp_path: Path) -> None:
    (tmp_path / "coffee.csv").write_bytes(b"x" * 200_000)  # another file is left alone
    with Recorder(tmp_path, plain(max_mb=0.1, segment_s=86400)) as recorder:
        for number in range(4000):
            recorder.write(number * 1000, row(number))
            if number % 50 == 0:
                assert sum(item.size for item in list_segments(tmp_path)) <= 100_000
        report = recorder.report
    assert report.segments_removed > 0
    kept = list_segments(tmp_path)
    assert kept[-1].number == report.segments_removed + len(kept)
    assert [item.number for item in kept] == list(range(kept[0].number, kept[-1].number + 1))
    last = read_recording(kept[-1].path).timestamp_ms
    assert last is not None
    assert last[-1] == 3_999_000
    assert (tmp_path / "coffee.csv").exists()


def test_closed_segments_are_compressed_and_read_the_same(tmp_path: Path) -> None:
    with Recorder(tmp_path, RecordingConfig(segment_s=100, reserve_mb=0)) as recorder:
        fill(recorder, 250)
        wait_until(
            lambda: [item.compressed for item in list_segments(tmp_path)] == [True, True, False],
            "two compressed segments",
        )
    segments = list_segments(tmp_path)
    assert segments[0].path.name == segments[0].name + ".gz"
    np.testing.assert_array_equal(
        read_recordings([item.path for item in segments]).values,
        [row(number) for number in range(250)],
    )
    assert segments[0].size < segments[2].size  # 100 rows compressed, 50 as they are


def test_a_full_disk_pauses_the_recording_which_resumes_by_itself(tmp_path: Path) -> None:
    reasons: list[str | None] = []
    clock = Clock()
    with Recorder(tmp_path, plain(), on_change=reasons.append, clock=clock) as recorder:
        fill(recorder, 10)
        with full_disk():
            for number in range(10, 20):
                clock.now_s += 100.0
                recorder.write(number * 1000, row(number))
            paused = recorder.report
        clock.now_s += 100.0
        fill(recorder, 10, first=20)
        resumed = recorder.report
    assert paused.state is RecorderState.PAUSED
    assert paused.rows_skipped == 10
    assert paused.pauses == 1
    assert paused.why == "File too large"
    assert reasons == ["File too large", None]
    assert (resumed.state, resumed.rows, resumed.pauses) == (RecorderState.RECORDING, 20, 1)
    whole = read_recordings([item.path for item in list_segments(tmp_path)])
    assert whole.timestamp_ms is not None
    assert whole.timestamp_ms.tolist() == [n * 1000 for n in (*range(10), *range(20, 30))]


def test_a_segment_that_somebody_removed_is_followed_by_another(tmp_path: Path) -> None:
    clock = Clock()
    with Recorder(tmp_path / "recordings", plain(), clock=clock) as recorder:
        fill(recorder, 5)
        list_segments(tmp_path / "recordings")[0].path.unlink()
        clock.now_s += 100.0
        fill(recorder, 5, first=5)
        shutil.rmtree(tmp_path / "recordings")
        for number in range(10, 20):
            clock.now_s += 100.0
            recorder.write(number * 1000, row(number))
        report = recorder.report
    (segment,) = list_segments(tmp_path / "recordings")
    assert (segment.number, report.state) == (3, RecorderState.RECORDING)
    assert report.pauses == 1
    times = read_recording(segment.path).timestamp_ms
    assert times is not None
    assert times.tolist() == list(range(11_000, 20_000, 1000))


def test_a_reserve_that_is_not_free_pauses_the_recording(tmp_path: Path) -> None:
    reasons: list[str | None] = []
    with Recorder(tmp_path, plain(reserve_mb=1e6), on_change=reasons.append) as recorder:
        fill(recorder, 5)
        assert recorder.report.state is RecorderState.PAUSED
    assert len(reasons) == 1
    assert "1e+06 MB are reserved" in str(reasons[0])
    assert list_segments(tmp_path) == []


def test_the_segment_of_a_reading_is_found(tmp_path: Path) -> None:
    clock = Clock()
    with Recorder(tmp_path, plain(segment_s=10), clock=clock) as recorder:
        assert recorder.segment_at(0) is None
        fill(recorder, 15)
        first, second = (item.name for item in list_segments(tmp_path))
        assert recorder.segment_at(9000) == first
        assert recorder.segment_at(10_000) == recorder.segment_at(14_000) == second
        with full_disk():
            recorder.write(15_000, row(15))
        assert recorder.segment_at(14_000) == second
        assert recorder.segment_at(15_000) is None


def test_the_recording_is_stopped_and_started_while_the_rig_runs(tmp_path: Path) -> None:
    with Recorder(tmp_path, plain(), wanted=False) as recorder:
        fill(recorder, 5)
        assert recorder.report.state is RecorderState.OFF
        recorder.start()
        fill(recorder, 5, first=5)
        recorder.stop()
        fill(recorder, 5, first=10)
    (segment,) = list_segments(tmp_path)
    times = read_recording(segment.path).timestamp_ms
    assert times is not None
    assert times.tolist() == [5000, 6000, 7000, 8000, 9000]


def test_other_bounds_apply_from_the_next_reading_on(tmp_path: Path) -> None:
    with Recorder(tmp_path, plain()) as recorder:
        fill(recorder, 20)
        recorder.configure(plain(segment_s=5), wanted=True)
        fill(recorder, 10, first=20)
        recorder.configure(plain(), wanted=False)
        fill(recorder, 10, first=30)
    lengths = [len(read_recording(segment.path)) for segment in list_segments(tmp_path)]
    assert lengths == [20, 5, 5]


def some_segment(folder: Path, rows: int = 20) -> Path:
    with Recorder(folder, plain()) as recorder:
        fill(recorder, rows)
    return list_segments(folder)[-1].path


@pytest.mark.parametrize("tail", [b"20000,1,2", b"20000,1,2,3,4,5,6,7,8,9,10,11,1", b"\0" * 4096])
def test_an_incomplete_last_line_is_cut_off_at_the_next_start(tmp_path: Path, tail: bytes) -> None:
    path = some_segment(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with Recorder(tmp_path, plain()):
        pass
    assert path.read_bytes() == whole


def test_files_that_a_power_cut_left_incomplete_are_removed(tmp_path: Path) -> None:
    path = some_segment(tmp_path)
    whole = path.read_bytes()
    compressed = path.with_name(path.name + ".gz")
    compressed.with_name(compressed.name + ".part").write_bytes(b"half")
    compressed.write_bytes(gzip.compress(whole))
    headless = tmp_path / segment_name(7, 1, UTC)
    headless.write_bytes(whole[:20])
    repaired = repair_segments(tmp_path)
    assert repaired.removed == 3
    assert sorted(item.name for item in tmp_path.iterdir()) == [compressed.name]
    assert len(read_recording(compressed)) == 20


def test_a_cancelled_compression_leaves_the_segment_as_it_was(tmp_path: Path) -> None:
    path = some_segment(tmp_path)
    whole = path.read_bytes()
    assert compress_segment(path, lambda: True) is False
    assert [item.path for item in list_segments(tmp_path)] == [path]
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == whole


def test_the_oldest_segments_are_removed_first(tmp_path: Path) -> None:
    for _ in range(3):
        some_segment(tmp_path)
    segments = list_segments(tmp_path)
    removed = remove_oldest(segments, segments[1].size + segments[2].size)
    assert removed == segments[:1]
    assert list_segments(tmp_path) == segments[1:]


def test_a_removed_segment_takes_its_labels_with_it(tmp_path: Path) -> None:
    path = some_segment(tmp_path)
    change_labels(path, lambda labels: labels.with_stretch(LabelledStretch(0, 9, "tea")))
    remove_oldest(list_segments(tmp_path), 0)
    assert list(tmp_path.glob("r*")) == []
