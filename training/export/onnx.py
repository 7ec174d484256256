"""training/: a trained network as ONNX, in float32 and with integer matrix products.

The graph's time axis is the window (the caller pads and masks shorter windows), its batch axis is
free. Knows torch and ONNX, nothing of recordings or manifests.
"""

from __future__ import annotations

import io
import logging
import math
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from hardware.errors import ScentdError
from models.bundle import integer_matmuls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.manifest import Quantisation
    from models.preprocess import PreprocessSpec
    from training.data.protocol_windows import Windows
    from training.network.mixture_product import MixtureProductNet
    from training.network.product import ProductNet
    from training.network.scentformer import ScentFormer

OPSET = 18
CALIBRATION_WINDOWS = 200
"""About one of every recording of the base data: enough for ranges."""
_CALIBRATION_BATCH = 10


class ExportError(ScentdError):
    """The exported network differs from what was trained, or was not quantised."""


def to_onnx(network: ScentFormer | MixtureProductNet | ProductNet, spec: PreprocessSpec) -> bytes:
    """Return the network as a float32 ONNX model.

    Parameters
    ----------
    network: on the CPU.
    spec: gives the window and the number of features.
    """
    network.eval()
    # Two windows: a batch of one would become a constant of the graph.
    x = torch.zeros(2, spec.window, spec.n_features)
    mask = torch.ones(2, spec.window)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused path has no ONNX operator
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The warnings are about the exporter's own deprecations, not about the graph.
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


def quantise(
    model: bytes, kind: Quantisation = "dynamic", calibration: Windows | None = None
) -> bytes:
    """Return the model with its weights in int8 and its matrix products in integers.

    Products of two activations (attention) stay in float32: they are few, and quantising both
    sides costs the most accuracy.

    Parameters
    ----------
    model: float32 ONNX.
    kind: "dynamic" scales each activation by its own range when it runs; "static" by its range
        over the calibration windows, so that an activation beyond it is clipped.
    calibration: windows of training recordings, never of held-out ones; only "static" needs them.

    Raises
    ------
    ExportError: no matrix product became an integer one, or "static" has nothing to calibrate on.
    """
    if kind == "static" and (calibration is None or not len(calibration.x)):
        raise ExportError(
            "Static quantisation expects windows of training recordings to calibrate on, got none. "
            "Give some, or choose quantisation: dynamic."
        )
    with tempfile.TemporaryDirectory() as folder, _silent():
        source, ready, small = (Path(folder) / name for name in ("fp32", "ready", "int8"))
        source.write_bytes(model)
        # Stale shape annotations of the exporter make the quantiser fail.
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        common: dict[str, Any] = {
            "weight_type": QuantType.QInt8,
            "per_channel": True,
            "op_types_to_quantize": ["MatMul", "Gemm"],
            "extra_options": {"MatMulConstBOnly": True},
        }
        if calibration is None or kind == "dynamic":
            quantize_dynamic(str(ready), str(small), **common)
        else:
            quantize_static(
                str(ready),
                str(small),
                _CalibrationReader(calibration),
                # This format has integer operators in the file itself. In the other (QDQ) only
                # the session fuses them, so that the file would not show that it is quantised; on
                # real windows both gave the same answers and times.
                quant_format=QuantFormat.QOperator,
                # Activations in uint8: with int8 there are no fast kernels on x86 (measured: 1.5
                # against 0.6 ms a window).
                activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
                **common,
            )
        quantised = small.read_bytes()
    onnx.checker.check_model(onnx.load_from_string(quantised))
    if not integer_matmuls(quantised):
        raise ExportError(
            "Quantising left no integer matrix product in the graph, so it was silently skipped: "
            "the exporter's names or operators have changed."
        )
    return quantised


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # it has no stubs
    """Gives evenly spread calibration windows, a few at a time."""

    def __init__(self, windows: Windows) -> None:
        count = min(CALIBRATION_WINDOWS, len(windows.x))
        chosen = np.linspace(0, len(windows.x) - 1, count).astype(int)
        self._batches = iter(np.array_split(chosen, math.ceil(count / _CALIBRATION_BATCH)))
        self._windows = windows

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        rows = next(self._batches, None)
        return (
            None if rows is None else {"x": self._windows.x[rows], "mask": self._windows.mask[rows]}
        )


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the quantiser's advice to run its pre-processing, which has just run."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
