"""Segments of a running service, replayed: alone, compressed, and joined to their run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main
from daemon.recording.segments import compress_segment, list_segments
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import (
    Mosquitto,
    Odours,
    ServiceProcess,
    Subscriber,
    recordings,
    settings,
    timeless,
)

NO2, VOC = 0, 2


@dataclass(frozen=True)
class Run:
    """One run of the service: its configuration, its segments, and its messages."""

    config: Path
    segments: list[Path]
    ear: Subscriber


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy_substances: Path) -> Run:
    """Let the service record two odours in segments of a minute."""
    folder = tmp_path_factory.mktemp("run")
    link = folder / "ttySIM"
    bounds = "recording: {segment_s: 60, reserve_mb: 0, compress: false}"
    script = Odours(((None, 70), (NO2, 50), (None, 60), (VOC, 50)))
    with Mosquitto(folder) as broker:
        text = settings(link, [toy_substances], broker.port, "record: true", bounds)
        with (
            Subscriber(broker.port) as ear,
            SimulatedBoard(script, link=link, speed=50, wait_for_listener=True) as board,
            ServiceProcess(folder, text) as daemon,
        ):
            assert board.wait(60)
            daemon.end()
            ear.await_text("scent/rig/status", "offline")
    return Run(daemon.config, recordings(daemon), ear)


def replayed(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert main(["replay", "--json", *args]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_joined_segments_of_a_run_give_the_services_predictions(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run.segments) == 4
    config = ["--config", str(run.config)]
    lines = replayed(capsys, "--joined", *map(str, run.segments), *config)
    live = [timeless(said) for said in run.ear.payloads("substance")]
    assert {"recognised", "warming_up"} <= {said["state"] for said in live}
    assert [timeless(line) for line in lines if line.get("topic") == "substance"] == live
    assert [line["frames"] for line in lines if line.get("type") == "summary"] == [230]


def test_an_event_names_the_segment_of_its_reading_compressed_or_not(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [json.loads(text) for text in run.ear.texts("scent/rig/event")]
    onset = next(event for event in reversed(events) if event["type"] == "onset")
    folder = Path(shutil.copytree(run.segments[0].parent, tmp_path / "copy"))
    place = folder / onset["segment"]
    times = [line.split(",")[0] for line in place.read_text("ascii").splitlines()[1:]]
    assert str(onset["t_ms"]) in times
    names = [folder / path.name for path in run.segments]
    for segment in list_segments(folder):
        assert compress_segment(segment.path, lambda: False)
    assert not place.exists()
    (summary,) = (line for line in replayed(capsys, str(place)) if line.get("type") == "summary")
    assert summary["frames"] == len(times)
    # By the names as they were: the packed ones are found.
    lines = replayed(capsys, "--joined", *map(str, names), "--config", str(run.config))
    onsets = [line["t_ms"] for line in lines if line.get("type") == "onset"]
    assert onset["t_ms"] in onsets


def test_only_the_first_segment_of_a_run_begins_with_the_warm_up(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [
        {line["state"] for line in replayed(capsys, str(path)) if "state" in line}
        for path in run.segments
    ]
    assert ["warming_up" in said for said in states] == [True, False, False, False]
