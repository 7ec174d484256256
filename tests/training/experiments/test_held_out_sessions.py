"""Whole sessions held out: what is trained, what is judged, and what a bundle makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from tests.training.outputs import held_out_of, random_streams
from tests.training.tiny import (
    in_sessions,
    periodic,
    with_optimiser,
    write_config,
    write_recordings,
)
from training.cli import main
from training.data.dataset import load_substances
from training.evaluation.decision_source import CAUTIOUS, choose_decision, fold_decisions
from training.evaluation.replayed import Announcements, announcement_tally
from training.evaluation.scoring import recording_rank_tally, total_scores
from training.experiments.held_out_sessions import cross_validate_sessions

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)

CONFIG = with_optimiser(steps=150)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run folder after `crossval --sessions`, and the options of its commands."""
    root = tmp_path_factory.mktemp("sessions")
    folder = write_recordings(in_sessions(3, per_label=6, rows=120), root / "data")
    also = write_recordings(periodic(per_label=1, rows=120, seed=3), root / "also")
    options = [
        "--config", str(write_config(CONFIG, root)), "--data", str(folder),
        "--run", str(root / "run"),
    ]  # fmt: skip
    assert main(["crossval", "--sessions", *options, "--also", str(also)]) == 0
    return root, options


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_learnable_relation_is_found_in_every_session(finished: tuple[Path, list[str]]) -> None:
    report = read(finished[0] / "run/sessions.json")
    assert [row["sessions"] for row in report["folds"]] == ["day-0", "day-1", "day-2"]
    assert [row["recordings"] for row in report["folds"]] == [6, 6, 6]
    assert report["pooled"]["recording_top1"] > 0.8
    assert report["pooled"]["announced_right"] > 0.8
    assert set(report["pooled"]) == set(report["intervals"])


def test_no_network_saw_the_session_that_it_is_judged_on(
    finished: tuple[Path, list[str]],
) -> None:
    data = load_substances(finished[0] / "data")
    for fold in range(3):
        known = load_bundle(finished[0] / f"run/sessions-{fold}/bundle").training_hashes
        here = {s.sha256 for s in data.samples if s.session == f"day-{fold}"}
        assert not known & here
        assert len(known) == 12


def test_recordings_of_also_are_judged_by_every_network_and_count_once(
    finished: tuple[Path, list[str]],
) -> None:
    report = read(finished[0] / "run/sessions.json")
    names = [row["recording"] for row in report["recordings"]]
    assert names.count("almond/0.csv") == 3
    own, other = (
        np.array([row["recording_top1"] for row in rows])
        for rows in (report["folds"], [row["also"] for row in report["folds"]])
    )
    expected = (own.sum() * 6 + other.mean() * 3) / 21
    assert report["pooled"]["recording_top1"] == pytest.approx(expected, abs=1e-3)


def test_a_bundle_takes_its_constants_from_the_held_out_sessions(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = finished
    assert main(["export", *options, "--output", str(root / "bundle")]) == 0
    assert "whole held-out sessions" in capsys.readouterr().err
    bundle = load_bundle(root / "bundle")
    manifest = bundle.manifest
    assert len(bundle.training_hashes) == 18
    listed = (root / "bundle/training_files.txt").read_text().splitlines()
    assert {line.split("\t")[1] for line in listed} == {"day-0", "day-1", "day-2"}
    assert next(iter(manifest.metrics)) == "sessions"
    assert manifest.decision != CAUTIOUS
    card = (root / "bundle/README.md").read_text()
    assert card.index("| sessions | recording_top1") < card.index("whole held-out sessions")


def test_the_page_of_a_run_begins_with_the_held_out_sessions(
    finished: tuple[Path, list[str]],
) -> None:
    root, _ = finished
    assert main(["report", "--run", str(root / "run"), "--output", str(root / "page")]) == 0
    page = (root / "page/report.html").read_text()
    assert "On another day: whole sessions held out" in page
    assert "day-2" in page


def test_a_bundle_without_held_out_predictions_says_so_and_is_cautious(
    finished: tuple[Path, list[str]], tmp_path: Path
) -> None:
    options = [*finished[1][:-1], str(tmp_path / "run")]
    assert main(["export", *options, "--output", str(tmp_path / "bundle")]) == 0
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.decision == CAUTIOUS
    assert "No recording was held out" in (tmp_path / "bundle/README.md").read_text()
    assert "No recording was held out" in manifest.metrics["notes"][0]


def test_options_that_contradict_each_other_are_refused(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = finished
    assert main(["crossval", "--sessions", "--few-shot", *options]) == 2
    assert main(["crossval", "--also", str(root), *options]) == 2
    assert main(["crossval", "--sessions", "--folds", "0", *options]) == 2
    assert main(["crossval", "--sessions", "--also", str(root / "data"), *options]) == 2
    assert "is in both" in capsys.readouterr().err


def test_one_session_only_says_how_to_lay_recordings_out(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="LABEL/SESSION"):
        cross_validate_sessions(CONFIG, periodic(), tmp_path)


def test_a_fold_s_constants_come_from_other_sessions_or_from_cautious_ones() -> None:
    held_out = held_out_of(random_streams(40))
    before = fold_decisions(held_out, None)
    assert {one.source for one in before.values()} == {"sessions"}
    few = dataclasses.replace(held_out, fold=(np.arange(40) >= 5).astype(int))
    found = fold_decisions(few, None)
    assert (found[0].source, found[1].source) == ("sessions", "none")
    assert found[1].spec == CAUTIOUS
    same = fold_decisions(few, dataclasses.replace(held_out, fold=np.arange(40) % 5))
    assert same[1].source == "none"  # held-out predictions of the same recordings do not count


def test_without_a_run_the_constants_are_cautious() -> None:
    chosen = choose_decision(None, "mixture", ("a", "b"))
    assert chosen.source == "none"
    assert len(chosen.spec.presence_thresholds) == 2
    assert not CAUTIOUS.problems()
    assert CAUTIOUS.announce > DecisionSpec().announce


def test_announcements_are_counted_by_first_and_last_name() -> None:
    replayed = [
        Announcements(("a",), (30.0,)),
        Announcements(("b", "a"), (40.0, 90.0), taken_back=True),
        Announcements(("b",), (100.0,)),
        Announcements(),
    ]
    scores = total_scores(announcement_tally(replayed, ["a"] * 4))
    assert scores == {
        "announced": 0.75, "announced_right": pytest.approx(2 / 3), "right_in_the_end": 0.5,
        "wrong_in_the_end": 0.25, "another_name_first": 0.5, "announced_60s": 0.5,
        "right_240s": 0.5, "wrong_240s": 0.25, "taken_back": 0.25,
    }  # fmt: skip


def test_ranks_of_recordings_are_by_mean_log_probability() -> None:
    log_p = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]))
    tally = recording_rank_tally(log_p, np.array([0, 0, 1]), np.array([1, 0, 2]), (1, 2, 3))
    scores = total_scores(tally)
    assert scores == {"recording_top1": 0.5, "recording_top2": 0.5, "recording_top3": 1.0}
