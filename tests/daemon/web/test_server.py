"""The real server, `scentd web`, with a real broker: it starts, follows its rigs, and ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import uvicorn
from paho.mqtt.enums import CallbackAPIVersion
from uvicorn.server import ServerState
from websockets.sync.client import ClientConnection, connect

from daemon.sandbox.web_process import WebProcess, WebProcessError
from daemon.web import connection
from hardware.command_line import EXIT_OK
from tests.sandbox import Mosquitto, settings, wait_until

LARGEST_RESIDENT_MB = 40.0
LARGEST_VISIT_BYTES = 300_000


def configuration(folder: Path, broker: Mosquitto) -> Path:
    path = folder / "scentd.yaml"
    path.write_text(settings("./board", [Path("substances-50")], broker.port))
    return path


@pytest.fixture
def rig(broker: Mosquitto) -> paho.Client:
    """Return a client that stands for the service of the rig `rig`."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish("scent/rig/status", "online", qos=1, retain=True).wait_for_publish()
    return client


def get(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, timeout=30) as response:  # noqa: S310
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(address: str, body: object) -> tuple[int, Any]:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def metrics(web: WebProcess) -> str:
    return get(f"{web.address}metrics")[1].decode()


def live(web: WebProcess) -> ClientConnection:
    return connect(web.address.replace("http", "ws") + "api/live")


def next_of(page: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(page.recv(timeout=30))
        if message["kind"] == kind:
            return message


def test_a_page_follows_its_rig_and_asks_it(
    broker: Mosquitto, rig: paho.Client, tmp_path: Path
) -> None:
    with WebProcess(configuration(tmp_path, broker)) as web:
        wait_until(lambda: 'scentd_up{rig="rig"} 1' in metrics(web), "the rig")
        with live(web) as page:
            assert next_of(page, "rigs")["rigs"][0]["rig"] == "rig"
            page.send(json.dumps({"watch": "rig"}))
            assert next_of(page, "snapshot")["status"] == "online"
            prediction = {"boot_id": "a", "seq": 1, "model": "m", "state": "recognised"}
            rig.publish("scent/rig/substance", json.dumps({**prediction, "label": "<script>"}))
            assert next_of(page, "substance")["payload"]["label"] == "<script>"
            requests: list[tuple[str, dict[str, Any]]] = []
            rig.on_message = lambda _client, _data, message: requests.append(
                (message.topic, json.loads(message.payload))
            )
            subscribed = threading.Event()
            rig.on_subscribe = lambda *_: subscribed.set()
            rig.subscribe("scent/rig/request/#", 1)
            assert subscribed.wait(30)
            status, sent = post(f"{web.address}api/rigs/rig/requests/enroll", {"label": "coffee"})
            assert status == 202
            wait_until(lambda: any("enroll" in topic for topic, _ in requests), "the request")
            (_, asked) = next(item for item in requests if "enroll" in item[0])
            assert asked["label"] == "coffee"
            answer = {"transaction": sent["transaction"], "status": "ok", "data": {"windows": 3}}
            rig.publish("scent/rig/response/enroll", json.dumps(answer))
            while next_of(page, "answer").get("status") != "ok":
                pass
            assert get(f"{web.address}api/answers/{sent['transaction']}")[0] == 200
            rig.publish("scent/rig/status", "offline", retain=True)
            while next_of(page, "rigs")["rigs"][0]["status"] != "offline":
                pass
            assert post(f"{web.address}api/rigs/rig/requests/status", {})[0] == 503
        assert web.end() == EXIT_OK


def test_a_page_outlives_the_broker(broker: Mosquitto, rig: paho.Client, tmp_path: Path) -> None:
    with WebProcess(configuration(tmp_path, broker)) as web, live(web) as page:
        while not next_of(page, "broker")["connected"]:
            pass
        broker.stop()
        while (lost := next_of(page, "broker"))["connected"]:
            pass  # the greeting and the first change may both say so
        assert lost["why"]
        assert get(f"{web.address}healthz")[0] == 503
        assert post(f"{web.address}api/rigs/rig/requests/status", {})[0] == 503
        assert get(web.address)[0] == 200
        broker.start()
        while not next_of(page, "broker")["connected"]:
            pass
        assert get(f"{web.address}healthz")[0] == 200


def test_it_needs_little_memory_and_sends_little(
    broker: Mosquitto, rig: paho.Client, tmp_path: Path
) -> None:
    with WebProcess(configuration(tmp_path, broker)) as web:
        wait_until(lambda: get(f"{web.address}healthz")[0] == 200, "the broker")

        def resident_mb() -> float:
            (line,) = (
                line
                for line in metrics(web).splitlines()
                if line.startswith("scentd_web_resident_memory_bytes ")
            )
            return float(line.split()[1]) / 1e6

        assert resident_mb() <= LARGEST_RESIDENT_MB
        index = get(web.address)[1].decode()
        static = Path(__file__).parents[3] / "daemon/web/static"
        weight = sum(path.stat().st_size for path in static.rglob("*") if path.is_file())
        assert "static/js/main.js" in index
        assert weight <= LARGEST_VISIT_BYTES


def test_a_silent_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_WITHIN_S", 0.1)

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        """Answer nothing."""

    async def run() -> bytes:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: connection.BoundedConnection(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            read = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return read

    assert asyncio.run(run()) == b""


def test_elsewhere_the_token_is_printed_once(broker: Mosquitto, tmp_path: Path) -> None:
    config = configuration(tmp_path, broker)
    options = ["--allow-host", "scent.example.org"]
    with WebProcess(config, options) as web:
        printed = [line for line in web.lines if "token of this page" in line]
        token = printed[0].split()[-1]
        assert (tmp_path / "state/web-token").read_text().strip() == token
        assert get(f"{web.address}metrics")[0] == 401
        assert get(web.address)[0] == 200
    with WebProcess(config, options) as web:
        assert token not in "\n".join(web.lines)


def test_an_address_in_use_is_explained(broker: Mosquitto, tmp_path: Path) -> None:
    config = configuration(tmp_path, broker)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(WebProcessError, match="choose another"),
            WebProcess(config, ["--listen", str(port)]),
        ):
            pass
