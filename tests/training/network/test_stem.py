"""The statistics stem: its numbers, its bins, missing rows and channels, and blends."""

from __future__ import annotations

import numpy as np
import pytest

from models.preprocess import PreprocessSpec

torch = pytest.importorskip("torch", reason="the trainer needs torch")

from training.config import NetworkConfig  # noqa: E402
from training.network.scentformer import SubstanceNet, build_network  # noqa: E402
from training.network.stem import (  # noqa: E402
    N_STATISTICS,
    QUANTILE_LEVELS,
    Blend,
    StatisticsStem,
    feature_statistics,
)

CONFIG = NetworkConfig(d_model=16, layers=1, heads=2, stem="statistics", bins=4)
WINDOW, LAGS, CHANNELS = 20, 2, 3
FEATURES = LAGS * CHANNELS
SPEC = PreprocessSpec(
    channels=("NO2", "VOC", "CO"), rate_hz=1.0, lags=(3, 6), first_step=3, window=WINDOW,
    stride=10, min_steps=4,
)  # fmt: skip

torch.set_num_threads(1)


@pytest.fixture
def windows() -> tuple[torch.Tensor, torch.Tensor]:
    """Thirty heavy-tailed windows, the last ten partial."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(30, WINDOW, FEATURES, generator=generator) ** 3
    mask = torch.ones(30, WINDOW)
    mask[20:, 12:] = 0
    return x, mask


@pytest.fixture
def network(windows: tuple[torch.Tensor, torch.Tensor]) -> SubstanceNet:
    """Return a small network whose bins are measured."""
    torch.manual_seed(0)
    net = build_network("substance", CONFIG, SPEC, 4)
    assert isinstance(net, SubstanceNet)
    assert isinstance(net.trunk.stem, StatisticsStem)
    net.trunk.stem.measure(*windows)
    return net.eval()


def test_statistics_equal_those_of_numpy_over_the_measured_rows(
    windows: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x, mask = windows
    statistics = feature_statistics(x, mask).numpy()
    assert statistics.shape == (30, N_STATISTICS, FEATURES)
    for number in (0, 25):
        rows = x[number][mask[number] > 0].numpy().astype(np.float64)
        time = np.linspace(-1, 1, len(rows))[:, None]
        np.testing.assert_allclose(statistics[number, 0], rows.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics[number, 1], rows.std(axis=0), rtol=1e-4)
        np.testing.assert_allclose(statistics[number, 2], (rows * time).mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(
            statistics[number, 3], np.abs(np.diff(rows, axis=0)).mean(axis=0), rtol=1e-4
        )
        ordered = np.sort(rows, axis=0)
        quantiles = statistics[number, -len(QUANTILE_LEVELS) :]
        for level, found in zip(QUANTILE_LEVELS, quantiles, strict=True):
            place = round(level * (len(rows) - 1) + 1e-9)
            assert any(np.allclose(found, ordered[k]) for k in {place, place - 1, place + 1} & {
                *range(len(rows))
            })  # fmt: skip
        np.testing.assert_allclose(quantiles[-1], rows.max(axis=0), rtol=1e-6)
        np.testing.assert_allclose(quantiles[0], rows.min(axis=0), rtol=1e-6)


def test_rows_that_were_not_measured_change_nothing(
    network: SubstanceNet, windows: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, mask = windows
    disturbed = torch.where(mask.unsqueeze(-1) > 0, x, torch.full_like(x, 7.5))
    torch.testing.assert_close(network(disturbed, mask), network(x, mask))


def test_bins_are_equally_full_for_the_windows_they_were_measured_on(
    network: SubstanceNet, windows: tuple[torch.Tensor, torch.Tensor]
) -> None:
    encoded, weight = network.trunk.stem.encode(*windows)
    assert encoded.shape == (30, LAGS, CONFIG.bins * N_STATISTICS * CHANNELS)
    assert weight.min() == weight.max() == 1
    assert float(encoded.min()) == -0.5
    assert float(encoded.max()) == 0.5
    # With edges at the quartiles a value fills half of the bins on average.
    assert abs(float(encoded.mean())) < 0.05


def test_a_lost_channel_is_encoded_as_zeros(
    network: SubstanceNet, windows: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, mask = windows
    lost = x.reshape(30, WINDOW, LAGS, CHANNELS).clone()
    lost[..., 1] = 0
    encoded, _ = network.trunk.stem.encode(lost.reshape(x.shape), mask)
    by_channel = encoded.reshape(30, LAGS, -1, CHANNELS)
    assert bool((by_channel[..., 1] == 0).all())
    kept, _ = network.trunk.stem.encode(x, mask)
    torch.testing.assert_close(by_channel[..., 0], kept.reshape(by_channel.shape)[..., 0])


def test_a_blend_with_one_part_gives_the_output_of_that_part(
    network: SubstanceNet, windows: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, mask = windows
    partner = torch.arange(29, -1, -1)
    whole = torch.stack([torch.ones(30), torch.zeros(30)], dim=1)
    alone = network(x, mask, Blend(torch.stack([torch.arange(30), partner]), whole))[0]
    torch.testing.assert_close(alone, network(x, mask)[0])
    swapped = network(x, mask, Blend(torch.stack([torch.arange(30), partner]), whole.flip(1)))[0]
    torch.testing.assert_close(swapped, network(x, mask)[0][partner])


def test_blends_average_encodings_and_keep_the_largest_weight() -> None:
    encoded = torch.arange(6.0).reshape(3, 2)
    blend = Blend(torch.tensor([[0, 1, 2], [2, 0, 1]]), torch.tensor([[0.75, 0.25]] * 3))
    torch.testing.assert_close(blend.mean(encoded), 0.75 * encoded + 0.25 * encoded[[2, 0, 1]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(
        blend.maximum(weight), torch.tensor([[1.0, 0.5], [1.0, 1.0], [0.5, 1.0]])
    )
