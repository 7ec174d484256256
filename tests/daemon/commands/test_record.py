"""`scentd record`: a labelled recording from the port, or by the service that holds it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from daemon.cli import main
from daemon.recording.segments import list_segments
from hardware.recording import read_recording
from hardware.recording_labels import read_labels
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import (
    Mosquitto,
    Odours,
    ServiceProcess,
    Subscriber,
    free_port,
    settings,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

NO2 = 0
SCRIPT = Odours(((None, 60), (NO2, 100)) * 50)


def test_a_label_makes_a_labelled_recording_in_the_rigs_folder(
    tmp_path: Path,
    toy_substances: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = tmp_path / "ttySIM"
    text = settings(link, [toy_substances], free_port())
    (tmp_path / "scentd.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with SimulatedBoard(SCRIPT, link=link, speed=20, wait_for_listener=True):
        assert main(["record", "Green tea", "--seconds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (path,) = (tmp_path / "state" / "recordings").glob("*.csv")
    assert path.name.startswith("Green_tea-20")
    recording = read_recording(path)
    assert (len(recording), result["readings"]) == (result["readings"], len(recording))
    (stretch,) = read_labels(path).stretches
    assert (stretch.label, stretch.author) == ("Green tea", "record")
    assert recording.timestamp_ms is not None
    assert stretch.end_ms == recording.timestamp_ms[-1]


def test_the_service_records_while_it_holds_the_port(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "ttySIM"
    text = settings(
        link, [toy_substances], broker.port, "recording: {reserve_mb: 0, compress: false}"
    )
    with (
        Subscriber(broker.port) as client,
        SimulatedBoard(SCRIPT, link=link, speed=40, wait_for_listener=True),
        ServiceProcess(tmp_path, text) as daemon,
    ):
        wait_until(lambda: client.payloads("substance"), "a prediction")
        arguments = ["record", "tea", "--config", str(daemon.config), "--seconds", "30", "--json"]
        assert main(arguments) == 0
        (part,) = json.loads(capsys.readouterr().out)["labelled"]
        assert part["label"] == "tea"
        assert 25_000 < part["end_ms"] - part["start_ms"] < 40_000
        assert daemon.end() == 0
    (segment,) = list_segments(daemon.config.parent / "state" / "recordings")
    assert [item.label for item in read_labels(segment.path).stretches] == ["tea"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "--port", "x"],
        ["record", "tea", "--port", "x", "--output", "-"],
        ["record", " ", "--port", "x"],
        ["record", "tea"],
    ],
)
def test_wrong_use_exits_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
