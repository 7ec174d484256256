"""The bundle of a trained network agrees with torch, and its card shows the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from tests.training.tiny import periodic, with_optimiser
from training.data.protocol_windows import cut_windows
from training.evaluation.network_outputs import run_network, score_bundle

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.export.bundle import Provenance, export_bundle  # noqa: E402
from training.fit import train_network  # noqa: E402

torch.set_num_threads(1)

CONFIG = with_optimiser(steps=60)


def test_bundle_of_a_fitted_network_agrees_with_torch(tmp_path: Path) -> None:
    data = periodic(rows=120)
    fitted = train_network(CONFIG, data)
    metrics = {"crossval": {"top1": 0.5}, "notes": ["Half of it."]}
    provenance = Provenance("test", "tiny.yaml", metrics)
    export_bundle(tmp_path / "tiny", CONFIG, fitted, data, DecisionSpec(), provenance)
    card = (tmp_path / "tiny" / "README.md").read_text()
    assert "| crossval | top1 | 0.5 |" in card
    assert "Half of it." in card
    windows = cut_windows(data.samples, fitted.spec)
    with torch.no_grad():
        logits = fitted.network(torch.from_numpy(windows.x), torch.from_numpy(windows.mask))[0]
    full = load_bundle(tmp_path / "tiny", precision="fp32")
    small = load_bundle(tmp_path / "tiny", precision="int8")
    answers = [run_network(bundle, data) for bundle in (full, small)]
    assert answers[0].logits is not None
    assert answers[1].logits is not None
    np.testing.assert_allclose(answers[0].logits, logits.numpy(), atol=1e-4)
    assert (answers[0].logits.argmax(1) == answers[1].logits.argmax(1)).mean() > 0.95
    result = score_bundle(small, data, answers[1])
    assert result["seen_in_training"] == 15
    assert set(result) == {
        "windows", "recordings", "top1", "top5", "macro_f1", "recording_top1", "seen_in_training",
    }  # fmt: skip
