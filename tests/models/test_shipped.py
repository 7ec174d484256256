"""The shipped bundles: complete, small, and as their manifests describe them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import CHANNELS, Part, channel_index
from hardware.frames import SensorFrame
from hardware.readings import range_quality
from hardware.recording import read_recording
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD, SUBSTANCE_BOARD
from models.bundle import (
    RIG_BUNDLES,
    bundle_folder,
    integer_matmuls,
    load_bundle,
    shipped_bundles,
)
from models.decision_spec import State
from models.manifest import read_manifest
from models.nose import Nose
from models.preprocess import PreprocessSpec, batch_features, protocol_windows
from models.requirements import rate_problem

MAX_SHIPPED_BYTES = 35_000_000
"""In a checkout. Half of it are float32 models and bundles that an installed wheel leaves out."""


def simulated_windows(spec: PreprocessSpec) -> np.ndarray:
    """Return full windows of synthetic odours on the board of that rate."""
    board = "substances" if spec.rate_hz < 5 else "mixtures"
    seconds = round(300 / spec.rate_hz)
    scenario = f"banana:{seconds},air:{seconds},mango:{seconds}"
    signal = SyntheticSignal(scenario, rate_hz=spec.rate_hz, seed=1, board=board)
    segments = batch_features(np.array(list(signal), dtype=np.float32), spec)
    return np.concatenate([protocol_windows(segment, spec) for segment in segments])


def test_bundles_are_shipped() -> None:
    assert shipped_bundles()


def test_all_shipped_bundles_together_stay_small() -> None:
    folders = [bundle_folder(name) for name in shipped_bundles()]
    files = [path for folder in folders for path in folder.iterdir()]
    assert 0 < sum(path.stat().st_size for path in files) < MAX_SHIPPED_BYTES


@pytest.mark.parametrize("name", shipped_bundles())
def test_inputs_have_no_channel_that_identifies_a_session(name: str) -> None:
    """No environment channel is an input; readings enter as log-conductances."""
    spec = read_manifest(bundle_folder(name)).preprocessing
    parts = {CHANNELS[channel_index(channel)].part for channel in spec.channels}
    assert Part.ENVIRONMENT not in parts
    # The published model uses differences of the readings themselves.
    assert spec.linearise == ("raw" if name == "paper-50" else "log")


@pytest.mark.parametrize("name", shipped_bundles())
def test_int8_and_float32_agree_within_the_stated_tolerance(name: str) -> None:
    int8, fp32 = load_bundle(name, "int8"), load_bundle(name, "fp32")
    manifest = int8.manifest
    assert integer_matmuls((int8.folder / "model.onnx").read_bytes()) > 5
    windows = simulated_windows(manifest.preprocessing)
    mask = np.ones(windows.shape[:2], dtype=np.float32)
    shares = []
    for bundle in (int8, fp32):
        outputs = bundle.run(windows, mask)
        if manifest.task == "mixture":
            shares.append(outputs.proportions)
        else:
            scaled = np.exp(outputs.logits / manifest.decision.temperature)
            shares.append(scaled / scaled.sum(axis=1, keepdims=True))
    assert len(windows) > 5
    assert np.abs(shares[0] - shares[1]).max() <= manifest.runtime.tolerance


@pytest.mark.data
@pytest.mark.parametrize("label", ["banana", "garlic", "cinnamon", "nutmeg"])
def test_a_recording_it_was_trained_on_is_named_or_listed_first(smellnet: Path, label: str) -> None:
    """It says nothing about other recordings, but tests every step from a file to a label."""
    if "substances-50" not in shipped_bundles():
        pytest.skip("substances-50 is not shipped")
    path = min(smellnet.glob(f"base/{label}/*.csv"))
    recording = read_recording(path)
    nose = Nose(
        [load_bundle("substances-50")],
        rate_hz=recording.nominal_rate_hz,
        skip_warm_up=True,
        assume_exposed=True,
    )
    predictions = []
    for number, frame in enumerate(recording.frames()):
        predictions += nose.process(frame, 1000.0 * number).predictions
    last = predictions[-1]
    assert (last.label or last.short_list[0]) == label


@pytest.mark.parametrize("board", [SUBSTANCE_BOARD, MIXTURE_BOARD])
@pytest.mark.parametrize("rate_hz", [1.0, 10.0])
def test_nothing_is_named_in_clean_air(board: str, rate_hz: float) -> None:
    """Both shipped models of single substances and mixtures, on either board, at either rate."""
    nose = Nose([load_bundle("substances-50"), load_bundle("mixtures-12")], rate_hz=rate_hz)
    signal = SyntheticSignal("air:120", rate_hz=rate_hz, seed=2, board=board)
    states = set()
    for row, values in enumerate(signal):
        t_ms = round(row * 1000 / rate_hz)
        step = nose.process(SensorFrame(row, t_ms, values, range_quality(values).copy()))
        states |= {prediction.state for prediction in step.predictions}
    assert states <= {State.WARMING_UP, State.AMBIENT, State.DISABLED}


@pytest.mark.parametrize("board", [SUBSTANCE_BOARD, MIXTURE_BOARD])
def test_a_network_of_one_rig_names_nothing_on_another(board: str) -> None:
    nose = Nose([load_bundle("fruits-5")], rate_hz=1.0, skip_warm_up=True)
    signal = SyntheticSignal("air:60,banana:120", rate_hz=1.0, seed=2, board=board)
    predictions = []
    for row, values in enumerate(signal):
        step = nose.process(SensorFrame(row, 1000 * row, values, range_quality(values).copy()))
        predictions += step.predictions
    assert State.RECOGNISED not in {prediction.state for prediction in predictions}
    assert any(prediction.state is State.UNRECOGNISED for prediction in predictions)
    assert predictions[-1].foreign_board


def test_the_rate_of_the_shipped_sketch_feeds_the_models_of_a_rig() -> None:
    sketch = Path(__file__).parents[2] / "hardware/firmware/scentboard/scentboard.ino"
    (period_ms,) = re.findall(r"kPeriodMs = (\d+);", sketch.read_text(encoding="utf-8"))
    for name in RIG_BUNDLES:
        assert rate_problem(read_manifest(bundle_folder(name)), 1000 / int(period_ms)) is None
