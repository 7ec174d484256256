"""Models of a running rig: installed and switched over MQTT and by the command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from daemon.cli import main
from daemon.config.loading import load_config
from daemon.installed_models.store import ModelStore
from daemon.mqtt.service_client import RequestRefusedError, send_request
from hardware.recording import read_recordings
from hardware.simulator.board import SimulatedBoard
from models.manifest import write_bundle
from tests.daemon.mqtt.home_assistant import HomeAssistant
from tests.models.toys import toy_files, toy_manifest
from tests.sandbox import (
    ROOT,
    Mosquitto,
    Odours,
    ServiceProcess,
    Subscriber,
    recordings,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

NAME = "toy-substance"
NO2 = 0


def schema(name: str) -> Any:
    return json.loads((ROOT / "daemon/schemas" / f"{name}.json").read_text(encoding="utf-8"))


SCHEMA = schema("request_models")


def made(folder: Path, version: str, labels: tuple[str, ...] = ("lemon", "mint", "garlic")) -> Path:
    bundle = folder / version / NAME
    write_bundle(bundle, toy_manifest(version=version, labels=labels), toy_files())
    return bundle


def configured(folder: Path, port: int, more: str = "") -> str:
    return (
        f"rig_id: rig\nsource: {{port: {folder / 'ttyBOARD'}}}\nmodels: [{NAME}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {port}}}\nstate_dir: state\nlive_stride_s: 2\n{more}"
    )


def asked(config: Path, **payload: Any) -> dict[str, Any]:
    jsonschema.validate(payload, SCHEMA)
    answer = send_request(load_config(config), "models", payload, timeout_s=60)
    jsonschema.validate(answer, schema("response_models"))
    return answer


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "payload",
    [
        {"action": "install"},
        {"action": "switch", "name": NAME},
        {"action": "rollback", "version": "1"},
        {"action": "remove"},
        {"action": "switch", "name": "../x", "version": "1"},
    ],
)
def test_the_schema_refuses_what_the_service_refuses(payload: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMA)


def test_without_a_service_the_store_is_changed_for_its_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], absent_broker: Mosquitto
) -> None:
    config = tmp_path / "scentd.yaml"
    config.write_text(configured(tmp_path, absent_broker.port), encoding="utf-8")
    rig = ["--config", str(config), "--json"]
    for version in ("1.0", "2.0"):
        assert main(["models", "install", str(made(tmp_path, version)), *rig]) == 0
        assert printed(capsys)["active"] == version
    assert main(["models", "rollback", *rig]) == 0
    assert printed(capsys)["active"] == "1.0"
    assert main(["models", "switch", NAME, "2.0", *rig]) == 0
    assert printed(capsys)["previous"] == "1.0"
    assert main(["models", "install", str(made(tmp_path, "3.0")), "--no-switch", *rig]) == 0
    assert printed(capsys)["active"] == "2.0"
    assert main(["models", "list", *rig]) == 0
    (row,) = [row for row in printed(capsys) if row["name"] == NAME]
    assert row["configured"]
    assert [one["version"] for one in row["installed"]] == ["1.0", "2.0", "3.0"]
    assert main(["models", "list", "--config", str(config)]) == 0
    assert f"{NAME:<20} yes" in capsys.readouterr().out
    assert main(["models", "switch", NAME, "9.9", "--config", str(config)]) == 1
    assert "9.9 is not installed. Installed: 1.0, 2.0, 3.0" in capsys.readouterr().err
    assert main(["status", "--config", str(config)]) == 1
    assert "No MQTT broker answers" in capsys.readouterr().err


def test_a_running_rig_switches_models_without_losing_a_reading(
    broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = configured(tmp_path, broker.port, "record: true\nrecording: {compress: false}\n")
    first = ModelStore(tmp_path / "state").install(made(tmp_path, "1.0"))
    ModelStore(tmp_path / "state").switch(NAME, first.version)
    rig = ["--config", str(tmp_path / "scentd.yaml")]
    # The smell ends before its channel is saturated: the trials of models take their time.
    script = Odours(((None, 60), (NO2, 20), (None, 3000)), rate_hz=10.0)
    with (
        HomeAssistant(broker.port) as home,
        Subscriber(broker.port) as ear,
        SimulatedBoard(script, link=tmp_path / "ttyBOARD", wait_for_listener=True),
        ServiceProcess(tmp_path, text) as daemon,
    ):
        wait_until(lambda: ear.texts("scent/rig/substance"), "the first prediction")
        capsys.readouterr()
        # By the command: verified here, applied by the service.
        second = made(tmp_path, "2.0", ("citron", "mint", "garlic"))
        assert main(["models", "install", str(second), *rig]) == 0
        assert "The running service has applied it." in capsys.readouterr().out
        assert main(["status", *rig, "--json"]) == 0
        assert printed(capsys)["models"][NAME]["version"] == "2.0"
        wait_until(
            lambda: "citron" in home.entities["substance"].config["options"], "the new label"
        )
        # Over MQTT: a path below the state folder, and nothing else.
        third = made(tmp_path / "state" / "incoming", "3.0")
        with pytest.raises(RequestRefusedError, match=r"must be a path below the rig's state_dir"):
            asked(daemon.config, action="install", path=str(second))
        with pytest.raises(RequestRefusedError, match="There is no bundle at"):
            asked(daemon.config, action="install", path="incoming/none.zip")
        answer = asked(daemon.config, action="install", path=f"incoming/3.0/{NAME}")
        assert (answer["active"], answer["previous"], answer["in_force"]) == ("3.0", "2.0", True)
        listed = asked(daemon.config, action="list")["models"]
        assert NAME in [row["name"] for row in listed if row["configured"]]
        # A damaged one is refused, and the active one stays.
        model = third.parents[2] / "models" / NAME / "2.0" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1])
        with pytest.raises(RequestRefusedError, match=r"2\.0/model\.onnx"):
            asked(daemon.config, action="switch", name=NAME, version="2.0")
        asked(daemon.config, action="switch", name=NAME, version="1.0")
        assert main(["models", "rollback", *rig]) == 0
        status = send_request(load_config(daemon.config), "status", {})
        jsonschema.validate(status, schema("response_status"))
        assert main(["status", *rig]) == 0
        assert f"{NAME} 3.0: " in capsys.readouterr().out
        assert status["models"][NAME]["version"] == "3.0"
        assert "citron" not in home.entities["substance"].config["options"]
        said = len(ear.texts("scent/rig/substance"))
        wait_until(lambda: len(ear.texts("scent/rig/substance")) > said, "predictions after it")
        infos = [json.loads(text) for text in ear.texts("scent/rig/info")]
        daemon.end()
    versions = [info["models"][0]["version"] for info in infos]
    assert list(dict.fromkeys(versions)) == ["1.0", "2.0", "3.0"]
    health = json.loads(ear.texts("scent/rig/health")[-1])
    assert (health["frames_lost"], health["chunks_dropped"]) == (0, 0)
    recording = read_recordings(recordings(daemon))
    assert len(recording) == health["frames_ok"]
    assert recording.timestamp_ms is not None
    assert np.diff(recording.timestamp_ms).max() < 150  # one unbroken run at 10 Hz
    said_ms = [json.loads(text)["frame_seq"] for text in ear.texts("scent/rig/substance")]
    assert said_ms == sorted(said_ms)


def test_a_change_that_cannot_be_applied_is_undone(
    broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ModelStore(tmp_path / "state")
    for version in ("1.0", "2.0"):
        store.install(made(tmp_path, version))
    store.switch(NAME, "1.0")
    text = configured(tmp_path, broker.port)
    with ServiceProcess(tmp_path, text) as daemon:
        good = load_config(daemon.config)
        daemon.config.write_text(text + "nonsense: 1\n", encoding="utf-8")
        with pytest.raises(RequestRefusedError, match="nonsense is not a setting"):
            send_request(
                good, "models", {"action": "switch", "name": NAME, "version": "2.0"}, timeout_s=60
            )
        assert store.choice(NAME).active == "1.0"
        daemon.config.write_text(text, encoding="utf-8")
        assert asked(daemon.config, action="switch", name=NAME, version="2.0")["in_force"]
        daemon.config.write_text(text.replace("stride_s: 2", "stride_s: 3"), encoding="utf-8")
        for action in ("start", "list", "stop"):
            told = send_request(good, "record", {"action": action})
            jsonschema.validate(told, schema("response_record"))
        reloaded = send_request(good, "reload", {}, timeout_s=60)
        jsonschema.validate(reloaded, schema("response_reload"))
        assert reloaded == {"changed": ["live_stride_s"], "models": [NAME]}
        # Without a board that is printed, and the exit code is 1.
        assert main(["status", "--config", str(daemon.config)]) == 1
        assert "TROUBLE" in capsys.readouterr().out
