"""The report of a run folder and its page."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.pages import Outline
from tests.training.tiny import CONFIG, LABELS, oscillating
from training.cli import main
from training.evaluation.findings import (
    over_time,
    read_fold_constants,
)
from training.evaluation.held_out import HeldOut, read_held_out
from training.evaluation.network_outputs import WindowOutputs
from training.experiments.crossval import decision_report
from training.export.model_card import HeldOutReports, collect_figures, figure_notes

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a cross-validation of two folds."""
    from training.experiments.crossval import cross_validate

    folder = tmp_path_factory.mktemp("run")
    cross_validate(CONFIG, oscillating(), folder, folds=range(2))
    return folder


def test_accuracy_over_time_agrees_with_the_scores(finished: Path) -> None:
    report = json.loads((finished / "crossval.json").read_text())
    held_out = read_held_out(finished / "held_out.npz")
    course = over_time(held_out, read_fold_constants(report["decision"]["constants"]))
    assert course is not None
    at = int(np.searchsorted(course.seconds, 60, side="right")) - 1
    assert course.accuracy[at] == pytest.approx(
        report["decision"]["scores"]["accuracy_60s"], abs=1e-4
    )
    assert (course.right <= course.announced + 1e-9).all()


def test_the_page_is_complete_and_loads_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--run", str(finished), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "report.json"), str(tmp_path / "report.html"),
    ]  # fmt: skip
    text = (tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert all(value.startswith("data:") for value in outline.loads)
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(plots) == 4 + 2 * 2  # and the course of each fold's training
    for plot in plots:
        assert "var(--ink)" in plot
        assert "#010101" not in plot


def test_the_report_has_the_figures_of_the_cross_validation(finished: Path, tmp_path: Path) -> None:
    assert main(["report", "--run", str(finished), "--output", str(tmp_path)]) == 0
    crossval = json.loads((finished / "crossval.json").read_text())
    report = json.loads((tmp_path / "report.json").read_text())
    text = (tmp_path / "report.html").read_text()
    assert report["crossval"] == crossval
    assert len(report["findings"]["confusion"]) == len(LABELS)
    for value in (crossval["mean"]["top1"], *crossval["intervals"]["robust_top1"]):
        assert f"{value:.3f}" in text


def test_reports_of_other_commands_are_included(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    row = {"name": "trees", "kind": "ExtraTrees", "top1": 0.7654, "low": 0.71, "high": 0.81}
    (run / "compare.json").write_text(json.dumps({"rows": [row]}))
    audit = {"control": "weather", "top1": 0.6311, "verdict": "leaks", "sentence": "<It> leaks."}
    (run / "audit.json").write_text(json.dumps({"rows": [audit]}))
    assert main(["report", "--run", str(run)]) == 0
    text = (run / "report.html").read_text()
    for words in ("ExtraTrees", "0.765", "0.710\N{NO-BREAK SPACE}to", "&lt;It&gt; leaks."):
        assert words in text
    assert "second modality" not in text


def test_the_card_takes_figures_from_reports_of_the_same_data_alone(
    finished: Path, tmp_path: Path
) -> None:
    report = json.loads((finished / "crossval.json").read_text())
    row = {"control": "weather", "top1": 0.63, "low": 0.58, "high": 0.69, "sentence": "It leaks."}
    audit = {"data_sha256": report["data_sha256"], "rows": [row]}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    (tmp_path / "compare.json").write_text(json.dumps({"data_sha256": "other", "rows": [row]}))
    figures = collect_figures(HeldOutReports(report), tmp_path)
    assert figures["crossval"] == report["mean"]
    assert figures["streaming"] == report["decision"]["scores"]
    assert figures["audit"] == {"weather": 0.63}
    assert figures["intervals"]["audit"] == {"weather": [0.58, 0.69]}
    assert "baselines" not in figures
    assert "It leaks." in figure_notes(HeldOutReports(report), tmp_path)


def test_a_run_without_intervals_says_which_command_to_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--run", str(tmp_path)]) == 1
    assert "scent-train crossval" in capsys.readouterr().err
    old = json.loads((finished / "crossval.json").read_text())
    del old["intervals"]
    (tmp_path / "crossval.json").write_text(json.dumps(old))
    assert main(["report", "--run", str(tmp_path)]) == 1
    assert "older one" in capsys.readouterr().err


def test_a_mixture_report_has_presence_scores_and_the_constant(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    target = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    presence = np.clip(0.3 + 0.4 * target + rng.normal(0, 0.15, (60, 3)), 0.01, 0.99)
    answers = WindowOutputs(
        np.arange(60), presence.astype(np.float32), proportions=target, presence=presence
    )
    names = tuple(map(str, range(60)))
    held_out = HeldOut(names, names, np.arange(60) % 5, target, answers)
    layer = decision_report(held_out)
    # Thresholds of the other folds part what lies two deviations to either side of them.
    assert layer["scores"]["presence_sensitivity"] > 0.75
    assert layer["scores"]["presence_specificity"] > 0.75
    held_out.save(tmp_path / "held_out.npz")
    scores = {"within_01": 0.3, "constant_within_01": 0.123}
    report = {
        "model": "tiny-mix", "task": "mixture", "protocol": "sets held out", "precision": "int8",
        "seed": 0, "data_sha256": "ab", "labels": ["a", "b", "c"], "folds": [{"fold": 0}],
        "mean": scores, "pooled": scores, "intervals": {name: [0.1, 0.4] for name in scores},
        "decision": layer,
    }  # fmt: skip
    (tmp_path / "crossval.json").write_text(json.dumps(report))
    assert main(["report", "--run", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    for words in ("Presence at the fitted thresholds", "presence_f1", "0.123"):
        assert words in text


def test_one_fold_is_reported_without_a_decision_layer(finished: Path, tmp_path: Path) -> None:
    from training.experiments.crossval import cross_validate

    shutil.copytree(finished / "fold-0", tmp_path / "fold-0")
    config = dataclasses.replace(CONFIG)
    report = cross_validate(config, oscillating(), tmp_path, folds=range(1))
    assert report["decision"] == {}
    assert main(["report", "--run", str(tmp_path)]) == 0
    assert "nothing to fit the constants on" in (tmp_path / "report.html").read_text()
