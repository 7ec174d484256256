"""`scentd simulate` in a process of its own: its port, its output and its end."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import serial

from daemon.commands import simulate
from hardware.protocol import LineDecoder
from hardware.recording import RecordingWriter
from hardware.simulator.other_rig import FIXED_RIG, write_rig
from hardware.simulator.signals import SyntheticSignal
from tests.sandbox import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path


def _simulate(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _read_to_the_end(port: str) -> bytes:
    received = b""
    with serial.Serial(port, 115200, timeout=PATIENCE_S) as client:
        while True:
            try:
                received += client.read(client.in_waiting or 1)
            except (serial.SerialException, OSError):
                return received


def test_a_whole_scenario_is_played_and_the_process_ends(tmp_path: Path) -> None:
    link = tmp_path / "board"
    process = _simulate("--synthetic", "almond:30", "--speed", "100", "--link", str(link))
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(link)
    frames = LineDecoder().feed(_read_to_the_end(str(link)))
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert len(frames) == 30
    assert "30 readings" in errors
    assert not os.path.lexists(link)


@pytest.mark.parametrize("rate", ["1", "10"])
@pytest.mark.parametrize("odour", ["cloves", "clove", "orange", "nutmeg"])
def test_a_substance_of_either_board_is_played_at_either_rate(odour: str, rate: str) -> None:
    parser = argparse.ArgumentParser()
    simulate.add_options(parser)
    words = ["--synthetic", f"air:60,{odour}:120", "--rate", rate]
    played = simulate.signal_of(parser.parse_args(words))
    assert played.rate_hz == float(rate)
    assert len(list(itertools.islice(played, 3))) == 3


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_recording_is_played_as_another_rig_would_send_it(tmp_path: Path, by: str) -> None:
    played = np.array(list(SyntheticSignal("almond:20", seed=3)))
    recording, link = tmp_path / "almond.csv", tmp_path / "board"
    with RecordingWriter(recording) as writer:
        for row, values in enumerate(played):
            writer.write(1000 * row, values)
    write_rig(FIXED_RIG, tmp_path / "rig.yaml")
    rig = FIXED_RIG.name if by == "name" else str(tmp_path / "rig.yaml")
    process = _simulate(
        "--replay", str(recording), "--rig", rig, "--speed", "100", "--link", str(link)
    )
    assert process.stdout is not None
    process.stdout.readline()
    frames = LineDecoder().feed(_read_to_the_end(str(link)))
    process.communicate(timeout=PATIENCE_S)
    heard = np.array([frame.values for frame in frames])
    assert np.array_equal(heard, FIXED_RIG.transform(played, 1.0, drift_seed=0))
    assert not np.array_equal(heard, played)


def test_a_missing_rig_file_is_named(tmp_path: Path) -> None:
    process = _simulate("--synthetic", "almond:60", "--rig", str(tmp_path / "nowhere.yaml"))
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "nowhere.yaml" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_removes_its_link(tmp_path: Path, number: int) -> None:
    link = tmp_path / "board"
    process = _simulate("--synthetic", "almond:60", "--loop", "--link", str(link))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not os.path.lexists(link)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--synthetic", "almod:60"), "almod"),
        (("--synthetic", "almond:60", "--faults", "unplg@3"), "unplg"),
        (("--synthetic", "almond:60", "--rate", "0"), "times a second"),
        (("--synthetic", "almond:60", "--speed", "0"), "above zero"),
        (("--synthetic", "almond:60", "--once", "--loop"), "--loop"),
        (("--replay", "x.csv", "--board", "mixtures"), "--board"),
    ],
)
def test_wrong_use_is_answered_in_one_paragraph(arguments: tuple[str, ...], complaint: str) -> None:
    process = _simulate(*arguments)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert complaint in errors
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
