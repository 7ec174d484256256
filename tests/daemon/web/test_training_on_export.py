"""What was labelled on the page trains a model that the rig can run."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from daemon.demo.scenario import RIGS
from daemon.demo.taught_rig import AIR_S, ODOUR_S, record_exposure
from tests.daemon.web.asgi import call, web_app
from tests.sandbox import ROOT

BASE = "/api/rigs/kitchen/recordings"
LABELS = ("cloves", "peach", "saffron")


def run(module: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_export_trains_a_model_that_runs(tmp_path: Path) -> None:
    for label in LABELS:
        for day in (1, 2):
            path = tmp_path / f"recordings/r00000{day}-0001-2026010{day}T080000Z.live.csv"
            path = path.with_name(path.name.replace("-0001-", f"-000{LABELS.index(label) + 1}-"))
            record_exposure(RIGS[0], label, day, path)
    app = web_app(tmp_path)
    listed = call(app, BASE).json["recordings"]
    for item in listed:
        label = LABELS[int(item["name"][8:12]) - 1]
        stretch = {"start_ms": AIR_S * 1000, "end_ms": (AIR_S + ODOUR_S - 1) * 1000}
        body = {**stretch, "label": label}
        assert call(app, f"{BASE}/{item['name']}/label", method="POST", body=body).status == 200
    data = tmp_path / "data"
    zipfile.ZipFile(io.BytesIO(call(app, f"{BASE}/export").body)).extractall(data)
    assert sorted(path.name for path in data.iterdir()) == sorted(LABELS)
    assert {path.name for path in (data / "peach").iterdir()} == {"2026-01-01", "2026-01-02"}

    config, bundle = tmp_path / "my-rig.yaml", tmp_path / "my-rig"
    found = run("training.cli", "init", "--data", str(data), "--output", str(config))
    assert "peach 2 (2 sessions)" in found
    # Enough to see that it trains; not enough to be good.
    text = config.read_text()
    assert "steps: 300" in text
    config.write_text(text.replace("steps: 300", "steps: 30"))
    where = ("--config", str(config), "--data", str(data), "--run", str(tmp_path / "run"))
    run("training.cli", "crossval", "--sessions", *where)
    run("training.cli", "fit", *where)
    run("training.cli", "export", *where, "--output", str(bundle))
    (recording, *_) = sorted((data / "peach").rglob("*.csv"))
    shown = run("daemon.cli", "replay", str(recording), "--model", str(bundle), "--json")
    assert '"model":"my-rig"' in shown.replace(" ", "")
