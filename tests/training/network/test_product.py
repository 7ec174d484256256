"""The sum of several networks and of what levels say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hardware.channels import channel_index
from models.preprocess import PreprocessSpec
from tests.training.tiny import CONFIG, PLAIN, SPEC, periodic
from training.config import ExpertConfig, LevelConfig, TrainConfig, TrainConfigError
from training.data.dataset import Dataset
from training.data.protocol_windows import cut_windows

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)

from training.fit import TrainedNetwork, train_network  # noqa: E402
from training.network.product import LevelExpert  # noqa: E402

CHANNELS = ("NO2", "VOC")
EXPERT = ExpertConfig(
    seed=5, steps=40, network=CONFIG.network, augment=PLAIN, channels=CHANNELS, lags=(3, 6)
)
LEVELS = LevelConfig(channels=CHANNELS, shared=CHANNELS)
SUM = dataclasses.replace(
    CONFIG,
    preprocessing=dataclasses.replace(SPEC, lags=(0, 3, 6)),
    experts=(EXPERT, dataclasses.replace(EXPERT, seed=6, channels=("VOC",), weight=0.5)),
    levels=LEVELS,
)


def at_levels(counts: dict[str, float], shift: float = 0.0) -> Dataset:
    """Recordings of substances that differ in the level of both channels."""
    data = periodic(per_label=3, rows=120, noise=1.0)
    samples = []
    for sample in data.samples:
        values = sample.values.copy()
        level = counts[sample.name.split("/")[0]]
        for name in CHANNELS:
            column = channel_index(name)
            ratio = values[:, column] / values[:, column].mean()
            odds = level / (1023 - level) * np.exp(shift) * ratio**0.05
            values[:, column] = np.rint(1023 * odds / (1 + odds))
        samples.append(dataclasses.replace(sample, values=values))
    return dataclasses.replace(data, samples=tuple(samples))


COUNTS = {"almond": 150.0, "banana": 400.0, "mango": 750.0}


@pytest.fixture(scope="module")
def fitted() -> TrainedNetwork:
    return train_network(SUM, at_levels(COUNTS))


def run(
    network: torch.nn.Module, data: Dataset, spec: PreprocessSpec
) -> tuple[torch.Tensor, np.ndarray]:
    windows = cut_windows(data.samples, spec)
    with torch.no_grad():
        logits = network(torch.from_numpy(windows.x), torch.from_numpy(windows.mask))[0]
    return logits, data.targets.argmax(axis=1)[windows.owner]


def test_without_levels_the_sum_is_that_of_the_weighted_parts() -> None:
    config = dataclasses.replace(SUM, levels=None)
    data = periodic(rows=120)
    fitted = train_network(config, data)
    windows = cut_windows(data.samples, fitted.spec)
    x, mask = torch.from_numpy(windows.x), torch.from_numpy(windows.mask)
    with torch.no_grad():
        logits, embedding = fitted.network(x, mask)
        first, second = fitted.network.parts
        alone = first(x[:, :, [2, 3, 4, 5]], mask), second(x[:, :, [3, 5]], mask)
    expected = alone[0][0].log_softmax(1) + 0.5 * alone[1][0].log_softmax(1)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(embedding, torch.cat([alone[0][1], alone[1][1]], dim=1))


def test_an_expert_in_a_sum_is_the_network_that_is_trained_alone() -> None:
    data = periodic(rows=120)
    alone = train_network(
        dataclasses.replace(CONFIG, seed=5, augment=PLAIN, optimiser=SUM.optimiser), data
    )
    joined = train_network(dataclasses.replace(SUM, levels=None), data)
    for own, part in zip(
        alone.network.parameters(), joined.network.parts[0].parameters(), strict=True
    ):
        torch.testing.assert_close(own, part)


def test_levels_name_what_differs_in_level_alone(fitted: TrainedNetwork) -> None:
    levels = fitted.network.levels
    windows = cut_windows(at_levels(COUNTS, shift=0.1).samples, fitted.spec)
    level, there = levels._levels(torch.from_numpy(windows.x), torch.from_numpy(windows.mask))
    said = levels._log_probability(level, there)
    truth = at_levels(COUNTS).targets.argmax(axis=1)[windows.owner]
    assert (said.argmax(dim=1).numpy() == truth).all()
    far = levels._log_probability(level + 40.0, there).exp()
    assert float(far.max()) < 0.45  # of three: it says next to nothing


def test_unfamiliar_levels_make_the_sum_flatter_and_a_shift_of_all_does_not(
    fitted: TrainedNetwork,
) -> None:
    network, spec = fitted.network, fitted.spec
    here, _ = run(network, at_levels(COUNTS), spec)
    level, there = network.levels._levels(
        *(torch.from_numpy(part) for part in _windows(at_levels(COUNTS), spec))
    )
    near = network.levels._distance(level, there).amin(dim=1)
    shared = network.levels._distance(level + 0.5, there).amin(dim=1)
    apart = network.levels._distance(level + torch.tensor([0.5, -0.5]), there).amin(dim=1)
    torch.testing.assert_close(near, shared, atol=1e-3, rtol=1e-3)
    assert float(near.max()) < LEVELS.familiar < float(apart.min())
    other = at_levels(COUNTS)
    moved = tuple(
        dataclasses.replace(s, values=s.values * np.where(np.arange(12) == 2, 0.5, 1.0))
        for s in other.samples
    )
    there_, _ = run(network, dataclasses.replace(other, samples=moved), spec)
    assert float(there_.softmax(1).amax(1).mean()) < float(here.softmax(1).amax(1).mean())


def _windows(data: Dataset, spec: PreprocessSpec) -> tuple[np.ndarray, np.ndarray]:
    windows = cut_windows(data.samples, spec)
    return windows.x, windows.mask


def test_a_lost_channel_neither_speaks_nor_is_unfamiliar(fitted: TrainedNetwork) -> None:
    levels = fitted.network.levels
    x, mask = (torch.from_numpy(part) for part in _windows(at_levels(COUNTS), fitted.spec))
    x = x.clone()
    x[:, :, [0, 2, 4]] = 0.0
    level, there = levels._levels(x, mask)
    assert (there == torch.tensor([0.0, 1.0])).all()
    assert float(levels._distance(level, there).amin(dim=1).max()) < LEVELS.familiar


def test_levels_need_windows_with_levels() -> None:
    with pytest.raises(TrainConfigError, match="begin with 0"):
        LevelExpert(LEVELS, SPEC, periodic())


def test_experts_may_only_name_what_the_windows_hold() -> None:
    with pytest.raises(Exception, match=r"experts\[0\]\.channels must be among"):
        TrainConfig(
            name="x", task="substance", preprocessing=SPEC,
            experts=(dataclasses.replace(EXPERT, channels=("CO",)),),
        )  # fmt: skip
