"""The baselines follow their papers, learn, are reproducible and are compared on equal windows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from hardware.errors import UsageError
from models.preprocess import batch_features
from tests.training.tiny import write_recordings
from training.cli import main
from training.data.dataset import Dataset, Sample
from training.evaluation.intervals import score_intervals
from training.evaluation.scoring import substance_tally, total_scores
from training.experiments.baselines.comparison import (
    baseline_row,
    compare_baselines,
    predict_fold,
)
from training.experiments.baselines.deep import Deep, DeepSettings
from training.experiments.baselines.inputs import (
    INPUTS,
    OURS,
    PUBLISHED,
    Standardiser,
    cut_input_windows,
)
from training.experiments.baselines.registry import BASELINES, BaselineEntry, select_baselines
from training.experiments.baselines.rocket import KERNELS, Rocket, _convolve, _shifted, dilations
from training.experiments.baselines.trees import Trees, WindowTrees, window_statistics

pytest.importorskip("sklearn", reason="the baselines need the extra `train`")

LABELS = ("almond", "banana", "mango")
PERIODS_S = (9.0, 14.0, 23.0)


def recordings(per_label: int = 4, rows: int = 260, seed: int = 5) -> Dataset:
    """Recordings whose substance shows in the period of a slow oscillation."""
    rng = np.random.default_rng(seed)
    samples = []
    for number, period_s in enumerate(PERIODS_S):
        for take in range(per_label):
            values = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
            phase = 2 * np.pi * (np.arange(rows) / period_s + rng.random())
            for channel in range(6):
                wave = np.sin(phase + channel)
                values[:, channel] = np.rint(400 + 80 * wave + rng.normal(0, 2, rows))
            name = f"{LABELS[number]}/{take}.csv"
            target = np.eye(3, dtype=np.float32)[number]
            samples.append(Sample(name, f"{number}{take}", values, target, name, 1.0))
    return Dataset("substance", LABELS, tuple(samples))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return recordings()


def toy_windows(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Windows [n, 100, 2] of three kinds of oscillation, and their kinds."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    period = np.array(PERIODS_S)[label][:, None]
    phase = 2 * np.pi * (np.arange(100)[None] / period + rng.random((n, 1)))
    x = np.stack([np.sin(phase), np.cos(phase)], axis=2) + rng.normal(0, 0.1, (n, 100, 2))
    return x.astype(np.float32), label.astype(np.int64)


def test_window_statistics_describe_a_line_exactly() -> None:
    line = (3 + 0.5 * np.arange(101, dtype=np.float32))[None, :, None]
    mean, sd, low, high, *quantiles, first, middle, last, slope, step = window_statistics(line)[0]
    assert (mean, low, high, first, middle, last) == (28, 3, 53, 3, 28, 53)
    assert sd == pytest.approx(0.5 * np.std(np.arange(101)))
    assert quantiles == pytest.approx([8, 15.5, 28, 40.5, 48])
    assert (slope, step) == (pytest.approx(0.5), pytest.approx(0.5))


def test_window_statistics_keep_features_apart() -> None:
    x = np.random.default_rng(0).normal(size=(4, 30, 3)).astype(np.float32)
    together = window_statistics(x).reshape(4, 14, 3)
    for feature in range(3):
        alone = window_statistics(x[:, :, feature : feature + 1])
        np.testing.assert_allclose(together[:, :, feature], alone, rtol=1e-5, atol=1e-6)


def test_trees_give_finite_probabilities_to_labels_without_training_rows() -> None:
    x, label = toy_windows(60, 1)
    trees = Trees(4, trees=20, seed=0)  # label 3 has no row
    trees.fit(window_statistics(x), label)
    log_p = trees.log_probabilities(window_statistics(x))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)
    assert np.isfinite(log_p).all()
    assert (log_p.argmax(axis=1) == label).all()


def test_rocket_has_the_papers_kernels() -> None:
    assert len(KERNELS) == 84
    assert len({tuple(kernel) for kernel in KERNELS}) == 84
    # Weights -1 and 2 sum to zero, so a constant added to a series changes nothing inside it.
    assert {9 * -1 + 3 * len(kernel) for kernel in KERNELS} == {0}


@pytest.mark.parametrize("length", [30, 100, 300])
def test_rocket_dilations_grow_until_the_kernel_spans_the_series(length: int) -> None:
    chosen_dilations, features = dilations(length, 119)
    assert chosen_dilations[0] == 1
    assert (np.diff(chosen_dilations) > 0).all()
    assert chosen_dilations[-1] * 8 <= length - 1 < (chosen_dilations[-1] + 1) * 8
    assert features.sum() == 119
    assert (features >= 1).all()


@pytest.mark.parametrize(("kernel", "dilation", "padded"), [(0, 1, True), (40, 3, False)])
def test_rocket_convolves_as_numpy_does(kernel: int, dilation: int, padded: bool) -> None:
    series = np.random.default_rng(2).normal(size=(2, 60, 3)).astype(np.float32)
    weights = np.full(9, -1.0)
    weights[KERNELS[kernel]] = 2
    spread = np.zeros(8 * dilation + 1)
    spread[::dilation] = weights
    channels = np.array([0, 2])
    summed = series[:, :, channels].sum(axis=2)
    # Correlation, as in networks; "same" pads with zeros, "valid" does not pad.
    mode = "same" if padded else "valid"
    wanted = np.stack([np.correlate(one, spread, mode=mode) for one in summed])  # type: ignore[call-overload]
    got = _convolve(_shifted(series, dilation), kernel, channels, dilation, padded=padded)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_rocket_features_are_shares_and_the_same_for_any_batch() -> None:
    x, label = toy_windows(30, 3)
    rocket = Rocket(3, seed=1, features=500)
    rocket.fit(x, label)
    whole = rocket.transform(x)
    assert ((whole >= 0) & (whole <= 1)).all()
    # Biases are quantiles of training series: features are neither all 0 nor all 1.
    assert 0.3 < whole.mean() < 0.7
    np.testing.assert_array_equal(whole[7:9], rocket.transform(x[7:9]))


SMALL = {
    "trees": partial(WindowTrees, trees=30),
    "rocket": partial(Rocket, features=500),
    "mlp": partial(Deep, settings=DeepSettings("mlp", steps=200, width=32)),
    "cnn": partial(Deep, settings=DeepSettings("cnn", steps=100, width=12, learning_rate=1e-2)),
    "lstm": partial(Deep, settings=DeepSettings("lstm", steps=120, width=16, learning_rate=1e-2)),
}


def small(name: str) -> partial[Any]:
    if name in ("mlp", "cnn", "lstm"):
        pytest.importorskip("torch", reason="deep baselines need the extra `train`")
    return SMALL[name]


def test_every_kind_of_baseline_is_tested_here_and_has_both_inputs() -> None:
    both = {name + end for name in SMALL for end in ("", "-published")}
    assert set(BASELINES) == both | {"trees-plate", "rocket-plate"}
    for name, entry in BASELINES.items():
        _, _, inputs = name.partition("-")
        assert entry.inputs == (inputs or "ours")
        assert entry.inputs in INPUTS


@pytest.mark.parametrize("name", SMALL)
def test_baseline_learns_and_gives_probabilities(name: str) -> None:
    model = small(name)(3, seed=0, jobs=1)
    model.fit(*toy_windows(240, 4))
    x, label = toy_windows(90, 5)
    log_p = model.log_probabilities(x)
    assert log_p.shape == (90, 3)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-6)
    assert (log_p.argmax(axis=1) == label).mean() > 0.8
    assert model.parameters > 0


@pytest.mark.parametrize("name", SMALL)
def test_baseline_is_reproducible_by_its_seed_and_does_not_change_its_input(name: str) -> None:
    x, _ = toy_windows(60, 6)
    label = np.random.default_rng(6).integers(0, 3, 60)  # hard enough to leave a model in doubt
    kept = x.copy()

    def answers(seed: int) -> np.ndarray[Any, Any]:
        model = small(name)(3, seed=seed, jobs=1)
        model.fit(x, label)
        return np.asarray(model.log_probabilities(x[::-1] + 0.1))

    first = answers(1)
    np.testing.assert_array_equal(first, answers(1))
    assert not np.array_equal(first, answers(2))
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("name", SMALL)
def test_two_labels_are_enough(name: str) -> None:
    x, label = toy_windows(60, 7)
    two = label < 2
    model = small(name)(2, seed=0, jobs=1)
    model.fit(x[two], label[two])
    log_p = model.log_probabilities(x[two])
    assert (log_p.argmax(axis=1) == label[two]).mean() > 0.8


def test_standardiser_measures_each_feature() -> None:
    x = np.random.default_rng(8).normal([3, -7, 5], [2, 0.1, 0], (50, 40, 3)).astype(np.float32)
    done = Standardiser.measure(x)(x)
    np.testing.assert_allclose(done.mean(axis=(0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(done.std(axis=(0, 1)), [1, 1, 0], atol=1e-3)


def test_subtracting_the_first_row_as_published_changes_no_published_input() -> None:
    values = recordings(per_label=1).samples[0].values
    shifted = values - values[0]
    plain = batch_features(values, PUBLISHED)[0].x
    np.testing.assert_array_equal(batch_features(shifted, PUBLISHED)[0].x, plain)


def test_windows_follow_the_protocol_unless_a_stride_is_given(data: Dataset) -> None:
    windows = cut_input_windows(data, OURS)
    # 260 samples: windows at 0, 50 and 100, each 100 rows behind a lag of 50.
    assert np.bincount(windows.owner).tolist() == [3] * 12
    dense = cut_input_windows(data, OURS, stride=10)
    assert np.bincount(dense.owner).tolist() == [12] * 12
    np.testing.assert_array_equal(windows.x[1], dense.x[5])


def test_no_recording_is_scored_by_a_model_trained_on_it(data: Dataset) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    class Spy(WindowTrees):
        def fit(self, x: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> None:
            seen.append(x)
            super().fit(x, label)

    entry = BaselineEntry("spy", "trees", "ours", partial(Spy, trees=5))
    predictions = predict_fold(data, entry, 1)
    held = cut_input_windows(data.subset(np.isin(np.arange(12), predictions.recordings)), OURS).x
    trained = {window.tobytes() for window in seen[0]}
    assert predictions.recordings.tolist() == [1, 5, 9]
    assert not any(window.tobytes() in trained for window in held)


def test_an_interrupted_comparison_resumes(data: Dataset, tmp_path: Path) -> None:
    fits = []

    class Counted(WindowTrees):
        def fit(self, x: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> None:
            fits.append(len(x))
            super().fit(x, label)

    entry = BaselineEntry("counted", "trees", "ours", partial(Counted, trees=5))
    first = {fold: part for _, fold, part in compare_baselines(data, [entry], [0, 1], tmp_path)}
    again = {fold: part for _, fold, part in compare_baselines(data, [entry], [0, 1, 2], tmp_path)}
    assert len(fits) == 3
    assert baseline_row(entry, first) == baseline_row(entry, {fold: again[fold] for fold in (0, 1)})
    other = recordings(seed=9)
    renamed = tuple(
        Sample(s.name, f"x{s.sha256}", s.values, s.target, s.group, s.rate_hz)
        for s in other.samples
    )
    list(compare_baselines(Dataset("substance", LABELS, renamed), [entry], [0], tmp_path))
    assert len(fits) == 4, "answers of other data were taken for this data's"


def test_intervals_include_the_score_and_narrow_with_more_recordings() -> None:
    def width(count: int) -> float:
        owner = np.repeat(np.arange(count), 4)
        truth = np.zeros(count, dtype=np.int64)
        right = np.repeat(np.arange(count) % 4 > 0, 4)  # three recordings in four
        log_p = np.log(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]))
        tally = substance_tally(log_p, owner, truth)
        low, high = score_intervals(tally)["top1"]
        assert total_scores(tally)["top1"] == pytest.approx(0.75)
        assert low < 0.75 < high
        return high - low

    assert width(20) > 1.5 * width(80) > 0


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="lstm"):
        select_baselines(["trees", "forest"])


def test_compare_prints_and_writes_its_table(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_recordings(data, tmp_path / "data")
    arguments = ["compare", "--data", str(folder), "--run", str(tmp_path / "run"), "--jobs", "1"]
    assert main([*arguments, "--models", "trees", "--folds", "0,2"]) == 0
    table = capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "compare.json").read_text())
    (only,) = report["rows"]
    assert (only["name"], only["inputs"], only["folds"]) == ("trees", "ours", [0, 2])
    assert only["top1_low"] <= only["top1"] <= only["top1_high"]
    assert only["top1"] > 0.6
    assert f"{only['top1']:.3f}" in table
    assert main([*arguments, "--folds", "7"]) == 2
    assert "0, 1, 2, 3" in capsys.readouterr().err
