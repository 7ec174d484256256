"""Scores, their intervals, simulated sessions and the streamed decision layer; without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS
from hardware.frames import SensorFrame
from hardware.recording import RecordingWriter
from models.bundle import Bundle, Outputs, load_bundle
from models.decision_spec import DecisionSpec
from models.embedding_space import EmbeddingSpace
from models.manifest import write_bundle
from models.nose import Nose
from models.novelty import NoveltyName
from models.preprocess import PreprocessSpec, batch_features
from models.substance_decision import EvidenceShare, SubstanceDecision
from tests.models.toys import LABELS, toy_files, toy_manifest
from training.cli import main
from training.data.dataset import Dataset, Sample
from training.data.substance_tables import read_descriptors
from training.evaluation.decision_fit import fit_announce, fit_evidence
from training.evaluation.held_out import (
    HeldOut,
    HeldOutError,
    concatenate_held_out,
    read_held_out,
)
from training.evaluation.intervals import pool_tallies, resample_counts, score_intervals
from training.evaluation.mixture_fit import best_threshold
from training.evaluation.network_outputs import WindowOutputs
from training.evaluation.scoring import (
    mixture_scores,
    mixture_tally,
    substance_tally,
    total_scores,
)
from training.evaluation.sessions import SessionSpread, other_sessions
from training.evaluation.streaming import (
    Streams,
    first_announcement_s,
    median_announcement_s,
    posteriors,
    stream_recordings,
    streaming_tally,
    trace_announcements,
    trace_decisions,
)
from training.experiments.crossval import _descriptors, decision_report

SPREAD_FREE = SessionSpread(gain=0, gamma=0, offset=0, lost=0)


def some_answers(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of 60 windows of 12 recordings of 4 labels, better than chance."""
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, 12, 60))
    truth = np.arange(12) % 4
    logits = rng.normal(0, 1, (60, 4)) + 1.2 * np.eye(4)[truth[owner]]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), owner, truth


def brute_force(log_p: np.ndarray, owner: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The scores straight from their definitions."""
    predicted, wanted = log_p.argmax(axis=1), truth[owner]
    f1 = []
    for k in np.unique(wanted):
        hit = ((predicted == k) & (wanted == k)).sum()
        f1.append(2 * hit / ((predicted == k).sum() + (wanted == k).sum()))
    heard = np.unique(owner)
    recordings = [log_p[owner == r].mean(axis=0).argmax() == truth[r] for r in heard]
    return {
        "top1": float((predicted == wanted).mean()),
        "macro_f1": float(np.mean(f1)),
        "recording_top1": float(np.mean(recordings)),
    }


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=20), st.integers(0, 5))
def test_scores_of_a_resample_are_those_of_its_recordings_put_side_by_side(
    chosen: list[int], seed: int
) -> None:
    log_p, owner, truth = some_answers(seed)
    tally = substance_tally(log_p, owner, truth)
    windows = [np.flatnonzero(owner == r) for r in chosen]
    beside = np.concatenate([np.full(len(w), k) for k, w in enumerate(windows)])
    if not len(beside):
        return
    expected = brute_force(log_p[np.concatenate(windows)], beside, truth[chosen])
    weights = np.bincount(chosen, minlength=12)[None].astype(float)
    for name, value in expected.items():
        assert tally[name].weighted(weights)[0] == pytest.approx(value), name


def test_pooled_mixtures_score_as_all_their_windows() -> None:
    rng = np.random.default_rng(3)
    target = rng.dirichlet([0.3] * 4, 30).astype(np.float32)
    target[target < 0.1] = 0
    predicted = rng.dirichlet([0.3] * 4, 30)
    owner = np.repeat(np.arange(10), 3)
    first, last = owner < 4, owner >= 4
    parts = [
        mixture_tally(predicted[part], predicted[part] > 0.3, target[part], owner[part] - start, n)
        for part, start, n in ((first, 0, 4), (last, 4, 6))
    ]
    whole = total_scores(pool_tallies(parts))
    expected = mixture_scores(predicted, predicted > 0.3, target)
    assert whole == pytest.approx(expected)


def test_interval_of_a_share_is_the_binomial_one() -> None:
    """For one window a recording the bootstrap has a known spread: sqrt(p (1 - p) / n)."""
    hits = np.arange(400) % 4 > 0
    log_p = np.log(np.where(hits[:, None], [[0.9, 0.1]], [[0.1, 0.9]]))
    tally = substance_tally(log_p, np.arange(400), np.zeros(400, dtype=int))
    low, high = score_intervals(tally)["top1"]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_more_windows_of_the_same_recordings_are_no_more_evidence() -> None:
    log_p, owner, truth = some_answers()
    once = score_intervals(substance_tally(log_p, owner, truth))
    often = score_intervals(
        substance_tally(np.repeat(log_p, 10, axis=0), np.repeat(owner, 10), truth)
    )
    assert once == often


def test_recordings_of_one_group_are_drawn_together() -> None:
    groups = ["a", "b", "a", "c"]
    weights = resample_counts(4, groups, seed=0, draws=50)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert (weights[:, 0] != weights[:, 1]).any()


def random_streams(recordings: int = 30, windows: int = 40, seed: int = 5) -> Streams:
    """Streams of four labels whose evidence grows; one window of 100 rows every 5 s."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, recordings)
    lean = np.eye(4)[truth][:, None] * np.linspace(0.2, 1.5, windows)[None, :, None]
    own = rng.normal(0, 0.8, (recordings, 1, 4))
    logits = (lean + own + rng.normal(0, 1.4, (recordings, windows, 4))).astype(np.float32)
    filled = np.minimum(20 + 5 * np.arange(windows), 100) / 100
    shares = tuple(
        EvidenceShare(5.0 * (k > 0), part, 0.05 if k else part) for k, part in enumerate(filled)
    )
    return Streams(logits, shares, 45 + 5.0 * np.arange(windows), truth)


@pytest.mark.parametrize("sure", [0.3, 0.45, 0.6])
@pytest.mark.parametrize("novel", [None, "energy", "cosine"])
def test_announcements_are_those_of_the_decision_layer(
    sure: float, novel: NoveltyName | None
) -> None:
    rng = np.random.default_rng(5)
    streams = random_streams()
    embedding = rng.normal(0, 1, (*streams.logits.shape[:2], 3)).cumsum(axis=1)
    streams = dataclasses.replace(streams, embedding=embedding.astype(np.float32))
    space = EmbeddingSpace(tuple("abcd"), np.zeros(3), np.eye(3), rng.normal(0, 1, (4, 3)))
    streams = streams.with_novelty(space)
    bound = None if novel is None else float(np.nanmedian(streams.novelty[novel]))
    spec = DecisionSpec(
        1.2, 0.6, 0.5, memory_s=60, announce=sure, withdraw=0.8 * sure,
        novelty=novel, unknown_above=bound, unknown_after=0.4, unknown_confirm=2,
    )  # fmt: skip
    trace = trace_decisions(streams, spec)
    changes, strange = 0, 0
    for row, logits in enumerate(streams.logits):
        decision = SubstanceDecision(tuple("abcd"), spec, space)
        for k, share in enumerate(streams.shares):
            outputs = Outputs(embedding[row, [k]].astype(np.float32), logits[[k]])
            belief = decision.add(outputs, share)
            label = decision.announced
            expected = -1 if label is None else "abcd".index(label)
            assert trace.named[row, k] == expected
            assert trace.unrecognised[row, k] == decision.unrecognised
            assert trace.belief[row, k] == pytest.approx(belief.max(), rel=1e-5)
        changes += int((np.diff(trace.named[row]) != 0).sum())
        strange += int(np.diff(trace.unrecognised[row]).sum())
    assert changes > 5, "the names hardly changed: the test saw too little"
    assert novel is None or strange > 10


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "toy-substance"
    decision = DecisionSpec(announce=0.5, withdraw=0.3)
    write_bundle(folder, toy_manifest("substance", decision=decision), toy_files("substance"))
    return load_bundle(folder, precision="fp32")


def wandering(label: int, rows: int, seed: int) -> Sample:
    """A recording whose Grove counts wander, with a lean that the toy network takes for a label."""
    rng = np.random.default_rng(seed)
    readings = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
    steps = rng.normal(0, 4, (rows, 4))
    steps[:, label] += 2.0
    readings[:, :4] = np.clip(np.rint(300 + np.cumsum(steps, axis=0)), 20, 1000)
    target = np.eye(len(LABELS), dtype=np.float32)[label]
    return Sample(f"{label}/{seed}.csv", f"{seed:064x}", readings, target, f"{seed}", 1.0)


def test_streamed_recordings_are_announced_as_the_daemon_s_nose_announces_them(
    toy: Bundle,
) -> None:
    samples = [wandering(seed % 3, 150, seed) for seed in range(6)]
    streams = stream_recordings(toy, samples)
    trace = trace_decisions(streams, toy.manifest.decision)
    announced = 0
    for row, sample in enumerate(samples):
        nose = Nose([toy], rate_hz=1.0, skip_warm_up=True, assume_exposed=True)
        said = {}
        for number, readings in enumerate(sample.values):
            quality = np.where(np.isfinite(readings), 0, 1).astype(np.uint8)
            frame = SensorFrame(number, number * 1000, readings, quality, 0)
            for prediction in nose.process(frame).predictions:
                said[number + 1.0] = prediction
        for k in np.flatnonzero(streams.active[row]):
            prediction = said[streams.ends_s[k]]
            named = trace.named[row, k]
            assert prediction.label == (LABELS[named] if named >= 0 else None)
            assert prediction.top[0][1] == pytest.approx(trace.belief[row, k], rel=1e-4)
            announced += named >= 0
    assert announced > 10


def test_recordings_that_ended_take_no_part_in_later_stages(toy: Bundle) -> None:
    streams = stream_recordings(
        toy, [wandering(0, 70, 1), wandering(1, 200, 2), wandering(2, 8, 3)]
    )
    assert streams.active.sum(axis=1).tolist() == [12, 38, 0]
    scores = streaming_tally(streams, trace_decisions(streams, DecisionSpec()))
    assert scores["announced_60s"].possible.tolist() == [1, 1, 0]
    assert scores["announced_180s"].possible.tolist() == [0, 1, 0]
    assert scores["announced_300s"].possible.sum() == 0
    assert total_scores(scores)["precision_300s"] == 0


def test_median_time_counts_the_announced_alone() -> None:
    first_s = np.array([50.0, 60.0, np.nan, 100.0])
    median, (low, high) = median_announcement_s(first_s)
    assert median == 60
    assert low == 50
    assert high == 100
    assert median_announcement_s(np.full(3, np.nan)) == (300.0, (300.0, 300.0))


def test_first_announcement_is_when_the_name_is_first_there() -> None:
    streams = random_streams()
    trace = trace_announcements(posteriors(streams, DecisionSpec()), DecisionSpec())
    seconds = first_announcement_s(streams, trace)
    for row in np.flatnonzero(np.isfinite(seconds)):
        k = int(np.flatnonzero(streams.ends_s == seconds[row])[0])
        assert trace.named[row, k] >= 0
        assert (trace.named[row, :k] < 0).all()


def test_announcing_belief_buys_precision_with_silence() -> None:
    streams = random_streams(400)
    spec = DecisionSpec(evidence_floor=0.6, evidence_factor=0.3)
    belief = fit_announce(streams, spec)
    fitted = dataclasses.replace(spec, announce=belief, withdraw=0.6 * belief)
    hasty = dataclasses.replace(spec, announce=0.3, withdraw=0.18)
    chosen, careless = (
        total_scores(streaming_tally(streams, trace_decisions(streams, each)))
        for each in (fitted, hasty)
    )
    assert careless["precision_120s"] < 0.85 <= chosen["precision_120s"]
    assert chosen["announced_120s"] < careless["announced_120s"]


def test_evidence_is_fitted_on_recordings_of_any_length() -> None:
    streams = random_streams()
    streams.logits[:10, 20:] = np.nan
    floor, factor = fit_evidence(streams, DecisionSpec())
    assert 0 < floor <= 1
    assert 0 <= factor <= 1


def test_presence_threshold_is_the_best_geometric_mean() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(500) < 0.1
    presence = np.clip(rng.normal(0.3 + 0.2 * truth, 0.1), 0, 1).astype(np.float32)

    def mean(threshold: float) -> float:
        found = presence >= threshold
        return float(np.sqrt(found[truth].mean() * (~found[~truth]).mean()))

    best = max(mean(threshold) for threshold in np.linspace(0, 1, 2001))
    assert mean(best_threshold(presence, truth)) == pytest.approx(best, abs=1e-3)
    assert best_threshold(presence, np.zeros(500, dtype=bool)) == 0.5


def held_out(streams: Streams) -> HeldOut:
    """Answers of five folds: their protocol windows are some of the streamed ones."""
    count = len(streams.truth)
    logits = streams.logits[:, ::8].reshape(-1, 4)
    windows = len(logits) // count
    answers = WindowOutputs(
        np.repeat(np.arange(count), windows), logits[:, :2].copy(), logits=logits
    )
    names = tuple(f"{row}.csv" for row in range(count))
    target = np.eye(4, dtype=np.float32)[streams.truth]
    return HeldOut(names, names, np.arange(count) % 5, target, answers, streams)


def test_a_fold_s_constants_come_from_the_other_folds() -> None:
    streams = random_streams(40)
    before = decision_report(held_out(streams))
    logits = streams.logits.copy()
    logits[np.arange(40) % 5 == 2] = np.random.default_rng(0).normal(0, 5, (8, 40, 4))
    after = decision_report(held_out(dataclasses.replace(streams, logits=logits)))
    assert before["constants"]["2"] == after["constants"]["2"]
    assert before["constants"]["3"] != after["constants"]["3"]
    assert set(before["scores"]) == set(before["intervals"])


def test_one_fold_has_nothing_to_fit_the_decision_layer_on() -> None:
    whole = held_out(random_streams(10))
    assert decision_report(dataclasses.replace(whole, fold=np.zeros(10, dtype=int))) == {}


def test_held_out_answers_are_read_back_as_written(tmp_path: Path) -> None:
    parts = [held_out(random_streams(5, seed=seed)) for seed in (1, 2)]
    written = concatenate_held_out(parts)
    written.save(tmp_path / "held_out.npz")
    read = read_held_out(tmp_path / "held_out.npz")
    assert read.names == written.names
    assert read.outputs.owner.tolist() == written.outputs.owner.tolist()
    assert read.outputs.owner.max() == 9
    assert read.streams is not None
    assert written.streams is not None
    assert read.streams.shares == written.streams.shares
    np.testing.assert_array_equal(read.streams.truth, written.streams.truth)
    np.testing.assert_array_equal(read.streams.logits, written.streams.logits)


def test_held_out_answers_of_another_version_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "held_out.npz"
    with pytest.raises(HeldOutError, match="crossval"):
        read_held_out(path)
    np.savez(path, logits=np.zeros(3))
    with pytest.raises(HeldOutError, match="crossval"):
        read_held_out(path)


SPEC = PreprocessSpec(
    channels=("NO2", "VOC", "Alcohol"), rate_hz=1.0, lags=(5,), first_step=5, window=20, clip=1e6
)


def smelled() -> Dataset:
    """One recording in the middle of its channels' ranges, where rounding matters little."""
    readings = np.full((80, N_CHANNELS), np.nan, dtype=np.float32)
    time = np.arange(80)
    for column, middle in ((0, 500), (2, 520), (4, 4000)):
        readings[:, column] = np.rint(middle * (1 + 0.3 * np.sin(time / (5 + column))))
    sample = Sample("a/a.csv", "ab" * 32, readings, np.ones(1, np.float32), "a", 1.0)
    return Dataset("substance", ("a",), (sample,))


def changes(data: Dataset) -> np.ndarray:
    """Lag differences of the only recording."""
    return batch_features(data.samples[0].values, SPEC)[0].x


def test_a_session_without_spread_is_the_same_session() -> None:
    data = smelled()
    same = other_sessions(data, SPEC.channels, SPREAD_FREE, draws=1)
    np.testing.assert_array_equal(same.samples[0].values, data.samples[0].values)


def test_a_gain_cancels_in_log_differences() -> None:
    data = smelled()
    louder = other_sessions(
        data, SPEC.channels, dataclasses.replace(SPREAD_FREE, gain=0.3), draws=1
    )
    assert np.abs(louder.samples[0].values - data.samples[0].values)[:, [0, 2, 4]].max() > 20
    np.testing.assert_allclose(changes(louder), changes(data), atol=0.02)


def test_another_part_s_sensitivity_scales_every_change() -> None:
    data = smelled()
    other = other_sessions(
        data, SPEC.channels, dataclasses.replace(SPREAD_FREE, gamma=0.3), draws=1
    )
    before, after = changes(data), changes(other)
    factor = (before * after).sum(axis=0) / (before**2).sum(axis=0)
    assert np.abs(np.log(factor)).max() > 0.05
    np.testing.assert_allclose(after, factor * before, atol=0.02)


def test_one_channel_of_the_model_is_lost_and_the_original_stays_whole() -> None:
    data = smelled()
    before = data.samples[0].values.copy()
    sessions = other_sessions(data, SPEC.channels, draws=8)
    np.testing.assert_array_equal(data.samples[0].values, before)
    lost = [
        tuple(np.flatnonzero(np.isnan(sample.values[:, [0, 2, 4]]).all(axis=0)))
        for sample in sessions.samples
    ]
    assert {len(columns) for columns in lost} == {1}
    assert len(set(lost)) > 1
    assert {sample.group for sample in sessions.samples} == {"a"}


def test_a_recording_meets_the_same_sessions_in_any_company() -> None:
    data = smelled()
    stranger = dataclasses.replace(data.samples[0], sha256="cd" * 32, name="b/b.csv")
    company = dataclasses.replace(data, samples=(stranger, *data.samples))
    alone = other_sessions(data, SPEC.channels, draws=2).samples
    among = other_sessions(company, SPEC.channels, draws=2).samples
    for first, second in zip(alone, among[2:], strict=True):
        np.testing.assert_array_equal(first.values, second.values)
    assert not np.array_equal(among[0].values, among[2].values, equal_nan=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for label, name in enumerate(LABELS):
        (folder / name).mkdir()
        for seed in range(3):
            sample = wandering(label, 130, 10 * label + seed)
            with RecordingWriter(folder / name / f"{seed}.csv") as recording:
                for row, reading in enumerate(sample.values):
                    recording.write(row * 1000, reading)
    return folder


def test_evaluate_prints_the_agreed_keys_and_their_intervals(
    toy: Bundle, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(toy.folder), "--data", str(recordings), "--task", "substance"]
    assert main(["evaluate", *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "windows", "recordings", "top1", "top5", "macro_f1", "recording_top1", "seen_in_training",
        "intervals",
    ]  # fmt: skip
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high or name == "macro_f1"


def test_evaluate_can_stream_through_the_bundle_s_decision_layer(
    toy: Bundle, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(toy.folder), "--data", str(recordings), "--task", "substance"]
    assert main(["evaluate", *options, "--streaming", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["announced_120s"] > 0.3
    assert 15 <= result["median_decision_s"] <= 120
    assert main(["evaluate", *options, "--streaming", "--labels", "mint"]) == 2


def test_descriptors_are_scored_over_held_out_recordings() -> None:
    labels = ("cinnamon", "garlic", "lemon", "mint", "walnuts")
    table = read_descriptors(labels)
    truth = np.repeat(np.arange(5), 4)
    owner = np.repeat(np.arange(20), 3)
    wanted = table.values[truth][owner].astype(np.float32)
    noise = np.random.default_rng(1).uniform(0, 1, wanted.shape).astype(np.float32)

    def report(said: np.ndarray | None) -> dict[str, Any]:
        answers = WindowOutputs(owner, np.zeros((60, 2), np.float32), descriptors=said)
        held_out = HeldOut(
            tuple(f"{k}.csv" for k in range(20)),
            tuple(map(str, range(20))),
            np.zeros(20, np.int64),
            np.eye(5, dtype=np.float32)[truth],
            answers,
        )
        return _descriptors(held_out, labels)

    assert report(wanted)["macro_auroc"] == 1
    assert 0.35 < report(noise)["macro_auroc"] < 0.65
    assert report(None) == {}
