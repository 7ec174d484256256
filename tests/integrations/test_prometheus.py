"""Prometheus reads the metrics of a rig; rules and dashboard name metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from daemon.sandbox.web_process import WebProcess
from tests.sandbox import ROOT, Mosquitto, ServiceProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ROOT / "integrations" / "prometheus"
DASHBOARD = ROOT / "integrations" / "grafana" / "scentd.json"
DASHBOARD_FIELDS = {"title", "uid", "schemaVersion", "templating", "panels", "time"}
PANEL_FIELDS = {"id", "title", "type", "gridPos", "datasource", "targets", "fieldConfig", "options"}
GRID_COLUMNS = 24


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "scrape.yaml"), ("test", "rules", "alerts_test.yaml")],
    ids=["configuration", "alerts"],
)
def test_prometheus_takes_the_files(arguments: tuple[str, ...]) -> None:
    program = shutil.which("promtool") or pytest.skip("Prometheus is not installed")
    done = subprocess.run(
        [program, *arguments], check=False, cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """Return every expression of the rules and of the dashboard."""
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [
        item["definition"] for item in dashboard["templating"]["list"] if "definition" in item
    ]
    return found


def test_the_dashboard_has_what_grafana_needs_and_no_panels_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert set(dashboard) >= DASHBOARD_FIELDS
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert set(panel) >= PANEL_FIELDS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= GRID_COLUMNS
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_grafanas_own_types_read_the_dashboard() -> None:
    models = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="grafana-foundation-sdk is not installed"
    )
    text = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    dashboard = models.Dashboard.from_json(text)
    assert dashboard.title == text["title"]
    assert len(dashboard.panels) == len(text["panels"])


class Prometheus:
    """A real Prometheus that scrapes one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def value(self, expression: str) -> float | None:
        """Return the value of the first series of an expression, None without one."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self._address}/api/v1/query?{query}") as answer:  # noqa: S310
                found: list[Any] = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None


@pytest.fixture
def web(broker: Mosquitto, rig: ServiceProcess, tmp_path: Path) -> Iterator[WebProcess]:
    with WebProcess(tmp_path / "scentd.yaml") as process:
        yield process


@pytest.fixture
def prometheus(web: WebProcess, tmp_path: Path) -> Iterator[Prometheus]:
    program = shutil.which("prometheus") or pytest.skip("Prometheus is not installed")
    text = (FOLDER / "scrape.yaml").read_text(encoding="utf-8")
    target = urllib.parse.urlsplit(web.address).netloc
    text = text.replace("127.0.0.1:8733", target).replace("interval: 15s", "interval: 1s")
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (tmp_path / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(30)


def test_prometheus_scrapes_what_rules_and_dashboard_ask_for(
    web: WebProcess, prometheus: Prometheus
) -> None:
    wait_until(lambda: prometheus.value('up{job="scentd"}') == 1.0, "the scrape")
    wait_until(lambda: prometheus.value('scentd_up{rig="rig"}') == 1.0, "the rig")
    smell = 'scentd_substance_probability_ratio{rig="rig",label="lemon"}'
    wait_until(lambda: prometheus.value(smell) is not None, "the smell")
    with urllib.request.urlopen(f"{web.address}metrics") as answer:  # noqa: S310
        exposed = set(re.findall(r"^# TYPE (\S+)", answer.read().decode(), re.MULTILINE))
    asked = {name for text in expressions() for name in re.findall(r"scentd_[a-z_]+", text)}
    assert asked <= exposed
