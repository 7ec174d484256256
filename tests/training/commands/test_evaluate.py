"""`scent-train evaluate` on small recordings; needs no torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.models.toys import LABELS
from tests.sandbox import ROOT
from tests.training.outputs import toy_bundle, wandering
from tests.training.tiny import write_recordings
from training.cli import main
from training.data.dataset import Dataset


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy-substance")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = []
    for label, name in enumerate(LABELS):
        for seed in range(3):
            sample = wandering(label, 130, 10 * label + seed)
            samples.append(dataclasses.replace(sample, name=f"{name}/{seed}.csv"))
    data = Dataset("substance", tuple(LABELS), tuple(samples))
    return write_recordings(data, tmp_path_factory.mktemp("recordings"))


def test_evaluate_prints_the_agreed_keys_and_their_intervals(
    toy: Bundle, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(toy.folder), "--data", str(recordings), "--task", "substance"]
    assert main(["evaluate", *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "windows", "recordings", "top1", "top5", "macro_f1", "recording_top1", "seen_in_training",
        "announced", "announced_right", "intervals",
    ]  # fmt: skip
    assert result["announced"] == 1.0
    assert result["announced_right"] > 0.5
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high or name == "macro_f1"


def test_evaluate_loads_no_torch(toy: Bundle, recordings: Path) -> None:
    options = ["--model", str(toy.folder), "--data", str(recordings), "--task", "substance"]
    program = (
        "import sys\nfrom training.cli import main\n"
        f"main(['evaluate', *{options!r}, '--json'])\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_evaluate_streams_through_the_decision_layer(
    toy: Bundle, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(toy.folder), "--data", str(recordings), "--task", "substance"]
    assert main(["evaluate", *options, "--streaming", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["announced_120s"] > 0.3
    assert 15 <= result["median_decision_s"] <= 120
    assert main(["evaluate", *options, "--streaming", "--labels", "mint"]) == 2
