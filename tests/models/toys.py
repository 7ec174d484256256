"""Small real models: ONNX graphs whose outputs can be computed by hand."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from models.decision_spec import DecisionSpec
from models.embedding_space import EmbeddingSpace
from models.manifest import Manifest, Network, PrecisionChoice, Requirements
from models.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBEDDING = 8
WINDOW = 30
LABELS = ("lemon", "mint", "garlic")
CHANNELS = ("NO2", "C2H5OH", "VOC", "CO")
DESCRIPTORS = ("sour", "cool", "sharp", "smoky", "sweet", "green", "nutty", "woody")

Task = Literal["substance", "mixture"]


def pooling_network(task: Task, features: int, *, describes: bool = False) -> bytes:
    """Masked mean over time, then one matrix: label i corresponds to feature i.

    The descriptors, where there are any, are the embedding through a sigmoid.
    """
    weights = np.zeros((features, EMBEDDING), dtype=np.float32)
    weights[:, :features] = np.eye(features, EMBEDDING, dtype=np.float32)[:, :features]
    head = 4.0 * np.eye(EMBEDDING, len(LABELS), dtype=np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["x", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),
    ]
    outputs = {"embedding": EMBEDDING, "logits": len(LABELS)}
    if task == "mixture":
        nodes.append(helper.make_node("Softmax", ["logits"], ["proportions"], axis=-1))
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["presence"]))
        outputs = {"embedding": EMBEDDING, "proportions": len(LABELS), "presence": len(LABELS)}
    if describes:
        nodes.append(helper.make_node("Sigmoid", ["embedding"], ["descriptors"]))
        outputs["descriptors"] = EMBEDDING
    graph = helper.make_graph(
        nodes,
        "pooling",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WINDOW, features]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", WINDOW]),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
            for name, width in outputs.items()
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(head, "head"),
            numpy_helper.from_array(np.array([1]), "one"),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def quantised(fp32: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(fp32)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return target.read_bytes()


def toy_manifest(task: Task = "substance", **changes: object) -> Manifest:
    """Return a manifest over the four Grove channels, one lag of 5, windows of 30 rows."""
    rate_hz = changes.pop("rate_hz", 1.0)
    values: dict[str, object] = {
        "name": f"toy-{task}",
        "version": "1.2.3",
        "task": task,
        "labels": LABELS,
        "preprocessing": PreprocessSpec(
            channels=CHANNELS,
            rate_hz=rate_hz,  # type: ignore[arg-type]
            lags=(5,),
            first_step=5,
            window=WINDOW,
            stride=15,
            min_steps=10,
            scale=(0.05,) * len(CHANNELS),
        ),
        "network": Network(architecture="pooling", embedding=EMBEDDING, parameters=56),
        "requirements": Requirements(required_channels=("VOC",), min_channels=3),
        "decision": DecisionSpec(
            presence_thresholds=(0.7,) * len(LABELS) if task == "mixture" else ()
        ),
        "runtime": PrecisionChoice(precision="int8"),
        "metrics": {"crossval": {"top1": 0.5}},
        "training": {"seed": 7},
    }
    return Manifest(**(values | changes))  # type: ignore[arg-type]


def toy_space() -> EmbeddingSpace:
    """Return the space in which label i lies along feature i; whitening changes nothing."""
    means = 2.0 * np.eye(len(LABELS), EMBEDDING)
    return EmbeddingSpace(LABELS, np.zeros(EMBEDDING), np.eye(EMBEDDING), means)


def toy_arrays(space: EmbeddingSpace, **more: NDArray[np.float32]) -> bytes:
    """Return a bundle's arrays.npz with the space, and `more`, in it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **space.to_arrays(), **more)  # type: ignore[arg-type]  # wants a bool
    return buffer.getvalue()


def toy_files(task: Task = "substance", *, describes: bool = False) -> dict[str, bytes]:
    fp32 = pooling_network(task, len(CHANNELS), describes=describes)
    return {
        "model.fp32.onnx": fp32,
        "model.onnx": quantised(fp32),
        "README.md": b"# A toy\n",
        "training_files.txt": b"00ff  lemon.csv\n11ee  mint.csv\n",
    }


def masked_mean(x: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the toy network's mean over time, computed here."""
    mean: NDArray[np.float32] = (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean


NOVELTY_SPEC = DecisionSpec(
    novelty="cosine", unknown_above=0.5, unknown_after=0.5, set_threshold=0.2
)
"""Constants of a model with a novelty score."""
