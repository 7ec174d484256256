"""The page and the targets of `scent-train trust`, and the bundle exported from the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle import load_bundle
from tests.training.pages import Outline
from tests.training.tiny import CONFIG, oscillating, write_config, write_recordings
from training.cli import main
from training.evaluation.held_out import read_held_out

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


def written(folder: Path, rows: int = 90) -> list[str]:
    """Write seven substances and a configuration; return the options that name them."""
    data = write_recordings(oscillating(rows), folder / "base")
    config = write_config(CONFIG, folder)
    return ["--config", str(config), "--data", str(data), "--run", str(folder / "run")]


def test_trust_prints_targets_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, run = written(tmp_path), tmp_path / "run"
    parts = ["--parts", "unknown,probabilities,lessons"]
    assert main(["trust", *options, *parts]) == 1
    assert "crossval --open-set" in capsys.readouterr().err
    assert main(["crossval", "--open-set", *options, "--json"]) == 0
    opened = json.loads(capsys.readouterr().out)
    assert main(["crossval", *options]) == 0
    capsys.readouterr()
    assert main(["trust", *options, *parts, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unknown"] == opened["unknown"]
    assert json.loads((run / "trust.json").read_text()) == report
    outline = Outline()
    text = (run / "trust.html").read_text()
    outline.feed(text)
    assert outline.open == []
    assert all(value.startswith("data:") for value in outline.loads)
    announced = report["probabilities"]["announced"]["always"]
    assert text.count("<svg") == 2 + ("stated" in announced)
    for figure in (
        report["unknown"]["auroc_300s"],
        *report["unknown"]["scores"]["cosine"]["windows"]["interval"],
    ):
        assert f"{figure:.3f}" in text
    # A part that was measured before is kept, and what was not measured is said.
    assert main(["trust", *options, "--parts", "unknown"]) == 0
    printed = capsys.readouterr().out
    assert "not measured" in printed
    assert f"{report['probabilities']['sets']['least_ambiguous']['always']['size']:.3f}" in printed
    assert main(["trust", *options, "--parts", "smell"]) == 2


def test_an_exported_bundle_has_the_arrays_for_novelty_teaching_and_calibration(
    tmp_path: Path,
) -> None:
    from training.export.rig_arrays import BELIEF, NOVELTY_HIDDEN, NOVELTY_KNOWN

    options = written(tmp_path, rows=130)
    assert main(["crossval", "--open-set", *options, "--folds", "0,1"]) == 0
    assert main(["crossval", *options]) == 0
    assert main(["export", *options, "--output", str(tmp_path / "bundle")]) == 0
    bundle = load_bundle(tmp_path / "bundle")
    decision = bundle.manifest.decision
    assert decision.novelty is not None
    assert decision.unknown_above is not None
    assert decision.set_threshold is not None
    assert decision.error_rate is not None
    space = bundle.space
    assert space is not None
    assert space.labels == bundle.manifest.labels
    assert {"rig_mean", "rig_covariance", "rig_wander"} <= set(bundle.arrays)
    labels = len(bundle.manifest.labels)
    assert bundle.arrays["rig_mean"].shape[0] == labels
    held_out = read_held_out(tmp_path / "run" / "held_out.npz")
    assert bundle.arrays[BELIEF].shape[0] == len(held_out.names)
    assert bundle.arrays[NOVELTY_KNOWN].shape == (len(held_out.names),)
    assert np.isfinite(bundle.arrays[NOVELTY_HIDDEN]).all()
