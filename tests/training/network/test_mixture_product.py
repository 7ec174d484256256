"""The mixing law as a layer, and its product with a network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.training.mixed import CONFIG, LABELS, mixtures, recording

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
torch.set_num_threads(1)

from hardware.errors import UsageError  # noqa: E402
from training.config import MixingConfig  # noqa: E402
from training.data.dataset import DataError, Dataset  # noqa: E402
from training.data.protocol_windows import cut_windows  # noqa: E402
from training.export.onnx import quantise, to_onnx  # noqa: E402
from training.fit import train_network  # noqa: E402
from training.network.mixture_product import MixingLayer, MixtureProductNet  # noqa: E402
from training.sampling.measurements import measure_rms_scale  # noqa: E402


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mixtures()


@pytest.fixture(scope="module")
def trained(data: Dataset) -> MixtureProductNet:
    network = train_network(CONFIG, data).network
    assert isinstance(network, MixtureProductNet)
    return network


def outputs(network: MixtureProductNet, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    spec = measure_rms_scale(CONFIG.preprocessing, mixtures(), None)
    windows = cut_windows(data.samples, spec)
    with torch.no_grad():
        shares, presence, _ = network(torch.from_numpy(windows.x), torch.from_numpy(windows.mask))
    return shares.numpy(), presence.numpy()


def test_proportions_sum_to_one_and_presences_are_probabilities(
    trained: MixtureProductNet, data: Dataset
) -> None:
    shares, presence = outputs(trained, data)
    assert shares.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    assert presence.min() >= 0.0
    assert presence.max() <= 1.0 + 1e-5
    assert presence.sum(axis=1).min() >= 1.0 - 1e-4


def test_compositions_of_another_day_are_found_by_the_levels(trained: MixtureProductNet) -> None:
    other = Dataset(
        "mixture",
        LABELS,
        (recording({"clove": 0.5, "lemon": 0.5}, 7), recording({"banana": 1.0}, 7)),
    )
    _, presence = outputs(trained, other)
    half = len(presence) // 2
    assert presence[:half].mean(axis=0)[LABELS.index("lemon")] > 0.6
    assert presence[half:].mean(axis=0).argmax() == LABELS.index("banana")


def test_the_network_moves_the_answer_by_its_weight(
    trained: MixtureProductNet, data: Dataset
) -> None:
    alone = MixtureProductNet(trained.mixing, trained.network, 0.0).eval()
    strong = MixtureProductNet(trained.mixing, trained.network, 50.0).eval()
    by_law, product, by_network = (outputs(one, data)[0] for one in (alone, trained, strong))
    assert np.abs(by_law - product).max() > 1e-6
    assert np.abs(by_law - by_network).max() > np.abs(by_law - product).max()


def test_one_graph_holds_both_and_is_quantised(trained: MixtureProductNet, data: Dataset) -> None:
    import onnxruntime

    spec = measure_rms_scale(CONFIG.preprocessing, data, None)
    model = to_onnx(trained, spec)
    windows = cut_windows(data.samples[:3], spec)
    for graph, tolerance in ((model, 1e-4), (quantise(model), 0.1)):
        session = onnxruntime.InferenceSession(graph)
        shares, _, _ = session.run(None, {"x": windows.x, "mask": windows.mask})
        with torch.no_grad():
            expected = trained(torch.from_numpy(windows.x), torch.from_numpy(windows.mask))[0]
        assert np.abs(shares - expected.numpy()).max() < tolerance


def test_a_label_without_recordings_is_refused(data: Dataset) -> None:
    spec = measure_rms_scale(CONFIG.preprocessing, data, None)
    with pytest.raises(DataError, match="clove"):
        MixingLayer(MixingConfig(), spec, data.subset(data.targets[:, 1] == 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "substance", "announce_groups": ()}, "mixing is for mixtures"),
        ({"mixing": MixingConfig(sizes=(0.5, 0.5, 0.5))}, "sum to 1"),
        ({"preprocessing": dataclasses.replace(CONFIG.preprocessing, lags=(3, 6))}, "lags"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
