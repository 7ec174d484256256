"""The shipped models on real recordings, through every part that a rig has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.cli import main
from hardware.recording import read_recording
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import ReplaySignal
from tests.sandbox import Mosquitto, ServiceProcess, Subscriber, wait_until

pytestmark = pytest.mark.data


@pytest.fixture
def almond(smellnet: Path) -> Path:
    """Return a real recording of almonds."""
    return min(smellnet.glob("base/almond/*.csv"))


def test_a_real_recording_shows_its_substance_on_a_subscriber(
    almond: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    link = tmp_path / "ttySIM"
    text = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [substances-50]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n"
    )
    signal = ReplaySignal(read_recording(almond))
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(signal, link=link, speed=40, wait_for_listener=True),
        ServiceProcess(tmp_path, text),
    ):

        def labels() -> set[str | None]:
            return {json.loads(text)["label"] for text in ear.texts("scent/rig/substance")}

        wait_until(lambda: "almond" in labels(), "almond on the broker", patience_s=60)


def test_replay_names_a_real_recording_and_prefers_the_substances(
    almond: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(almond), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["model"] == "substances-50"
    assert summary["label"] == "almond"
