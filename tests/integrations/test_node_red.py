"""Node-RED runs the flow: a recognised smell is sent on, and a label teaches the rig."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import paho.mqtt.publish
import pytest

from tests.sandbox import ROOT, Mosquitto, ServiceProcess, Subscriber, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = os.environ.get("SCENTD_NODE_RED") or shutil.which("node-red")
FLOW = ROOT / "integrations" / "node-red" / "flow.json"

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="Node-RED is not installed, and SCENTD_NODE_RED names none"
)


@pytest.fixture
def node_red(broker: Mosquitto, tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "node-red"
    folder.mkdir()
    nodes = json.loads(FLOW.read_text(encoding="utf-8"))
    (server,) = (node for node in nodes if node["type"] == "mqtt-broker")
    server["port"] = str(broker.port)
    (folder / "flows.json").write_text(json.dumps(nodes), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "settings.js").write_text(
        f"module.exports = {{flowFile: 'flows.json', uiPort: {port}, uiHost: '127.0.0.1', "
        "httpAdminRoot: false, telemetry: {enabled: false, updateNotification: false}}",
        encoding="utf-8",
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(PROGRAM), "--userDir", folder, "--settings", folder / "settings.js"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(
                lambda: "Connected to broker" in (folder / "log").read_text(encoding="utf-8"),
                "Node-RED's connection",
            )
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_a_recognised_smell_is_sent_on_once_and_a_label_teaches(
    broker: Mosquitto, node_red: None, rig: ServiceProcess
) -> None:
    with Subscriber(broker.port, topic="#") as heard:
        wait_until(lambda: heard.texts("house/smell"), "the smell")
        smell = json.loads(heard.texts("house/smell")[0])
        assert (smell["rig"], smell["smell"]) == ("rig", "lemon")
        assert 0 < smell["probability"] <= 1
        paho.mqtt.publish.single("house/teach/rig", "soap", port=broker.port)
        wait_until(lambda: heard.payloads("response/enroll"), "the rig's answer")
        answer = heard.payloads("response/enroll")[-1]
        assert (answer["status"], answer["transaction"]) == ("ok", "node-red"), answer
        assert answer["data"]["label"] == "soap"
        assert len(heard.texts("house/smell")) == 1
