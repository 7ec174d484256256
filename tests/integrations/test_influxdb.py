"""InfluxDB takes the lines that its example writes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox import ROOT, Mosquitto, ServiceProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = ROOT / "integrations" / "influxdb" / "mqtt_to_influxdb.py"


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("mqtt_to_influxdb", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("influxd") or pytest.skip("InfluxDB is not installed")
    folder, port = tmp_path / "influxdb", free_port()
    folder.mkdir()
    (folder / "influxdb.conf").write_text(
        f'bind-address = "127.0.0.1:{free_port()}"\nreporting-disabled = true\n'
        f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n',
        encoding="utf-8",
    )
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "-config", folder / "influxdb.conf"], stdout=log, stderr=log
        )
        try:
            wait_until(lambda: query(url, "CREATE DATABASE scentd") is not None, "InfluxDB")
            yield url
        finally:
            process.terminate()
            process.wait(30)


def query(url: str, text: str) -> dict[str, Any] | None:
    data = urllib.parse.urlencode({"q": text, "db": "scentd"}).encode()
    try:
        with urllib.request.urlopen(f"{url}/query", data, timeout=5) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)["results"][0]
            return found
    except OSError:
        return None


def test_predictions_of_a_rig_arrive_in_influxdb(
    broker: Mosquitto, influxdb: str, rig: ServiceProcess
) -> None:
    command = [sys.executable, SCRIPT, "--port", str(broker.port), "--url", influxdb]
    process = subprocess.Popen(command)
    try:
        ask = (
            "SELECT probability, label FROM scentd_substance WHERE label = 'lemon' AND rig = 'rig'"
        )
        wait_until(lambda: "series" in (query(influxdb, ask) or {}), "the smell in InfluxDB")
        ask = "SELECT frames_ok FROM scentd_health"
        wait_until(lambda: "series" in (query(influxdb, ask) or {}), "the rig's health")
    finally:
        process.terminate()
        process.wait(30)


def test_labels_with_signs_of_the_line_protocol_are_escaped() -> None:
    part = {"label": 'a, b="c" d\\', "proportion": 0.5, "presence": 1, "low": None, "high": None}
    payload = {"ts": "2026-01-31T12:00:00.250Z", "model": "m", "components": [part]}
    (line,) = load_example().lines("scent/rig/mixture", payload)
    assert line == (
        'scentd_mixture,rig=rig,model=m,label=a\\,\\ b\\="c"\\ d\\\\ '
        "proportion=0.5,presence=1.0 1769860800250000000"
    )


def test_a_prediction_without_a_name_has_no_empty_fields() -> None:
    payload = {
        "ts": "2026-01-31T12:00:00.250Z",
        "model": "m",
        "state": 'say "a"',
        "label": None,
        "probability": None,
        "novelty": None,
        "latency_ms": 2,
    }
    (line,) = load_example().lines("scent/rig/substance", payload)
    assert line == (
        'scentd_substance,rig=rig,model=m state="say \\"a\\"",latency_ms=2.0 1769860800250000000'
    )
