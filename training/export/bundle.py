"""training/: from a trained network to a bundle: ONNX files, manifest, model card.

The last step of `export` and of every fold of `crossval`, so that the scored network is the one
that would ship. Torch enters through the exporter only.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from models.bundle import open_session
from models.manifest import (
    ARRAYS,
    CARD,
    FP32_MODEL,
    INT8_MODEL,
    TRAINING_FILES,
    Manifest,
    Network,
    PrecisionChoice,
    Requirements,
    write_bundle,
)
from models.softmax import log_softmax
from training.config import TrainConfig, config_as_dict
from training.data.protocol_windows import cut_windows
from training.export.board import arrays_file, measure_board
from training.export.description import describe_bundle
from training.export.model_card import render_model_card
from training.export.onnx import ExportError, quantise, to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec
    from training.data.dataset import Dataset
    from training.fit import TrainedNetwork

TORCH_TOLERANCE = 1e-4
"""Largest difference of an output between torch and ONNX float32, from another order of summation.
Between float32 and int8 it is the configuration's `tolerance`."""
PARITY_WINDOWS = 200


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a bundle records of its origin, with the figures and arrays measured on it."""

    command: str
    config_file: str
    metrics: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[np.floating]] = field(default_factory=dict)


def export_bundle(
    folder: Path,
    config: TrainConfig,
    fitted: TrainedNetwork,
    data: Dataset,
    decision: DecisionSpec,
    provenance: Provenance,
) -> Manifest:
    """Quantise, verify and write the bundle of a fitted network.

    Raises
    ------
    ExportError: torch, float32 and int8 do not agree within the tolerances.
    """
    model = to_onnx(fitted.network, fitted.spec)
    windows = None
    if config.quantisation == "static":
        windows = cut_windows(data.samples, fitted.spec, config.max_samples)
    small = quantise(model, config.quantisation, windows)
    parity = _check_parity(fitted, data, model, small, decision.temperature, config.tolerance)
    settings = {
        name: config_as_dict(part)
        for name in (
            ("experts", "levels", "optimiser")
            if config.experts
            else ("augment", "optimiser", "cross_modal", "mixing")
        )
        if (part := getattr(config, name))
    }
    described = "descriptors" in fitted.network.output_names and fitted.tables.descriptors
    board, levels = measure_board(data, fitted.spec) or (None, {})
    manifest = Manifest(
        name=config.name,
        version=config.version,
        task=config.task,
        labels=data.labels,
        preprocessing=fitted.spec,
        network=Network(
            architecture="ScentFormer",
            embedding=_embedding_width(config),
            parameters=sum(p.numel() for p in fitted.network.parameters()),
            dims=_dims(config),
        ),
        requirements=Requirements(config.required_channels, config.min_channels),
        decision=decision,
        descriptors=described.names if described else (),
        board=board,
        runtime=PrecisionChoice(tolerance=config.tolerance, quantisation=config.quantisation),
        metrics={**provenance.metrics, "parity": parity},
        training={
            "command": provenance.command,
            "config": provenance.config_file,
            "seed": config.seed,
            "data_sha256": data.sha256,
            "recordings": len(data.samples),
            "oddities": data.oddities,
            "date": datetime.now(UTC).date().isoformat(),
            "final_loss": round(fitted.loss, 4),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
            },
            "settings": settings,
        },
    )
    # Hash, path and, where it is known, session, the last after a tab.
    hashes = "".join(
        f"{sample.sha256}  {sample.name}" + f"\t{sample.session}" * bool(sample.session) + "\n"
        for sample in data.samples
    )
    files = {
        INT8_MODEL: small,
        FP32_MODEL: model,
        TRAINING_FILES: hashes.encode(),
        CARD: render_model_card(describe_bundle(config, data.labels), manifest).encode(),
    }
    if arrays := provenance.arrays | levels:
        files[ARRAYS] = arrays_file(arrays)
    return write_bundle(folder, manifest, files)


def _embedding_width(config: TrainConfig) -> int:
    """Return the width of the network's embedding: those of the experts side by side."""
    networks = [expert.network for expert in config.experts] or [config.network]
    return sum(network.d_model for network in networks)


def _dims(config: TrainConfig) -> dict[str, Any]:
    """Return what the trainer needs to build the network again."""
    if not config.experts:
        return config_as_dict(config.network)
    return {
        f"expert_{number}": {
            "channels": list(expert.channels),
            "lags": list(expert.lags),
            "weight": expert.weight,
            **config_as_dict(expert.network),
        }
        for number, expert in enumerate(config.experts)
    }


def _check_parity(
    fitted: TrainedNetwork,
    data: Dataset,
    model: bytes,
    small: bytes,
    temperature: float,
    tolerance: float,
) -> dict[str, float]:
    """Compare torch, float32 and int8 over real windows; return the largest differences.

    Raises
    ------
    ExportError: one of them exceeds its tolerance.
    """
    windows = cut_windows(data.samples[:: max(1, len(data.samples) // 40)], fitted.spec)
    chosen = np.linspace(0, len(windows.x) - 1, min(PARITY_WINDOWS, len(windows.x))).astype(int)
    worst = {"torch_fp32": 0.0, "fp32_int8": 0.0}
    sessions = [open_session(model), open_session(small)]
    for row in chosen:
        x, mask = windows.x[row : row + 1], windows.mask[row : row + 1]
        with torch.no_grad():
            reference = fitted.network(torch.from_numpy(x), torch.from_numpy(mask))[0].numpy()
        full, integer = (session.run(None, {"x": x, "mask": mask})[0] for session in sessions)
        worst["torch_fp32"] = max(worst["torch_fp32"], float(np.abs(reference - full).max()))
        shares = [_shares(output, data.task, temperature) for output in (full, integer)]
        worst["fp32_int8"] = max(worst["fp32_int8"], float(np.abs(shares[0] - shares[1]).max()))
    for pair, accepted in (("torch_fp32", TORCH_TOLERANCE), ("fp32_int8", tolerance)):
        if worst[pair] > accepted:
            raise ExportError(
                f"{pair.replace('_', ' and ')} should agree within {accepted}, the largest "
                f"difference over {len(chosen)} windows is {worst[pair]:.4f}. Nothing was written."
            )
    return {pair: round(value, 6) for pair, value in worst.items()}


def _shares(output: NDArray[np.float32], task: str, temperature: float) -> NDArray[np.float64]:
    if task == "mixture":
        return output.astype(np.float64)
    return np.exp(log_softmax(output, temperature))
