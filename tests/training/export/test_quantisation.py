"""Both kinds of int8: integer products, calibration by training windows, and the loss in score."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hardware.errors import UsageError
from models.bundle import Bundle, integer_matmuls, load_bundle
from models.decision_spec import DecisionSpec
from tests.training import tiny
from tests.training.tiny import SPEC, periodic, write_config, write_recordings
from training.config import AugmentConfig, TrainConfig
from training.data.dataset import Dataset, folds_of, load_substances
from training.data.protocol_windows import Windows
from training.evaluation.intervals import pool_tallies
from training.evaluation.network_outputs import run_network, tally_bundle
from training.evaluation.scoring import Ratio, total_scores
from training.export import precision

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.cli import main  # noqa: E402
from training.export.bundle import Provenance, export_bundle  # noqa: E402
from training.export.onnx import ExportError, quantise, to_onnx  # noqa: E402
from training.fit import train_network  # noqa: E402
from training.network.scentformer import build_network  # noqa: E402

torch.set_num_threads(1)

CONFIG = dataclasses.replace(tiny.CONFIG, augment=AugmentConfig(), seed=3)


def windows(seed: int, count: int = 30, size: float = 1.0) -> Windows:
    rng = np.random.default_rng(seed)
    x = (size * rng.standard_normal((count, 20, 4))).astype(np.float32)
    return Windows(x, np.ones((count, 20), np.float32), np.arange(count))


@pytest.fixture(scope="module")
def model() -> bytes:
    torch.manual_seed(5)
    network = build_network("substance", CONFIG.network, SPEC, 5)
    return to_onnx(network, SPEC)


def logits(model: bytes, given: Windows) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = [
        session.run(["logits"], {"x": given.x[k : k + 1], "mask": given.mask[k : k + 1]})[0]
        for k in range(len(given.x))
    ]
    return np.concatenate(rows)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_int8_has_integer_products_and_nearly_the_same_answers(model: bytes, kind: str) -> None:
    small = quantise(model, kind, windows(1))  # type: ignore[arg-type]
    assert integer_matmuls(small) >= 6
    assert len(small) < len(model)
    given = windows(2)
    full, integer = logits(model, given), logits(small, given)
    assert np.abs(full - integer).max() < 0.15 * np.abs(full).max()
    assert not np.array_equal(full, integer)


def test_static_scales_are_those_of_the_calibration_windows(model: bytes) -> None:
    """Far outside the calibration windows static quantisation clips."""
    static = [quantise(model, "static", windows(1, size=size)) for size in (1.0, 0.01)]
    given = windows(2, size=1.0)
    full = logits(model, given)
    errors = [np.abs(logits(small, given) - full).max() for small in static]
    assert errors[1] > 3 * errors[0]


def test_static_without_calibration_windows_is_refused(model: bytes) -> None:
    with pytest.raises(ExportError, match="calibrate"):
        quantise(model, "static")


def fold_bundle(config: TrainConfig, data: Dataset, folder: Path, steps: list[int]) -> Bundle:
    """Train and export as `crossval` does for the fold that `folder` is named after."""
    train = data.subset(folds_of(data) != int(folder.name[-1]))
    fitted = train_network(config, train, folder=folder, on_step=lambda step, _: steps.append(step))
    export_bundle(
        folder / "bundle", config, fitted, train, DecisionSpec(), Provenance("test", "tiny")
    )
    return load_bundle(folder / "bundle", precision="int8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Dataset]:
    """A cross-validation's run folder, its data folder and its data."""
    root = tmp_path_factory.mktemp("run")
    folder = write_recordings(periodic(), root / "data")
    data = load_substances(folder)
    for fold in range(5):
        fold_bundle(CONFIG, data, root / f"run/fold-{fold}", [])
    write_config(CONFIG, root)
    return root, folder, data


def test_every_kind_is_scored_on_what_its_fold_held_out(
    finished: tuple[Path, Path, Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder, data = finished
    code = main(
        ["bench", "--accuracy", "--config", str(root / "tiny.yaml"), "--data", str(folder),
         "--run", str(root / "run"), "--runs", "5", "--json"]
    )  # fmt: skip
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert set(kinds) == {"fp32", "dynamic", "static"}
    for kind, file in (("fp32", "fp32"), ("dynamic", "int8")):
        parts = []
        for fold in range(5):
            test = data.subset(folds_of(data) == fold)
            bundle = load_bundle(root / f"run/fold-{fold}/bundle", precision=file)  # type: ignore[arg-type]
            parts.append(tally_bundle(bundle, test, run_network(bundle, test)))
        assert kinds[kind]["top1"] == pytest.approx(
            total_scores(pool_tallies(parts))["top1"], abs=1e-4
        )
    assert kinds["fp32"]["loss"] == 0
    assert kinds["dynamic"]["mb"] < kinds["fp32"]["mb"]
    assert code == int(kinds["dynamic"]["loss"] > precision.LARGEST_LOSS)


def test_bundle_trained_on_the_held_out_recordings_is_refused(
    finished: tuple[Path, Path, Dataset],
) -> None:
    root, _, data = finished
    with pytest.raises(UsageError, match="holds out"):
        precision.compare_precisions(root / "run", data, (folds_of(data) + 1) % 5, [0], timed=1)


def test_missing_fold_is_wrong_use(finished: tuple[Path, Path, Dataset], tmp_path: Path) -> None:
    _, _, data = finished
    with pytest.raises(UsageError, match="crossval"):
        precision.compare_precisions(tmp_path, data, folds_of(data), [0])


def test_manifest_records_the_quantisation(
    finished: tuple[Path, Path, Dataset], tmp_path: Path
) -> None:
    _, _, data = finished
    folder = tmp_path / "fold-0"
    steps: list[int] = []
    bundle = fold_bundle(CONFIG, data, folder, steps)
    assert bundle.manifest.runtime.quantisation == "dynamic"
    assert len(steps) == CONFIG.optimiser.steps
    # Another quantisation uses the same checkpoint: no step is trained again.
    static = fold_bundle(dataclasses.replace(CONFIG, quantisation="static"), data, folder, steps)
    assert static.manifest.runtime.quantisation == "static"
    assert len(steps) == CONFIG.optimiser.steps


def compared(top1: float, p50_ms: float) -> precision.PrecisionScores:
    hits = np.zeros(1000)
    hits[: round(1000 * top1)] = 1
    tally = {"top1": Ratio(hits, np.ones(1000))}
    return precision.PrecisionScores(tally, 1.0, p50_ms, p50_ms)


def test_choice_is_the_fastest_that_loses_no_more_than_half_a_point() -> None:
    rows = precision.precision_report(
        {
            "fp32": compared(0.8, 2.0),
            "dynamic": compared(0.796, 1.0),
            "static": compared(0.79, 0.5),
        },
        "substance",
    )
    assert rows["static"]["loss"] == pytest.approx(0.01)
    low, high = rows["static"]["loss_interval"]
    assert 0 < low < 0.01 < high
    assert precision.choose_precision(rows) == "dynamic"
    rows["dynamic"]["loss"] = 0.006
    assert precision.choose_precision(rows) == "fp32"
