"""Smells never met: the networks' answers, the scores of novelty, and what is fitted on them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from models.embedding_space import EmbeddingSpace
from models.substance_decision import EvidenceShare
from tests.training.reports.test_run import Outline
from tests.training.tiny import CONFIG, LABELS, oscillating, write_config, write_recordings
from training.cli import main
from training.evaluation.decision_fit import (
    fit_fold_constants,
    fit_set,
    fit_unknown,
    fit_unknown_bound,
)
from training.evaluation.held_out import HeldOut, read_held_out
from training.evaluation.network_outputs import WindowOutputs
from training.evaluation.open_set import UNKNOWN, OpenSetError, OpenSetFold, read_open_set
from training.evaluation.streaming import Streams, novelty_means, trace_decisions
from training.experiments.open_set import split_open_set, train_open_set
from training.trust.enrolment import measure_enrolment
from training.trust.prediction_sets import measure_prediction_sets
from training.trust.unknown_smells import measure_unknown_smells

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)

WIDTH = 8
KNOWN = tuple("abcd")
HIDDEN = tuple("wxyz")
WINDOWS = 24


def written(folder: Path, rows: int = 90) -> list[str]:
    """Write seven substances and a configuration; return the options that name them."""
    data = write_recordings(oscillating(rows), folder / "base")
    config = write_config(CONFIG, folder)
    return ["--config", str(config), "--data", str(data), "--run", str(folder / "run")]


def network(fold: int, strange: float, noise: float = 0.4) -> OpenSetFold:
    """Answers of a network that knows four smells and never met four others.

    Ten recordings of each known one, five of each hidden one. A known smell lies on its own axis;
    a hidden one on an axis of its own by the share `strange`, else beside a known one.
    """
    rng = np.random.default_rng(fold)
    substance = (*np.repeat(KNOWN, 10).tolist(), *np.repeat(HIDDEN, 5).tolist())
    truth = np.array([KNOWN.index(x) if x in KNOWN else UNKNOWN for x in substance])
    axes = np.eye(WIDTH)
    centre = np.stack(
        [
            axes[KNOWN.index(x)]
            if x in KNOWN
            else strange * axes[4 + HIDDEN.index(x)] + (1 - strange) * axes[HIDDEN.index(x)]
            for x in substance
        ]
    )
    own = rng.normal(0, noise / 3, (len(substance), 1, WIDTH))
    embedding = 3 * centre[:, None] + own + rng.normal(0, noise, (len(substance), WINDOWS, WIDTH))
    logits = 2 * embedding[:, :, :4]
    space = EmbeddingSpace(KNOWN, np.zeros(WIDTH), np.eye(WIDTH), 3 * axes[:4])
    filled = np.minimum(0.2 + 0.1 * np.arange(WINDOWS), 1.0)
    shares = tuple(EvidenceShare(5.0 * (k > 0), x, 0.1 if k else x) for k, x in enumerate(filled))
    streams = Streams(
        logits.astype(np.float32),
        shares,
        45 + 12.0 * np.arange(WINDOWS),
        truth,
        embedding.astype(np.float32),
    )
    return OpenSetFold(
        fold=fold,
        labels=KNOWN,
        hidden=HIDDEN,
        space=space,
        exemplars=(3 * np.repeat(axes[:4], 5, axis=0)).astype(np.float32),
        exemplar_label=np.repeat(np.arange(4), 5),
        names=tuple(f"{x}/{fold}.{number}" for number, x in enumerate(substance)),
        substance=substance,
        outputs=WindowOutputs(
            np.repeat(np.arange(len(substance)), 4),
            embedding[:, ::6].reshape(-1, WIDTH).astype(np.float32),
            logits=logits[:, ::6].reshape(-1, 4).astype(np.float32),
        ),
        streams=streams.with_novelty(space),
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_network_trains_on_nothing_that_it_is_asked_about(number: int) -> None:
    data = oscillating()
    train, known, hidden = split_open_set(data, number)
    assert hidden.labels == tuple(x for k, x in enumerate(LABELS) if k % 5 == number)
    assert train.labels == known.labels
    assert not set(train.labels) & set(hidden.labels)
    parts = [{sample.sha256 for sample in part.samples} for part in (train, known, hidden)]
    assert not parts[0] & (parts[1] | parts[2])
    for part in (train, known, hidden):
        for sample in part.samples:
            assert part.labels[int(sample.target.argmax())] == sample.name[0]


def test_answers_are_kept_and_asked_for_once(tmp_path: Path) -> None:
    data = oscillating()
    asked = train_open_set(CONFIG, data, tmp_path, folds=[1])
    kept = tmp_path / "open-set/fold-1/answers.npz"
    written_ns = kept.stat().st_mtime_ns
    again = train_open_set(CONFIG, data, tmp_path, folds=[1])
    assert kept.stat().st_mtime_ns == written_ns
    read = read_open_set(tmp_path)
    for one in (asked[0], again[0], read[0]):
        assert one.labels == ("a", "c", "d", "e", "f")
        assert one.hidden == ("b", "g")
        assert one.known.sum() == 5
        assert (~one.known).sum() == 6
        np.testing.assert_array_equal(one.streams.logits, asked[0].streams.logits)
    hashes = load_bundle(tmp_path / "open-set/fold-1/bundle").training_hashes
    asked_about = {s.sha256 for s in data.samples if s.name in asked[0].names}
    assert len(hashes) == 10
    assert not hashes & asked_about


def test_without_answers_it_is_said_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(OpenSetError, match="crossval --open-set"):
        read_open_set(tmp_path)


def test_too_few_substances_hide_none(tmp_path: Path) -> None:
    few = dataclasses.replace(oscillating(), labels=LABELS[:5])
    with pytest.raises(OpenSetError, match="more than 5"):
        train_open_set(CONFIG, few, tmp_path)


def test_strange_smells_are_told_and_smells_beside_known_ones_are_not() -> None:
    far = measure_unknown_smells([network(k, strange=1.0) for k in range(3)])
    near = measure_unknown_smells([network(k, strange=0.0) for k in range(3)])
    assert far["auroc_300s"] > 0.97
    assert 0.35 < near["auroc_300s"] < 0.65
    for report in (far, near):
        for places in report["scores"].values():
            for row in places.values():
                low, high = row["interval"]
                assert low <= row["auroc"] <= high
    told = far["decision"]["by_second"]["300s"]
    assert told["hidden"]["unrecognised"] > 0.9
    assert told["known"]["unrecognised"] < 0.15
    assert far["scores"]["cosine"]["300s"]["transferred"]["known_recall"] > 0.85


def test_the_bound_keeps_95_percent_of_known_recordings_at_every_moment() -> None:
    fold = network(5, strange=0.7)
    known, hidden = fold.streams.select(fold.known), fold.streams.select(~fold.known)
    fitted = fit_unknown(known, hidden, "cosine")
    means, independent = novelty_means(known, "cosine", DecisionSpec())
    assert fitted.unknown_above is not None
    ripe = means[:, independent >= fitted.unknown_after]
    assert (ripe < fitted.unknown_above + 1e-4).mean(axis=0).min() >= 0.94
    assert fitted.unknown_above == fit_unknown_bound(known, "cosine", fitted.unknown_after)
    trace = trace_decisions(hidden, fitted)
    assert trace.unrecognised[:, -1].mean() > 0.8


def test_taught_smells_are_named_in_other_recordings() -> None:
    folds = [network(k, strange=1.0) for k in range(2)]
    report = measure_enrolment(folds)
    assert set(report["taught"]) == {"1", "2", "3"}
    for row in report["taught"].values():
        assert set(row) == {"4 ways", "2 ways", "all labels"}
        assert row["4 ways"]["scores"]["accuracy_300s"] > 0.95
    # Five lessons of each network: four other recordings of four smells.
    assert report["taught"]["1"]["4 ways"]["tests"] == 2 * 5 * 16
    assert report["known"]["scores"]["alone_accuracy_300s"] > 0.95


def test_a_smell_like_another_is_not_learned() -> None:
    """The control of the test above: what cannot be told apart is named by chance."""
    fold = network(0, strange=1.0)
    noise = np.random.default_rng(1).normal(0, 1, (*fold.streams.logits.shape[:2], WIDTH))
    same = dataclasses.replace(
        fold.streams,
        embedding=noise.astype(np.float32),
    )
    report = measure_enrolment([dataclasses.replace(fold, streams=same)])
    assert report["taught"]["1"]["4 ways"]["scores"]["accuracy_300s"] < 0.45


def calibrated(recordings: int = 200) -> HeldOut:
    """Held-out recordings whose posterior of every window is right as often as it says."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2.0, (recordings, 1, 5)).repeat(WINDOWS, axis=1)
    shares_ = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(5, p=row) for row in shares_])
    shares = tuple(EvidenceShare(5.0 * (k > 0), 1.0, 0.1) for k in range(WINDOWS))
    streams = Streams(logits.astype(np.float32), shares, 45 + 12.0 * np.arange(WINDOWS), truth)
    names = tuple(map(str, range(recordings)))
    owner = np.arange(recordings)
    answers = WindowOutputs(owner, logits[:, 0].astype(np.float32), logits=logits[:, 0])
    target = np.eye(5, dtype=np.float32)[truth]
    return HeldOut(names, names, owner % 5, target, answers, streams)


def test_honest_probabilities_make_honest_sets() -> None:
    held_out = calibrated()
    report = measure_prediction_sets(held_out, fit_fold_constants(held_out))
    for method in ("least_ambiguous", "adaptive"):
        row = report["sets"][method]["always"]
        assert row["coverage"] == pytest.approx(0.9, abs=0.05)
        assert 1.0 <= row["size"] < 4.0
    announced = report["announced"]["always"]
    assert announced["calibration_error"] < 0.1
    assert announced["precision"] > 0.7


def test_sets_of_a_model_that_brags_grow_until_they_hold_the_truth() -> None:
    held_out = calibrated()
    streams = held_out.streams
    assert streams is not None
    bragging = dataclasses.replace(streams, logits=4 * streams.logits)
    spec = DecisionSpec(evidence_floor=1.0, evidence_factor=0.0)
    honest, bragged = (fit_set(part, spec) for part in (streams, bragging))
    assert bragged < honest / 5


def test_the_evidence_is_printed_and_set_on_a_page(
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


def test_a_bundle_holds_what_a_rig_needs_to_tell_teach_and_calibrate(tmp_path: Path) -> None:
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
