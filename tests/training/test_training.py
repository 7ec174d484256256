"""The trainer on small synthetic recordings: it learns, resumes, exports, and scores honestly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hardware.channels import N_CHANNELS, channel_index
from hardware.errors import UsageError
from hardware.recording import RecordingWriter
from models.bundle import Outputs, integer_matmuls, load_bundle
from models.decision_spec import DecisionSpec
from models.preprocess import PreprocessSpec, batch_features
from models.substance_decision import EvidenceShare, SubstanceDecision
from training.cli import main
from training.config import (
    AugmentConfig,
    NetworkConfig,
    OptimiserConfig,
    TeacherConfig,
    TrainConfig,
    TrainConfigError,
    config_as_dict,
    load_train_config,
)
from training.data.dataset import (
    DataError,
    Dataset,
    component_set_folds,
    component_sets,
    is_in_order,
    load_mixtures,
    load_substances,
    substance_folds,
)
from training.data.protocol_windows import cut_windows
from training.evaluation.decision_fit import best_temperature, fit_evidence
from training.evaluation.mixture_fit import best_threshold
from training.evaluation.network_outputs import run_network, score_bundle
from training.evaluation.scoring import mixture_scores, substance_scores
from training.evaluation.streaming import Streams, evidence_means, stream_recordings
from training.experiments.crossval import best_constant, cross_validate
from training.export.bundle import Provenance, export_bundle

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

import training.fit as fitting  # noqa: E402
from training.export.onnx import quantise, to_onnx  # noqa: E402
from training.fit import TrainingError, train_network  # noqa: E402
from training.network.losses import focal_bce, mixture_loss, soft_miss_share  # noqa: E402
from training.network.scentformer import build_network  # noqa: E402
from training.sampling.measurements import measure_rms_scale  # noqa: E402
from training.sampling.windows import WindowSampler  # noqa: E402

# Networks this small lose more by handing work to a second thread than they gain.
torch.set_num_threads(1)

SPEC = PreprocessSpec(
    channels=("NO2", "VOC"), rate_hz=1.0, lags=(3, 6), first_step=3, window=20, stride=10,
    min_steps=4,
)  # fmt: skip
PLAIN = AugmentConfig(
    gain_common=0, gain_channel=0, noise=0, channel_dropout=0, warp=0, partial=0, mix=0
)
CONFIG = TrainConfig(
    name="tiny",
    task="substance",
    preprocessing=SPEC,
    network=NetworkConfig(d_model=16, layers=1, heads=2, ffn=2, patch=5),
    augment=AugmentConfig(partial=0.2),
    optimiser=OptimiserConfig(steps=60, batch=16, learning_rate=5e-3, warmup=5, ema=0.9),
    seed=3,
)
PERIODS_S = {"almond": 7.0, "banana": 11.0, "mango": 17.0}


def write_recordings(folder: Path, per_label: int = 5, rows: int = 120) -> Path:
    """Recordings whose substance shows in the period of a slow oscillation."""
    rng = np.random.default_rng(11)
    for label, period_s in PERIODS_S.items():
        (folder / label).mkdir(parents=True)
        for number in range(per_label):
            values = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
            phase = 2 * np.pi * (np.arange(rows) / period_s + rng.random())
            values[:, 0] = np.rint(300 + 60 * np.sin(phase) + rng.normal(0, 2, rows))
            values[:, 2] = np.rint(500 + 60 * np.cos(phase) + rng.normal(0, 2, rows))
            with RecordingWriter(folder / label / f"{label}.{number}.csv") as recording:
                for row, reading in enumerate(values):
                    recording.write(row * 1000, reading)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_substances(write_recordings(tmp_path_factory.mktemp("data")))


def test_folders_become_labels_and_files_are_hashed(data: Dataset) -> None:
    assert data.labels == ("almond", "banana", "mango")
    assert len({sample.sha256 for sample in data.samples}) == 15
    assert data.oddities["rows"] == 15 * 120


def test_every_fold_holds_out_one_recording_of_every_substance(data: Dataset) -> None:
    folds = substance_folds(data)
    labels = data.targets.argmax(axis=1)
    for fold in range(5):
        assert sorted(labels[folds == fold]) == [0, 1, 2]


def test_folder_that_is_no_label_is_wrong_use(tmp_path: Path) -> None:
    write_recordings(tmp_path, per_label=1, rows=10)
    with pytest.raises(UsageError, match="mango"):
        load_substances(tmp_path, labels=("almond", "banana"))


def test_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="LABEL"):
        load_substances(tmp_path)


def write_mixture(folder: Path, name: str) -> None:
    rows = "".join(f"{100.0 * k},{600 + k % 3},300,400,500\n" for k in range(30))
    (folder / name).write_text("timestamp_ms,NO2,C2H5CH,VOC,CO\n" + rows)


def test_mixture_names_give_proportions_and_hold_sets_together(tmp_path: Path) -> None:
    for name in (
        "Almond20_Orange80.a_1.csv", "Almond20_Orange80.a_2.csv", "almond_50_orange_50.b.csv",
        "apple.c.csv", "pear20_apple80.d.csv", "apple_100.e.csv",
    ):  # fmt: skip
        write_mixture(tmp_path, name)
    mixtures = load_mixtures(tmp_path)
    by_name = {sample.name: sample for sample in mixtures.samples}
    shares = dict(zip(mixtures.labels, by_name["Almond20_Orange80.a_1.csv"].target, strict=True))
    assert shares == pytest.approx({"almond": 0.2, "apple": 0.0, "orange": 0.8, "pear": 0.0})
    assert by_name["Almond20_Orange80.a_1.csv"].group == by_name["Almond20_Orange80.a_2.csv"].group
    folds = component_set_folds(mixtures)
    for present, fold in zip(component_sets(mixtures), folds, strict=True):
        assert (fold == -1) == (len(present) == 1)
    same = {f for p, f in zip(component_sets(mixtures), folds, strict=True) if "orange" in p}
    assert len(same) == 1


def test_permuted_rows_are_told_from_rows_in_time(data: Dataset) -> None:
    rng = np.random.default_rng(6)
    for sample in data.samples:
        assert is_in_order(sample.values)
        assert not is_in_order(rng.permutation(sample.values))


def test_constant_recording_is_not_called_permuted() -> None:
    assert is_in_order(np.full((100, N_CHANNELS), 300.0, dtype=np.float32))


def test_unaugmented_training_windows_are_those_of_the_models(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, PLAIN, seed=4)
    x, mask, target = sampler.batch(32)
    assert mask.min() == 1
    rows = {
        segment.x[start : start + 20].tobytes(): sample.target.argmax()
        for sample in data.samples
        for segment in [batch_features(sample.values, spec)[0]]
        for start in range(3, len(segment.x) - 19)
    }
    stored = {np.frombuffer(key, np.float32).round(3).tobytes(): v for key, v in rows.items()}
    for window, truth in zip(x.numpy(), target.numpy(), strict=True):
        assert stored[window.reshape(-1).round(3).tobytes()] == truth.argmax()


def test_partial_training_windows_start_right_after_a_reset(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, partial=1.0), seed=4)
    x, mask, _ = sampler.batch(64)
    lengths = mask.sum(dim=1)
    assert lengths.min() >= spec.min_steps
    assert len(lengths.unique()) > 5
    # First row of all: 3 samples after the reset, where the lag of 6 reaches to the oldest too.
    scale = torch.tensor(spec.scale)
    torch.testing.assert_close(x[:, 0, :2] * scale[:2], x[:, 0, 2:] * scale[2:])


def test_windows_from_the_start_begin_with_the_recording(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, from_start=1.0), seed=4)
    x, _, _ = sampler.batch(32)
    firsts = {batch_features(s.values, spec)[0].x[3].round(3).tobytes() for s in data.samples}
    assert all(row.numpy().round(3).tobytes() in firsts for row in x[:, 0])


def test_dropped_channel_is_no_change_and_one_survives(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(data, spec, dataclasses.replace(PLAIN, channel_dropout=1.0), seed=4)
    x, _, _ = sampler.batch(64)
    alive = x.reshape(64, 20, 2, 2).abs().amax(dim=(1, 2)) > 0
    assert (alive.sum(dim=1) == 1).all()
    assert alive.any(dim=0).all()


def test_mixing_keeps_targets_convex(data: Dataset) -> None:
    spec = measure_rms_scale(SPEC, data, None)
    sampler = WindowSampler(
        data, spec, dataclasses.replace(PLAIN, mix=1.0, mix_parts=3, mix_alpha=1.0), seed=4
    )
    _, _, target = sampler.batch(64)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64))
    assert ((target > 0).sum(dim=1) > 1).any()


def test_a_channel_that_is_dead_for_one_label_does_not_tell_that_label(data: Dataset) -> None:
    samples = []
    for sample in data.samples:
        values = sample.values.copy()
        if sample.target.argmax() == 0:
            values[:, channel_index("VOC")] = np.nan
        samples.append(dataclasses.replace(sample, values=values))
    partly_dead = dataclasses.replace(data, samples=tuple(samples))
    spec = measure_rms_scale(SPEC, partly_dead, None)

    def share_alive(augment: AugmentConfig) -> list[float]:
        x, _, target = WindowSampler(partly_dead, spec, augment, seed=4).batch(600)
        alive = (x[:, :, 1::2] != 0).flatten(1).any(dim=1)
        return [float(alive[target.argmax(dim=1) == label].float().mean()) for label in range(3)]

    assert share_alive(PLAIN) == [0, 1, 1]
    evened = share_alive(dataclasses.replace(PLAIN, fickle=("VOC",), fickle_dropout=0.4))
    assert all(0.5 < share < 0.7 for share in evened)


def test_recordings_out_of_time_order_are_drawn_as_often_as_asked(data: Dataset) -> None:
    flat = {
        sample.name: np.full_like(sample.values, 300) for sample in data.samples[::2]
    }  # told apart by not moving
    samples = tuple(
        dataclasses.replace(
            sample, values=flat.get(sample.name, sample.values), in_order=sample.name not in flat
        )
        for sample in data.samples
    )
    permuted = dataclasses.replace(data, samples=samples)
    spec = measure_rms_scale(SPEC, data, None)

    def share_drawn(weight: float) -> float:
        augment = dataclasses.replace(PLAIN, out_of_order=weight)
        x, _, _ = WindowSampler(permuted, spec, augment, seed=4).batch(400)
        return float((x == 0).flatten(1).all(dim=1).float().mean())

    assert share_drawn(0) == 0
    assert 0.1 < share_drawn(0.25) < 0.3
    assert 0.4 < share_drawn(1) < 0.65


def test_student_learns_what_its_teachers_agree_on(data: Dataset, tmp_path: Path) -> None:
    teacher = TeacherConfig(seed=8, steps=60, augment=PLAIN)
    config = dataclasses.replace(
        CONFIG,
        teachers=(teacher, dataclasses.replace(teacher, seed=9)),
        augment=dataclasses.replace(PLAIN, mix=1.0, mix_where="encoding"),
    )
    steps: list[int] = []
    student = train_network(
        config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    ).network
    assert steps == list(range(1, 181))
    # Teachers that were taught wrong labels: the student follows them, not the labels.
    wrong = dataclasses.replace(
        data,
        samples=tuple(
            dataclasses.replace(sample, target=np.roll(sample.target, 1)) for sample in data.samples
        ),
    )
    trainer = fitting.Trainer(
        dataclasses.replace(config, teachers=()),
        data,
        "cpu",
        [train_network(CONFIG, wrong).network],
    )
    misled = trainer.run().network
    x, mask, target = WindowSampler(data, trainer.spec, PLAIN, seed=6).batch(64)

    def hits(network: torch.nn.Module, shift: int) -> float:
        with torch.no_grad():
            said = network(x, mask)[0].argmax(dim=1)
        return float((said == (target.argmax(dim=1) + shift) % 3).float().mean())

    assert hits(student, 0) > 0.7
    assert hits(misled, 1) > 0.7


def test_distillation_goes_on_where_it_was_cut_off(data: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, teachers=(TeacherConfig(seed=8, steps=20, augment=PLAIN),))
    whole = train_network(config, data).network.state_dict()
    train_network(config, data, folder=tmp_path)
    (tmp_path / fitting.CHECKPOINT).unlink()  # the teacher is kept, the student starts anew
    steps: list[int] = []
    resumed = train_network(
        config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 21
    for name, tensor in resumed.network.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_resumed_training_equals_an_uninterrupted_one(data: Dataset, tmp_path: Path) -> None:
    whole = train_network(CONFIG, data).network.state_dict()

    class Cut(Exception):  # noqa: N818
        pass

    def cut(step: int, _loss: float) -> None:
        if step == 35:
            raise Cut

    import training.fit as module

    saved, module.SAVE_EVERY_STEPS = module.SAVE_EVERY_STEPS, 10
    try:
        with pytest.raises(Cut):
            train_network(CONFIG, data, folder=tmp_path, on_step=cut)
    finally:
        module.SAVE_EVERY_STEPS = saved
    steps: list[int] = []
    resumed = train_network(
        CONFIG, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 31
    for name, tensor in resumed.network.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_checkpoint_of_another_training_is_refused(data: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, steps=5))
    train_network(short, data, folder=tmp_path)
    with pytest.raises(TrainingError, match="another configuration"):
        train_network(dataclasses.replace(short, seed=99), data, folder=tmp_path)


def test_crossval_learns_what_is_there_to_learn(data: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, steps=150))
    report = cross_validate(config, data, tmp_path, folds=range(2))
    assert report["mean"]["top1"] > 0.8
    assert report["mean"]["seen_in_training"] == 0
    assert [row["recordings"] for row in report["folds"]] == [3, 3]


def test_crossval_has_as_many_folds_as_a_label_has_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = write_recordings(tmp_path / "data", per_label=2)
    short = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, steps=5))
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(config_as_dict(short)))
    command = ["crossval", "--config", str(config), "--data", str(recordings), "--json"]

    def folds(*more: str) -> list[int]:
        assert main([*command, "--run", str(tmp_path / "run"), *more]) == 0
        return [row["fold"] for row in json.loads(capsys.readouterr().out)["folds"]]

    assert folds() == [0, 1]
    assert folds("--folds", "1") == [1]
    assert main([*command, "--folds", "4"]) == 2
    assert "--folds among 0, 1" in capsys.readouterr().err


def test_shuffled_labels_cannot_be_learned(data: Dataset, tmp_path: Path) -> None:
    """The control of the test above: without a relation there is no score."""
    rng = np.random.default_rng(2)
    targets = rng.permutation(data.targets)
    shuffled = dataclasses.replace(
        data,
        samples=tuple(
            dataclasses.replace(s, target=t) for s, t in zip(data.samples, targets, strict=True)
        ),
    )
    report = cross_validate(CONFIG, shuffled, tmp_path, folds=range(2))
    assert report["mean"]["top1"] < 0.7


def test_bundle_of_a_fitted_network_agrees_with_torch(data: Dataset, tmp_path: Path) -> None:
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


def test_partial_window_ignores_what_lies_beyond_its_mask() -> None:
    network = build_network("substance", CONFIG.network, SPEC, 3).eval()
    x = torch.randn(2, 20, 4)
    x[1, 13:] = 1e6
    x[0, :13] = x[1, :13]
    mask = torch.zeros(2, 20)
    mask[:, :13] = 1
    first, second = network(x, mask)[0]
    torch.testing.assert_close(first, second)


def test_mixture_graph_ends_in_probabilities_and_integer_products() -> None:
    network = build_network("mixture", CONFIG.network, SPEC, 3)
    small = quantise(to_onnx(network, SPEC))
    assert integer_matmuls(small) >= 6


def test_mixture_loss_is_least_at_the_truth() -> None:
    target = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])
    right = (target + 1e-4).log(), torch.where(target > 0, 6.0, -6.0)
    wrong = right[0].roll(1, dims=1), right[1].roll(1, dims=1)
    assert mixture_loss(*right, target) < 0.01
    assert mixture_loss(*wrong, target) > 1.0


def test_soft_misses_count_what_is_not_within_a_tenth() -> None:
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    predicted = torch.tensor([[0.5, 0.1, 0.4], [0.6, 0.2, 0.2]])
    assert float(soft_miss_share(predicted, target)) == pytest.approx(0.5, abs=0.03)
    assert float(soft_miss_share(target, target)) < 0.05


def test_focal_loss_without_focus_is_half_the_cross_entropy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.network.losses.FOCAL_ALPHA", 0.5)
    monkeypatch.setattr("training.network.losses.FOCAL_GAMMA", 0.0)
    logits, truth = torch.randn(4, 5), (torch.rand(4, 5) > 0.5).float()
    reference = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(focal_bce(logits, truth), reference / 2)


def test_substance_scores_by_hand() -> None:
    p = np.log(np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    result = substance_scores(p, np.array([0, 0, 1, 1]), np.array([0, 2]))
    assert result["top1"] == 0.5
    assert result["top5"] == 1.0
    assert result["recording_top1"] == 1.0
    assert result["macro_f1"] == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_mixture_scores_by_hand() -> None:
    target = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]], dtype=np.float32)
    predicted = np.array([[0.45, 0.2, 0.35], [0.75, 0.25, 0.0]])
    result = mixture_scores(predicted, predicted > 0.3, target)
    assert result["within_01"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert result["top_k"] == pytest.approx(2 / 4)
    assert result["presence_f1"] == pytest.approx(2 * 1 / (3 + 4))
    assert result["mae"] == pytest.approx((0.05 + 0.3 + 0.35 + 0.75 + 0.05 + 0.8) / 6)


def test_best_constant_beats_the_mean_on_its_own_data() -> None:
    target = np.array([[0.8, 0.2, 0], [0.8, 0.2, 0], [0, 0.2, 0.8]], dtype=np.float32)
    constant = best_constant(target)
    np.testing.assert_allclose(constant, [0.8, 0.2, 0.0])


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4000, 4)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.eye(4, dtype=np.float32)[[rng.choice(4, p=row / row.sum()) for row in p]]
    assert best_temperature(3 * logits, truth) == pytest.approx(3.0, rel=0.1)


def test_presence_threshold_separates_where_it_can() -> None:
    presence = np.concatenate([np.linspace(0.0, 0.3, 50), np.linspace(0.4, 0.9, 50)])
    threshold = best_threshold(presence.astype(np.float32), np.arange(100) >= 50)
    assert 0.29 <= threshold <= 0.41


def test_configuration_survives_its_own_yaml(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config_as_dict(CONFIG)))
    assert load_train_config(path) == CONFIG


def test_every_problem_of_a_configuration_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\ntask: substance\nsteps: 5\npreprocessing: {channels: 3}\n")
    with pytest.raises(TrainConfigError) as caught:
        load_train_config(path)
    for word in ("steps", "channels", "rate_hz"):
        assert word in str(caught.value)


def test_streamed_beliefs_are_those_of_the_decision_layer() -> None:
    rng = np.random.default_rng(8)
    shares = (
        EvidenceShare(0.0, 0.2, 0.2),
        EvidenceShare(5.0, 0.25, 0.05),
        EvidenceShare(5.0, 0.3, 0.05),
    )
    logits = rng.normal(0, 2, (2, 3, 4)).astype(np.float32)
    streams = Streams(logits, shares, np.array([45.0, 50.0, 55.0]), np.array([0, 3]))
    spec = DecisionSpec(temperature=0.7, evidence_floor=0.4, evidence_factor=0.8, memory_s=30.0)
    means, independent = evidence_means(streams, spec)
    for recording in range(2):
        decision = SubstanceDecision(("a", "b", "c", "d"), spec)
        for k, share in enumerate(shares):
            posterior = decision.add(Outputs(logits=logits[recording, [k]]), share)
            scaled = means[recording, k] * (0.4 + 0.8 * independent[k])
            expected = np.exp(scaled - scaled.max())
            np.testing.assert_allclose(posterior, expected / expected.sum(), rtol=1e-5)


def test_evidence_is_worth_little_when_windows_repeat_each_other() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 4, 400)
    shares = tuple(EvidenceShare(5.0 * (k > 0), 1.0, 1.0) for k in range(20))
    ends_s = 45.0 + 13.5 * np.arange(20)

    def hints(count: int) -> np.ndarray:
        """Logits of `count` observations that are right six times in ten."""
        seen = np.where(
            rng.random((400, count)) < 0.6, truth[:, None], rng.integers(0, 4, (400, count))
        )
        return (np.eye(4)[seen] * np.log(0.7 / 0.1)).astype(np.float32)

    spec = DecisionSpec(memory_s=1e6)
    repeated = Streams(np.repeat(hints(1), 20, axis=1), shares, ends_s, truth)
    independent = Streams(hints(20), shares, ends_s, truth)
    assert fit_evidence(repeated, spec)[1] == 0.0
    assert fit_evidence(independent, spec)[1] > 0.8


def test_stream_asks_every_five_seconds_from_the_first_window_on(
    data: Dataset, tmp_path: Path
) -> None:
    fitted = train_network(
        dataclasses.replace(CONFIG, optimiser=OptimiserConfig(steps=3, batch=4)), data
    )
    export_bundle(
        tmp_path / "tiny", CONFIG, fitted, data, DecisionSpec(), Provenance("test", "tiny.yaml")
    )
    bundle = load_bundle(tmp_path / "tiny", precision="fp32")
    long = dataclasses.replace(data.samples[0], values=np.tile(data.samples[0].values, (3, 1)))
    streams = stream_recordings(bundle, [long])
    assert streams.ends_s.tolist() == [7.0 + 5 * k for k in range(59)]
    for k in (0, 5, 58):
        end = int(streams.ends_s[k])
        x = batch_features(long.values[:end], fitted.spec)[0].x[-20:]
        logits = bundle.run(x[None].copy(), np.ones((1, len(x)), np.float32)).logits
        np.testing.assert_allclose(streams.logits[0, k], logits[0], rtol=1e-5, atol=1e-6)
