"""`scentd fleet` over a real broker: real services and rigs that a client stands in for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from daemon.cli import main
from tests.sandbox import Mosquitto, ServiceProcess, Subscriber, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ERRORS = {"lab-2": "there is no such model"}


@pytest.fixture
def lab(broker: Mosquitto) -> Iterator[list[str]]:
    """Rigs lab-0 to lab-4, of which lab-4 is offline; returns those that were asked, in order."""
    asked: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)

    def answer(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        _, rig, _, command = message.topic.split("/")
        if not rig.startswith("lab-"):
            return
        asked.append(rig)
        error = ERRORS.get(rig)
        reply = {
            "status": "ok" if error is None else "error",
            "data": None if error else {},
            "error": error,
            "words": error or "Done.",
            "transaction": json.loads(message.payload)["transaction"],
        }
        client.publish(f"scent/{rig}/response/{command}", json.dumps(reply), qos=1)

    client.on_message = answer
    client.connect("127.0.0.1", broker.port)
    client.subscribe("scent/+/request/+", 1)
    client.loop_start()
    info = {"scentd_version": "0.1.0", "models": [{"name": "m", "version": "2"}]}
    for number in range(5):
        word = "offline" if number == 4 else "online"
        for topic, text in (("status", word), ("sensor/status", word), ("info", json.dumps(info))):
            published = client.publish(f"scent/lab-{number}/{topic}", text, qos=1, retain=True)
            published.wait_for_publish(30)
    yield asked
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def config(broker: Mosquitto, tmp_path: Path) -> str:
    path = tmp_path / "any.yaml"
    path.write_text(settings("none", [tmp_path], broker.port), encoding="utf-8")
    return str(path)


def fleet(*words: str) -> int:
    return main(["fleet", *words])


def test_status_and_models_are_one_line_each(
    lab: list[str], config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleet("status", "--config", config, "--json") == 1  # one is offline
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["rig"], row["online"]) for row in rows] == [
        *((f"lab-{number}", True) for number in range(4)),
        ("lab-4", False),
    ]
    assert fleet("status", "--config", config, "--where", "online=yes") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["lab-0", "yes", "yes", "0.1.0"]
    assert fleet("models", "--config", config, "--where", "rig!=lab-0") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["m", "2", "4"]


def test_a_failure_stops_the_later_waves(
    lab: list[str], config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    waves = ("--canary", "1", "--wave", "2", "--pause", "0")
    assert fleet("run", "models", '{"action": "rollback"}', "--config", config, *waves) == 1
    printed = capsys.readouterr()
    assert sorted(lab) == ["lab-0", "lab-1", "lab-2"]
    assert lab[0] == "lab-0"
    assert "there is no such model" in printed.out
    assert "not asked: lab-3" in printed.err


def test_a_real_service_answers_beside_others(
    broker: Mosquitto,
    lab: list[str],
    tmp_path: Path,
    toy_substances: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig = settings(tmp_path / "none", [toy_substances], broker.port)
    with ServiceProcess(tmp_path, rig) as service, Subscriber(broker.port) as heard:
        heard.await_text("scent/rig/status", "online")
        config = str(service.config)
        chosen = ("--where", "rig=rig", "--where", "model=toy-substance")
        assert fleet("run", "record", '{"action": "start"}', "--config", config, *chosen) == 0
        assert "The recording is" in capsys.readouterr().out
        assert fleet("run", "record", '{"action": "x"}', "--config", config, *chosen) == 1
    assert lab == []


@pytest.mark.parametrize(
    "words",
    [
        ("run", "reload", "[]"),
        ("run", "reload", "--wave", "0"),
        ("run", "reload", "--where", "rig=nobody"),
    ],
)
def test_wrong_use_is_refused_and_nothing_sent(
    words: tuple[str, ...], lab: list[str], config: str
) -> None:
    assert fleet(*words, "--config", config) == 2
    assert lab == []
