"""The networks: padding has no effect, and the mixture's graph ends in probabilities."""

from __future__ import annotations

import pytest

from models.bundle import integer_matmuls
from tests.training.tiny import CONFIG, SPEC

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

from training.export.onnx import quantise, to_onnx  # noqa: E402
from training.network.scentformer import build_network  # noqa: E402

torch.set_num_threads(1)


def test_rows_beyond_the_mask_have_no_effect() -> None:
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
