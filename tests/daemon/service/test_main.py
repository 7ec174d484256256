"""The whole service: simulated boards on real pseudo-terminals, real models, real brokers."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from daemon.cli import main
from hardware.channels import CHANNEL_NAMES
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import (
    PATIENCE_S,
    Board,
    Mosquitto,
    Odours,
    ServiceProcess,
    Subscriber,
    recordings,
    retained,
    settings,
    timeless,
    wait_until,
)

SCHEMAS = Path(__file__).parents[3] / "daemon" / "schemas"
NO2, ETHANOL, VOC = 0, 1, 2
LEMON_AFTER_AIR = Odours(((None, 90), (NO2, 60)))


def schema_of(topic: str) -> Any:
    name = {"sensor/status": "status"}.get(topic, topic)
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def states(ear: Subscriber, task: str = "substance") -> list[str]:
    return [prediction["state"] for prediction in ear.payloads(task)]


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "ttySIM"


def test_a_smell_is_recognised_and_every_payload_obeys_its_schema(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path, toy_mixtures: Path
) -> None:
    text = settings(
        link,
        [toy_substances, toy_mixtures],
        broker.port,
        "log: {level: debug}",
        mqtt=", sample: true",
    )
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(LEMON_AFTER_AIR, link=link, speed=50, wait_for_listener=True) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        wait_until(lambda: "recognised" in states(ear), "a recognised smell")
        board.wait(PATIENCE_S)
        wait_until(lambda: states(ear, "mixture"), "the mixture's state")
        daemon.end()
        ear.await_text("scent/rig/status", "offline")
        heard = list(ear.received)
    recognised = [said for said in ear.payloads("substance") if said["state"] == "recognised"]
    assert {said["label"] for said in recognised} == {"lemon"}
    assert states(ear, "mixture") == ["disabled"]
    assert "reading a second" in ear.payloads("mixture")[0]["reason"]
    topics = set()
    for message in heard:
        topic = message.topic.removeprefix("scent/rig/")
        topics.add(topic)
        plain = topic.endswith("status")
        jsonschema.validate(message.text if plain else json.loads(message.text), schema_of(topic))
    assert topics == {
        "status",
        "sensor/status",
        "substance",
        "mixture",
        "event",
        "sample",
        "health",
        "info",
    }
    events = [json.loads(text)["type"] for text in ear.texts("scent/rig/event")]
    assert "onset" in events
    assert "recognised" in events
    numbers = [json.loads(m.text)["seq"] for m in heard if m.topic == "scent/rig/substance"]
    assert numbers == sorted(set(numbers))


def replayed(daemon: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Replay what the service recorded, with its own configuration."""
    (recording,) = recordings(daemon)
    assert main(["replay", str(recording), "--json", "--config", str(daemon.config)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_replay_of_the_services_recording_gives_the_same_predictions(
    broker: Mosquitto,
    tmp_path: Path,
    link: Path,
    toy_substances: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = Odours(((None, 70), (NO2, 50), (None, 60), (VOC, 50)))
    text = settings(link, [toy_substances], broker.port, "record: true")
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(
            script,
            link=link,
            speed=50,
            wait_for_listener=True,
            faults="garbage@30,stuck:CO@100:20,pause@130:8,nan:VOC@20:5,jitter@60:30",
        ) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        assert board.wait(PATIENCE_S)
        daemon.end()
        ear.await_text("scent/rig/status", "offline")
    lines = replayed(daemon, capsys)
    live = [timeless(said) for said in ear.payloads("substance")]
    assert len(live) > 40
    assert "recognised" in {said["state"] for said in live}
    assert [timeless(line) for line in lines if line.get("topic") == "substance"] == live
    live_events = [json.loads(text) for text in ear.texts("scent/rig/event")]
    assert {event.pop("segment") for event in live_events} == {recordings(daemon)[0].name}
    replayed_events = [line for line in lines if line.get("topic") == "event"]
    assert {event.pop("segment") for event in replayed_events} == {None}
    assert [*map(timeless, replayed_events)] == [*map(timeless, live_events)]


def test_a_replay_equals_the_live_run_of_a_board_without_a_clock(
    broker: Mosquitto,
    tmp_path: Path,
    link: Path,
    toy_mixtures: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The labelled dialect is timed by arrival, with jitter; the recording keeps those times."""
    text = settings(
        link,
        [toy_mixtures],
        broker.port,
        "record: true",
        "exposure: {warm_up_min_s: 1, warm_up_max_s: 2, quiet_s: 1}",
    ).replace("live_stride_s: 2", "live_stride_s: 0.5")
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(
            Odours(((None, 60), (NO2, 140)), rate_hz=10.0),
            dialect="labelled",
            link=link,
            wait_for_listener=True,
        ) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        assert board.wait(PATIENCE_S)
        daemon.end()
        ear.await_text("scent/rig/status", "offline")
    lines = replayed(daemon, capsys)
    live = [timeless(said) for said in ear.payloads("mixture")]
    assert {"warming_up", "recognised"} <= {said["state"] for said in live}
    assert [timeless(line) for line in lines if line.get("topic") == "mixture"] == live


def test_a_killed_service_is_offline_by_its_last_will(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    with ServiceProcess(tmp_path, settings(board.link, [toy_substances], broker.port)) as daemon:
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "online")
        daemon.end(signal.SIGKILL)
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "offline", "the last will")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_service_cleanly_and_publishes_offline(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path, number: signal.Signals
) -> None:
    with ServiceProcess(tmp_path, settings(board.link, [toy_substances], broker.port)) as daemon:
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "online")
        assert daemon.end(number) == 0
        assert "Traceback" not in daemon.log
    assert retained(broker.port, "scent/rig/status") == "offline"


def test_without_a_broker_the_service_recognises_and_records_and_delivers_later(
    absent_broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    text = settings(link, [toy_substances], absent_broker.port, "record: true")
    with (
        SimulatedBoard(LEMON_AFTER_AIR, link=link, speed=100, wait_for_listener=True) as board,
        ServiceProcess(tmp_path, text) as daemon,
    ):
        assert board.wait(PATIENCE_S)
        wait_until(lambda: recordings(daemon), "the recording")
        wait_until(lambda: len(recordings(daemon)[0].read_bytes().splitlines()) == 151, "all rows")
        assert "No MQTT broker answers" in daemon.log
        wait_until(lambda: '"label": "lemon"' in daemon.log, "the recognition")
        absent_broker.start()
        wait_until(lambda: retained(absent_broker.port, "scent/rig/substance"), "the newest")
        kept = json.loads(retained(absent_broker.port, "scent/rig/substance") or "{}")
    assert kept["buffered"] is True
    assert kept["label"] == "lemon"


def test_the_board_status_follows_unplugging_and_plugging_in(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    air = Odours(((None, 100_000),))
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(air, link=link, speed=20) as board,
        ServiceProcess(tmp_path, settings(link, [toy_substances], broker.port)),
    ):
        ear.await_text("scent/rig/sensor/status", "online")
        board.unplug()
        wait_until(lambda: ear.texts("scent/rig/sensor/status")[-1] == "offline", "offline")
        board.replug()
        wait_until(lambda: ear.texts("scent/rig/sensor/status")[-1] == "online", "online again")
        assert retained(broker.port, "scent/rig/status") == "online"


def test_health_counts_damaged_and_lost_lines(
    broker: Mosquitto, tmp_path: Path, link: Path, toy_substances: Path
) -> None:
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(
            Odours(((None, 60),)),
            link=link,
            speed=50,
            wait_for_listener=True,
            faults="garbage@10,truncate@20,stuck:CO@5:50",
        ) as board,
        ServiceProcess(tmp_path, settings(link, [toy_substances], broker.port)) as daemon,
    ):
        assert board.wait(PATIENCE_S)
        daemon.end()
        ear.await_text("scent/rig/status", "offline")
    health = json.loads(ear.texts("scent/rig/health")[-1])
    assert health["frames_ok"] == 60 - health["frames_lost"]
    assert sum(health["frames_bad"].values()) >= 2
    assert list(health["channels"]) == list(CHANNEL_NAMES)
    assert health["rate_hz"] == pytest.approx(1.0, rel=0.02)
    assert health["inference_ms"]["toy-substance"]["count"] > 0
    assert health["broker"]["state"] == "connected"


def test_no_secret_reaches_the_log(
    tmp_path: Path, board: Board, toy_substances: Path, absent_broker: Mosquitto
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-very-secret\n", encoding="utf-8")
    text = settings(
        board.link,
        [toy_substances],
        absent_broker.port,
        "log: {level: debug}",
        mqtt=f", username: me, password_file: {secret}",
    )
    with ServiceProcess(tmp_path, text) as daemon:
        wait_until(lambda: "No MQTT broker answers" in daemon.log, "a failed connection")
        absent_broker.start()
        wait_until(lambda: "connected to the broker" in daemon.log, "the connection")
        daemon.end()
        assert "hunter2" not in daemon.log


def test_a_path_that_is_no_port_ends_the_start_with_the_reason(
    tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str], broker: Mosquitto
) -> None:
    config = tmp_path / "scentd.yaml"
    config.write_text(settings(tmp_path, [toy_substances], broker.port), encoding="utf-8")
    assert main(["run", "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert "is not a serial port but a folder" in error
    assert "Traceback" not in error
