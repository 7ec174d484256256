"""What was labelled on the page trains a model that the rig can run."""

from __future__ import annotations

import io
import json
import shutil
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
LAST_DAY = "20250519"
"""Of the four days of fruits5 that are here."""

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


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_real_recordings_are_labelled_exported_and_trained_for_the_next_day(
    smellnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three days of a real rig train a model, which names the recordings of the fourth."""
    imported = tmp_path / "imported"
    rig = str(smellnet.parent / "rigs/fruits5")
    run("training.cli", "data", "import", rig, "--format", "fruits5", "--output", str(imported))
    folder = tmp_path / "recordings"
    folder.mkdir()
    labels, last_day = {}, []
    for number, path in enumerate(sorted(imported.rglob("*.csv")), start=1):
        label, day = path.parent.parent.name, path.parent.name
        if day == LAST_DAY:
            last_day.append(path)
            continue
        name = f"r{number:06d}-0001-{day}T{path.stem.rpartition('_')[2]}Z.live.csv"
        shutil.copy(path, folder / name)
        labels[name] = label
    app = web_app(tmp_path)
    for name, label in labels.items():
        curve = call(app, f"{BASE}/{name}").json["curve"]
        body = {"start_ms": curve["first_ms"] + 25_000, "end_ms": curve["last_ms"], "label": label}
        assert call(app, f"{BASE}/{name}/label", method="POST", body=body).status == 200
    data, config, bundle = tmp_path / "data", tmp_path / "my-rig.yaml", tmp_path / "my-rig"
    zipfile.ZipFile(io.BytesIO(call(app, f"{BASE}/export").body)).extractall(data)
    run("training.cli", "init", "--data", str(data), "--output", str(config))
    where = ("--config", str(config), "--data", str(data), "--run", str(tmp_path / "run"))
    run("training.cli", "fit", *where)
    run("training.cli", "export", *where, "--output", str(bundle))
    named = {}
    for path in last_day:
        lines = run("daemon.cli", "replay", str(path), "--model", str(bundle), "--json")
        named[path.name] = path.parent.parent.name, json.loads(lines.splitlines()[-1])["label"]
    right = sum(truth == label for truth, label in named.values())
    with capsys.disabled():
        sys.stdout.write(f"\n{right} of {len(named)} recordings of the last day named rightly\n")
    assert len(named) == 7
    assert right > len(named) / 2, named
