"""`scentd recordings export --format parquet`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.cli import main
from hardware.archived_recording import ArchivedRecording
from hardware.encoding import encode_csv
from hardware.recording_rows import OWN_HEADER
from hardware.recording_stream import RecordingStream

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'scentd[archive]'")

SEGMENT = "r000001-0001-20260131T120000Z.live.csv"
PLACE = "rig=kitchen/day=2026-01-31/r000001-0001-20260131T120000Z.live.parquet"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "recordings"
    folder.mkdir(parents=True)
    rows = [encode_csv([300.0 + t, *[300.0] * 11], 1000 * t) for t in range(200)]
    (folder / SEGMENT).write_bytes(OWN_HEADER + b"".join(rows))
    return tmp_path / "state"


def export(state: Path, *args: str) -> int:
    output = state.parent / "archive"
    names = ["--state", str(state), "--output", str(output), "--format", "parquet"]
    return main(["recordings", "export", *names, *args])


def test_whole_recordings_are_exported_labelled_or_not(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = ["recordings", "label", "--state", str(state)]
    assert main([*recordings, SEGMENT, "60", "120", "tea"]) == 0
    capsys.readouterr()
    assert export(state, "--rig", "kitchen", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "files": {PLACE: 200}, "unchanged": 0, "problems": {}
    }  # fmt: skip
    found = ArchivedRecording([state.parent / "archive" / PLACE])
    assert len(found) == len(RecordingStream([state / "recordings" / SEGMENT])) == 200
    assert [stretch.label for stretch in found.labels.stretches] == ["tea"]
    assert found.entries[0].session == "2026-01-31"
    assert export(state, "--rig", "kitchen", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1


def test_a_damaged_recording_does_not_stop_the_others(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "recordings" / "broken.csv").write_bytes(b"\x00\xffnothing")
    assert export(state, "--rig", "kitchen") == 1
    output = capsys.readouterr()
    assert PLACE in output.out
    assert "scentd: broken.csv: " in output.err


@pytest.mark.parametrize(
    ("args", "text"),
    [((), "--rig NAME"), (("--rig", "a/b"), "a-z, 0-9, _ and -")],
)
def test_the_rig_must_be_known(
    args: tuple[str, ...], text: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(state, *args) == 2
    assert text in capsys.readouterr().err
    assert main(["recordings", "export", "--output", "x", "--rig", "a", "--state", str(state)]) == 2
