"""Mixing recordings: by the power law of the sensor, and by averages as published."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.channels import N_CHANNELS
from tests.training.tiny import PLAIN, SPEC
from training.data.dataset import DataError, Dataset, Sample

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.sampling.mixing import EXPONENT_RANGE, draw_exponents, power_law_mixture  # noqa: E402
from training.sampling.windows import WindowSampler  # noqa: E402

ALWAYS = dataclasses.replace(PLAIN, mix=1.0, mix_alpha=1.0, mix_kind="power_law")


def signals(*conductance: float) -> torch.Tensor:
    """Log-conductances [parts, 1, 1, 1] of parts whose conductances are given."""
    return torch.tensor(conductance).log()[:, None, None, None]


def test_concentrations_add_where_the_exponent_is_one() -> None:
    mixed = power_law_mixture(signals(2.0, 10.0), torch.tensor([[0.25, 0.75]]), torch.ones(1, 1, 1))
    assert mixed.exp().item() == pytest.approx(0.25 * 2 + 0.75 * 10, rel=1e-5)


def test_exponent_acts_on_the_summed_concentration() -> None:
    """G = c^beta: parts of concentration 4 and 9 in equal shares read as one of 6.5."""
    beta = 0.5
    mixed = power_law_mixture(
        signals(4**beta, 9**beta), torch.tensor([[0.5, 0.5]]), torch.full((1, 1, 1), beta)
    )
    assert mixed.exp().item() == pytest.approx(6.5**beta, rel=1e-5)


def test_board_gain_passes_through_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(3, 5, 7, 2, generator=generator)
    weights = torch.rand(5, 3, generator=generator).softmax(dim=1)
    beta = draw_exponents(5, 2, generator)
    shifted = power_law_mixture(parts + 1.7, weights, beta)
    torch.testing.assert_close(shifted, power_law_mixture(parts, weights, beta) + 1.7)


def test_strong_part_hides_a_weak_one_more_than_a_mean_would() -> None:
    weights, beta = torch.tensor([[0.5, 0.5]]), torch.full((1, 1, 1), 0.3)
    weak_moves = torch.tensor([[[[1.0]]], [[[4.0]]]]) + torch.tensor([[[[0.5]]], [[[0.0]]]])
    change = power_law_mixture(weak_moves, weights, beta) - power_law_mixture(
        torch.tensor([[[[1.0]]], [[[4.0]]]]), weights, beta
    )
    assert 0 < change.item() < 0.01


def test_part_without_a_share_has_no_effect_even_where_it_is_missing() -> None:
    parts = torch.tensor([0.3, torch.nan])[:, None, None, None]
    mixed = power_law_mixture(parts, torch.tensor([[1.0, 0.0]]), torch.full((1, 1, 1), 0.5))
    assert mixed.item() == pytest.approx(0.3)
    missing = power_law_mixture(parts, torch.tensor([[0.6, 0.4]]), torch.full((1, 1, 1), 0.5))
    assert missing.isnan().item()


def test_exponents_lie_in_the_range_of_the_parts() -> None:
    beta = draw_exponents(50, 4, torch.Generator().manual_seed(1))
    assert beta.shape == (50, 1, 4)
    assert EXPONENT_RANGE[0] <= float(beta.min()) < float(beta.max()) <= EXPONENT_RANGE[1]


@pytest.fixture
def steps_and_steady() -> Dataset:
    """A substance that rises by half a log unit in the middle, and one ten times as strong."""

    def sample(name: str, log_conductance: np.ndarray, target: list[float]) -> Sample:
        values = np.full((60, N_CHANNELS), np.nan, dtype=np.float32)
        counts = 1023 / (1 + np.exp(-log_conductance))
        values[:, 0] = values[:, 2] = counts
        return Sample(name, name, values, np.array(target, dtype=np.float32), name, 1.0)

    rising = np.linspace(-1.0, -0.5, 60)
    steady = np.full(60, 2.0)
    return Dataset(
        "mixture", ("a", "b"), (sample("a", rising, [1, 0]), sample("b", steady, [0, 1]))
    )


def test_sampler_mixes_before_it_takes_differences(steps_and_steady: Dataset) -> None:
    """The mixture follows from the levels of its parts, which no average of differences knows."""
    x, mask, target = WindowSampler(steps_and_steady, SPEC, ALWAYS, seed=0).batch(256)
    assert bool(mask.all())
    torch.testing.assert_close(target.sum(dim=1), torch.ones(256))
    rise_in_lag_3 = 3 * 0.5 / 59
    mixed = (target[:, 0] > 0.45) & (target[:, 0] < 0.55)
    pure = target[:, 0] == 1
    assert int(mixed.sum()) > 3
    assert int(pure.sum()) > 3
    # As b is strong, less than a tenth of the rise of a in a mean is left.
    assert float(x[mixed][:, :, 0].max()) < 0.1 * 0.45 * rise_in_lag_3
    torch.testing.assert_close(
        x[pure][:, :, 0].mean(), torch.tensor(rise_in_lag_3), rtol=1e-3, atol=0
    )


def test_average_keeps_half_of_the_weak_part(steps_and_steady: Dataset) -> None:
    average = dataclasses.replace(ALWAYS, mix_kind="average")
    x, _, target = WindowSampler(steps_and_steady, SPEC, average, seed=0).batch(256)
    expected = target[:, :1] * 3 * 0.5 / 59
    torch.testing.assert_close(x[:, :, 0], expected.expand(-1, 20), rtol=1e-3, atol=1e-5)


def test_draws_are_reproducible_by_seed(steps_and_steady: Dataset) -> None:
    first, again = (WindowSampler(steps_and_steady, SPEC, ALWAYS, seed=4) for _ in range(2))
    for one, other in zip(first.batch(16), again.batch(16), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["average", "power_law"])
def test_only_single_substances_are_mixed_on_request(steps_and_steady: Dataset, kind: str) -> None:
    """With a mixture of c and d among the recordings, no window mixes it any further."""
    names = ("a", "b", "c", "d")
    padded = [
        dataclasses.replace(sample, target=np.pad(sample.target, (0, 2)))
        for sample in steps_and_steady.samples
    ]
    mixture = dataclasses.replace(
        padded[0], name="c+d", target=np.array([0, 0, 0.4, 0.6], dtype=np.float32)
    )
    data = Dataset("mixture", names, (*padded, mixture))
    blocks = dataclasses.replace(ALWAYS, mix=0.5, mix_of="singles", mix_kind=kind)
    _, _, target = WindowSampler(data, SPEC, blocks, seed=0).batch(256)
    recorded = target[:, 2] > 0
    torch.testing.assert_close(
        target[recorded, 2:], torch.tensor([0.4, 0.6]).expand(int(recorded.sum()), 2)
    )
    mixed = (target[:, 0] > 0) & (target[:, 1] > 0)
    assert int(recorded.sum()) > 10
    assert int(mixed.sum()) > 10
    assert not bool((recorded & mixed).any())


def test_mixing_single_substances_needs_some(steps_and_steady: Dataset) -> None:
    mixture = dataclasses.replace(
        steps_and_steady.samples[0], target=np.array([0.4, 0.6], dtype=np.float32)
    )
    data = Dataset("mixture", ("a", "b"), (mixture,))
    with pytest.raises(DataError, match="mix_of"):
        WindowSampler(data, SPEC, dataclasses.replace(ALWAYS, mix_of="singles"), seed=0)
