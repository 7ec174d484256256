"""The page record-label-train.md, walked: real exposures into a service, out again as a bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hardware.recording import read_recording
from hardware.recording_labels import read_labels
from tests.sandbox import ROOT, Mosquitto, ServiceProcess, needs_mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPEED = 60
"""Board seconds per second: an exposure of ten minutes takes ten seconds."""

LOST_S = 1.5 * SPEED
"""Board seconds that may be left unread when the simulated board ends."""

DAYS = ("20250517", "20250519")
LABELS = ("banana", "lavender")
STEPS = 10
"""Of a training that shows that it runs."""

PROGRAMS = {"scentd": "daemon.cli", "scent-train": "training.cli"}


def environment(folder: Path) -> dict[str, str]:
    """Return that of a user at home in `folder`; a second thread costs more than it gives here."""
    paths = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return {**paths, "OMP_NUM_THREADS": "1"}


def typed(folder: Path, program: str, *arguments: object) -> str:
    """Run a command as it is typed; return its standard output."""
    command = [sys.executable, "-m", PROGRAMS[program], *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def record_day(folder: Path, broker_port: int, exposures: Iterable[Path]) -> list[str]:
    """Let a service record a day's exposures under their labels; return its segments.

    It is started anew for each, since no clean air lies between two of the recordings.
    """
    settings = {
        "rig_id": "fruits",
        "source": {"port": str(folder / "board")},
        "models": ["substances-50"],
        "mqtt": {"host": "127.0.0.1", "port": broker_port},
        "record": True,
        "recording": {"reserve_mb": 0},
    }
    before = set(names_in(folder))
    for exposure in exposures:
        times = read_recording(exposure).timestamp_ms
        assert times is not None
        with ServiceProcess(folder, settings) as service:
            play(
                folder,
                exposure,
                label=exposure.parent.parent.name,
                seconds=times[-1] / 1000 - LOST_S,
            )
            service.end()
    return sorted(set(names_in(folder)) - before)


def play(folder: Path, exposure: Path, *, label: str, seconds: float) -> None:
    """Play a recording as a board, and record it under its label as a user does."""
    module = [sys.executable, "-m", PROGRAMS["scentd"]]
    environ = environment(folder)
    record = subprocess.Popen(
        [*module, "record", label, "--seconds", f"{min(seconds, 3600):.0f}", "--json"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    simulate = ["simulate", "--replay", str(exposure), "--speed", str(SPEED), "--link", "board"]
    with record:
        assert record.stderr is not None
        record.stderr.readline()  # the first report of progress: it waits for readings
        board = subprocess.run(
            [*module, *simulate], cwd=folder, env=environ, capture_output=True, check=False
        )
        assert board.returncode == 0, board.stderr
        out, err = record.communicate(timeout=120)
    assert record.returncode == 0, err
    assert json.loads(out)["labelled"]


def names_in(folder: Path) -> list[str]:
    listed = json.loads(typed(folder, "scentd", "recordings", "list", "--json"))
    return [item["name"].removesuffix(".gz") for item in listed]


def record_and_export(folder: Path, broker_port: int, exposures: Sequence[Path]) -> None:
    """Record every day's exposures, and export what is labelled under its day."""
    by_day: dict[str, list[Path]] = defaultdict(list)
    for path in exposures:
        by_day[path.parent.name].append(path)
    for day, paths in sorted(by_day.items()):
        names = record_day(folder, broker_port, paths)
        arguments = ("export", "--output", "my-smells", "--session", day, *names)
        typed(folder, "scentd", "recordings", *arguments)


def import_exposures(folder: Path, rigs: Path) -> list[Path]:
    typed(folder, "scent-train", "data", "import", rigs, "--format", "fruits5", "--output", "days")
    return sorted((folder / "days").glob("*/*/*.csv"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_way_from_recording_to_a_bundle_can_be_walked(smellnet: Path, tmp_path: Path) -> None:
    rigs = smellnet.parent / "rigs" / "fruits5"
    if not rigs.is_dir():
        pytest.skip("SCENTD_DATA holds no rigs/fruits5")
    needs_mosquitto()
    (tmp_path / "scentd.yaml").write_text(
        "rig_id: fruits\nsource: {port: auto}\nmodels: [substances-50]\nstate_dir: state\n"
    )
    chosen = {}
    for path in import_exposures(tmp_path, rigs):
        if path.parent.name in DAYS and path.parent.parent.name in LABELS:
            chosen.setdefault((path.parent.parent.name, path.parent.name), path)
    with Mosquitto(tmp_path) as broker:
        record_and_export(tmp_path, broker.port, list(chosen.values()))
    exported = sorted((tmp_path / "my-smells").glob("*/*/*.csv"))
    assert {(path.parent.parent.name, path.parent.name) for path in exported} == set(chosen)
    for name in names_in(tmp_path):
        assert read_labels(tmp_path / "state" / "recordings" / name).stretches
    typed(tmp_path, "scent-train", "init", "--data", "my-smells")
    config = tmp_path / "my-smells.yaml"
    shorter = re.sub(r"\bsteps: \d+", f"steps: {STEPS}", config.read_text(encoding="utf-8"))
    config.write_text(shorter, encoding="utf-8")
    training = ("--config", "my-smells.yaml", "--data", "my-smells")
    typed(tmp_path, "scent-train", "fit", *training)
    typed(tmp_path, "scent-train", "report", "--run", "runs/my-smells")
    typed(tmp_path, "scent-train", "export", *training, "--output", "my-smells-bundle")
    typed(tmp_path, "scentd", "models", "verify", "./my-smells-bundle")
    page = tmp_path / "replay.html"
    typed(tmp_path, "scentd", "replay", exported[0], "--model", "my-smells-bundle", "--html", page)
    assert "<svg" in page.read_text()
