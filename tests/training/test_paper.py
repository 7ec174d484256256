"""paper-50 is the published recipe: its layers, its windows, its optimiser, its epochs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from models.preprocess import PreprocessSpec, batch_features
from tests.training.tiny import assert_same_weights, interrupt
from training.commands._shared import config_path
from training.config import TrainConfig, load_train_config
from training.data.dataset import Dataset, Sample, load_substances, substance_folds
from training.data.protocol_windows import cut_windows

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from torch import nn  # noqa: E402

import training.fit as fitting  # noqa: E402
from training.network.stem import PatchStem, sinusoidal_positions  # noqa: E402
from training.progress import learning_rate  # noqa: E402
from training.sampling.epochs import EpochSampler  # noqa: E402
from training.sampling.measurements import measure_window_scale, total_steps  # noqa: E402

torch.set_num_threads(1)

ROWS, PER_LABEL = 227, 3
WINDOWS = 3  # of 227 rows: samples [0, 125), [50, 175), [100, 225)


@pytest.fixture(scope="module")
def paper() -> TrainConfig:
    return load_train_config(config_path("paper-50"))


@pytest.fixture(scope="module")
def fifty() -> Dataset:
    """Fifty labels, three short recordings each, in the readings' own range."""
    rng = np.random.default_rng(8)
    labels = tuple(f"odorant-{k:02}" for k in range(50))
    samples = []
    for number in range(50 * PER_LABEL):
        steps = rng.normal(0, 1 + np.arange(N_CHANNELS), (ROWS, N_CHANNELS))
        values = (400 + np.cumsum(steps, axis=0).clip(-300, 300)).astype(np.float32)
        target = np.zeros(50, dtype=np.float32)
        target[number // PER_LABEL] = 1
        name = f"{labels[number // PER_LABEL]}/{number}.csv"
        samples.append(Sample(name, f"{number:064x}", values, target, name, 1.0))
    return Dataset("substance", labels, tuple(samples))


def trainer(config: TrainConfig, data: Dataset) -> fitting.Trainer:
    return fitting.Trainer(config, data, "cpu")


def test_layers_are_the_published_ones(paper: TrainConfig, fifty: Dataset) -> None:
    network = trainer(paper, fifty).network
    trunk, head = network.trunk, network.head
    assert isinstance(trunk.stem, PatchStem)
    assert (trunk.stem.linear.in_features, trunk.stem.linear.out_features) == (6, 256)
    assert trunk.stem.norm.normalized_shape == (256,)
    torch.testing.assert_close(trunk.stem.positions, sinusoidal_positions(100, 256))
    assert trunk.stem.positions[3, 4] == pytest.approx(np.sin(3 / 10_000 ** (4 / 256)), abs=1e-6)
    assert len(trunk.encoder.layers) == 3
    for layer in trunk.encoder.layers:
        assert layer.norm_first
        assert layer.self_attn.num_heads == 8
        assert (layer.linear1.in_features, layer.linear1.out_features) == (256, 1024)
        assert layer.activation is nn.functional.gelu
        assert layer.dropout.p == layer.self_attn.dropout == 0.1
    kinds = [module for module in head if not isinstance(module, nn.Dropout)]
    assert [type(module) for module in kinds] == [nn.Linear, nn.GELU, nn.Linear]
    assert (kinds[0].in_features, kinds[0].out_features, kinds[2].out_features) == (256, 128, 50)


def test_number_of_parameters_follows_from_the_published_sizes(
    paper: TrainConfig, fifty: Dataset
) -> None:
    d, ffn, norm = 256, 1024, 2 * 256
    attention = 4 * (d * d + d)
    layer = attention + (d * ffn + ffn) + (ffn * d + d) + 2 * norm
    head = (d * 128 + 128) + (128 * 50 + 50)
    wanted = (6 * d + d) + norm + 3 * layer + norm + head
    network = trainer(paper, fifty).network
    assert sum(p.numel() for p in network.parameters()) == wanted


def test_inputs_are_linear_differences_over_25_samples(paper: TrainConfig, fifty: Dataset) -> None:
    spec = paper.preprocessing
    assert spec.channels == ("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG")
    assert (spec.lags, spec.window, spec.stride, spec.rate_hz) == ((25,), 100, 50, 1.0)
    values = fifty.samples[0].values
    rows = batch_features(values, spec)[0].x
    np.testing.assert_allclose(rows, values[25:, :6] - values[:-25, :6], atol=1e-3)
    # The published code subtracts each recording's first row beforehand: no difference sees it.
    without_first = batch_features(values - values[0], spec)[0].x
    np.testing.assert_allclose(rows, without_first, atol=1e-3)


def test_features_are_standardised_by_the_training_windows(
    paper: TrainConfig, fifty: Dataset
) -> None:
    spec = trainer(paper, fifty).spec
    x = cut_windows(fifty.samples, spec).x
    assert len(x) == len(fifty.samples) * WINDOWS
    np.testing.assert_allclose(x.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(axis=(0, 1)), 1, atol=1e-4)
    # Measured on nothing but the training part: other recordings are off.
    half = measure_window_scale(paper.preprocessing, fifty.subset(np.arange(150) < 40), None)
    assert abs(cut_windows(fifty.samples, half).x.mean(axis=(0, 1))).max() > 0.01


def test_recipe_is_adam_90_epochs_of_32_at_a_constant_rate(
    paper: TrainConfig, fifty: Dataset
) -> None:
    state = trainer(paper, fifty)
    assert type(state.optimiser) is torch.optim.Adam
    assert len(state.sampler) == 150 * WINDOWS
    assert state.steps == 90 * -(-150 * WINDOWS // 32) == total_steps(paper, fifty)
    rates = {
        learning_rate(step, state.steps, paper.optimiser)
        for step in (0, 1, state.steps // 2, state.steps - 1)
    }
    assert len(rates) == 1
    assert 3e-4 <= rates.pop() <= 3e-3
    state.advance()
    (group,) = state.optimiser.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 0.0)


def test_nothing_is_augmented_smoothed_or_averaged(paper: TrainConfig, fifty: Dataset) -> None:
    state = trainer(paper, fifty)
    x, mask, target = state.sampler.batch(32)
    assert (mask == 1).all()
    assert ((target == 1).sum(dim=1) == 1).all()
    known = {window.tobytes() for window in cut_windows(fifty.samples, state.spec).x}
    assert {window.numpy().tobytes() for window in x} <= known
    with torch.no_grad():
        logits, _ = state.network.eval()(x, mask)
        plain = nn.functional.cross_entropy(logits, target.argmax(dim=1))
        torch.testing.assert_close(state._loss(x, mask, target), plain)
    state.advance()
    for mean, last in zip(state.average.parameters(), state.network.parameters(), strict=True):
        assert torch.equal(mean, last)


def spec_and_sampler(data: Dataset, seed: int) -> EpochSampler:
    spec = PreprocessSpec(channels=("NO2",), rate_hz=1.0, lags=(5,), first_step=5)
    return EpochSampler(data, spec, batch=32, seed=seed)


def test_every_epoch_gives_every_window_once_in_another_order(fifty: Dataset) -> None:
    sampler = spec_and_sampler(fifty, seed=1)
    epochs = []
    for _ in range(2):
        batches = [sampler.batch(32)[0] for _ in range(sampler.batches)]
        assert [len(batch) for batch in batches[:-1]] == [32] * (sampler.batches - 1)
        epochs.append([window.numpy().tobytes() for batch in batches for window in batch])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(epochs[0]) == len(set(epochs[0])) == len(sampler)
    assert epochs[0] != epochs[1]
    other = spec_and_sampler(fifty, seed=2).batch(32)[0]
    assert not torch.equal(other, spec_and_sampler(fifty, seed=1).batch(32)[0])


def test_sampler_seeks_any_step(fifty: Dataset) -> None:
    whole, back = spec_and_sampler(fifty, seed=5), spec_and_sampler(fifty, seed=5)
    dealt = [whole.batch(32) for _ in range(2 * whole.batches)]
    for step in (whole.batches + 3, 2, whole.batches - 1, 0):
        back.seek(step)
        for ours, theirs in zip(back.batch(32), dealt[step], strict=True):
            assert torch.equal(ours, theirs)


def test_training_by_epochs_resumes_bit_for_bit(
    paper: TrainConfig, fifty: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(
        paper,
        network=dataclasses.replace(paper.network, d_model=16, layers=1, heads=2),
        optimiser=dataclasses.replace(paper.optimiser, epochs=2),
    )
    data = fifty.subset(np.arange(150) % 3 == 0)
    monkeypatch.setattr(fitting, "SAVE_EVERY_STEPS", 4)
    interrupt(small, data, tmp_path, 8)
    seen: list[int] = []
    resumed = fitting.train_network(
        small, data, folder=tmp_path, on_step=lambda step, _: seen.append(step)
    )
    # The cut came between step 8 and its checkpoint; an epoch has five batches.
    assert seen == [5, 6, 7, 8, 9, 10]
    assert_same_weights(resumed.network, fitting.train_network(small, data).network)


def test_bfloat16_on_the_cpu_learns_as_float32_does(paper: TrainConfig, fifty: Dataset) -> None:
    small = dataclasses.replace(
        paper, network=dataclasses.replace(paper.network, d_model=16, layers=1, heads=2)
    )
    losses = {}
    for precision in ("fp32", "bf16"):
        optimiser = dataclasses.replace(small.optimiser, precision=precision)
        state = trainer(dataclasses.replace(small, optimiser=optimiser), fifty)
        losses[precision] = [state.advance() for _ in range(12)]
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], atol=0.1)


@pytest.mark.data
def test_published_recordings_give_ten_windows_each(smellnet: Path, paper: TrainConfig) -> None:
    data = load_substances(smellnet / "base")
    train = data.subset(substance_folds(data) != 0)
    assert total_steps(paper, train) == 90 * 63
    assert len(cut_windows(train.samples, paper.preprocessing).x) == 2009
