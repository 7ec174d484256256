"""training/: a trained network as ONNX, in float32 and with integer matrix products.

The graph's time axis is the window (shorter windows are padded and masked by
whoever runs it), its batch axis is free. Knows torch and ONNX, nothing of data
or manifests.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from hardware.errors import ScentdError
from models.bundle import integer_matmuls

if TYPE_CHECKING:
    from models.preprocess import PreprocessSpec
    from training.network import Network

OPSET = 18


class ExportError(ScentdError):
    """The exported network is not what it has to be."""


def to_onnx(network: Network, spec: PreprocessSpec) -> bytes:
    """Return the network as a float32 ONNX model.

    Parameters
    ----------
    network: on the CPU.
    spec: gives the window and the number of features.
    """
    network.eval()
    # Two windows: a batch of one would be burnt into the graph.
    x = torch.zeros(2, spec.window, spec.n_features)
    mask = torch.ones(2, spec.window)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused path has no ONNX operator
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The exporter tells of its own deprecations, not of the graph.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (x, mask),
                buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes a stream
                input_names=["x", "mask"],
                output_names=list(network.output_names),
                dynamic_axes={name: {0: "batch"} for name in ("x", "mask", *network.output_names)},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return buffer.getvalue()


def quantise(model: bytes) -> bytes:
    """Return the model with its weights in int8 and its matrix products in integers.

    Raises
    ------
    ExportError: no matrix product became an integer one.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, ready, small = (Path(folder) / name for name in ("fp32", "ready", "int8"))
        source.write_bytes(model)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # the quantiser recommends its own pre-processing, done here
        try:
            # Stale shape annotations of the exporter make the quantiser fail.
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            quantize_dynamic(
                str(ready),
                str(small),
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
                extra_options={"MatMulConstBOnly": True},
            )
        finally:
            root.setLevel(level)
        quantised = small.read_bytes()
    onnx.checker.check_model(onnx.load_from_string(quantised))
    if not integer_matmuls(quantised):
        raise ExportError(
            "Quantising left no integer matrix product in the graph, so it was silently skipped: "
            "the exporter's names or operators have changed."
        )
    return quantised
