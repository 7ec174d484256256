"""`scent-train fit`, as a user starts and stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hardware.command_line import EXIT_INTERRUPTED
from tests.sandbox import ROOT, wait_until
from tests.training.tiny import periodic, with_optimiser, write_config, write_recordings

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 60.0


def test_ctrl_c_in_a_training_stops_what_would_follow_it(tmp_path: Path) -> None:
    """`fit && export` must not export a network that is not trained."""
    pytest.importorskip("torch", reason="the trainer needs the extra `train`")
    data = write_recordings(periodic(), tmp_path / "data")
    config = write_config(with_optimiser(steps=1_000_000), tmp_path)
    run = tmp_path / "run"
    fit = [sys.executable, "-m", "training.cli", "fit", "--config", config, "--data", data]
    # A shell lets what it starts in the background ignore Ctrl-C, and so would its children.
    listening = ["env", "--default-signal=INT"]
    process = subprocess.Popen(
        [*listening, *map(str, fit), "--run", str(run)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: list(run.rglob("*.pt")) != [], "a checkpoint", patience_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == EXIT_INTERRUPTED
    assert said.startswith("15 recordings, 1200 readings\n")
    assert "ended by Ctrl-C before the work was done" in said
    assert "Traceback" not in said
