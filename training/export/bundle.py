"""training/: from a fitted network to a bundle: ONNX files, manifest, model card.

The last step of `export` and of every fold of `crossval`, so that what is
scored is just what would ship. Knows torch through the exporter only.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

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
from training.config import TrainConfig, config_as_dict
from training.evaluation.scoring import cut_windows
from training.export.onnx import ExportError, quantise, to_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec
    from training.data.dataset import Dataset
    from training.fit import TrainedNetwork

TORCH_TOLERANCE = 1e-4
"""Largest difference of an output between torch and ONNX float32: other summation orders,
nothing else. Between float32 and int8 it is the configuration's `tolerance`."""
PARITY_WINDOWS = 200
NOTES = "notes"
"""The entry of a manifest's metrics that is no table: sentences for the card."""
INTERVALS = "intervals"
"""The entry with the 95 % intervals of the others, by protocol and score."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a bundle says of how it came to be."""

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
    small = quantise(
        model,
        config.quantisation,
        cut_windows(data.samples, fitted.spec, config.max_samples)
        if config.quantisation == "static"
        else None,
    )
    parity = check_parity(
        fitted, data, model, small, decision.temperature, tolerance=config.tolerance
    )
    manifest = Manifest(
        name=config.name,
        version=config.version,
        task=config.task,
        labels=data.labels,
        preprocessing=fitted.spec,
        network=Network(
            architecture="ScentFormer",
            embedding=config.network.d_model,
            parameters=sum(p.numel() for p in fitted.network.parameters()),
            dims=config_as_dict(config.network),
        ),
        requirements=Requirements(config.required_channels, config.min_channels),
        decision=decision,
        descriptors=_descriptors(fitted),
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
            "versions": _versions(),
            "settings": {
                "augment": config_as_dict(config.augment),
                "optimiser": config_as_dict(config.optimiser),
                **(
                    {"cross_modal": config_as_dict(config.cross_modal)}
                    if config.cross_modal
                    else {}
                ),
            },
        },
    )
    hashes = "".join(f"{sample.sha256}  {sample.name}\n" for sample in data.samples)
    files = {
        INT8_MODEL: small,
        FP32_MODEL: model,
        TRAINING_FILES: hashes.encode(),
        CARD: model_card(config, manifest).encode(),
    }
    if provenance.arrays:
        files[ARRAYS] = _npz(provenance.arrays)
    return write_bundle(folder, manifest, files)


def check_parity(
    fitted: TrainedNetwork,
    data: Dataset,
    model: bytes,
    small: bytes,
    temperature: float,
    *,
    tolerance: float,
) -> dict[str, float]:
    """Compare torch, float32 and int8 over real windows; return the largest differences.

    Raises
    ------
    ExportError: one of them is over its tolerance.
    """
    import torch  # noqa: PLC0415 - keeps `--help` of the commands quick

    windows = cut_windows(data.samples[:: max(1, len(data.samples) // 40)], fitted.spec)
    chosen = np.linspace(0, len(windows.x) - 1, min(PARITY_WINDOWS, len(windows.x))).astype(int)
    worst = {"torch_fp32": 0.0, "fp32_int8": 0.0}
    sessions = [_session(model), _session(small)]
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


def model_card(config: TrainConfig, manifest: Manifest) -> str:
    """Return the card, written from the manifest's own figures."""
    spec, network, training = manifest.preprocessing, manifest.network, manifest.training
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        config.description,
        "",
        f"- Task: {manifest.task}, {len(manifest.labels)} labels: {', '.join(manifest.labels)}.",
        f"- Inputs: {', '.join(spec.channels)} at {spec.rate_hz:g} Hz; {spec.linearise} readings, "
        f"differences over {', '.join(map(str, spec.lags))} samples, windows of {spec.window}. "
        "No absolute value, no environment channel, no timestamp.",
        f"- Network: {network.architecture}, {network.parameters:,} parameters, "
        + ", ".join(f"{key} {value}" for key, value in network.dims.items())
        + ".",
        f"- Trained by `{training['command']}` with seed {training['seed']} on "
        f"{training['recordings']} recordings (data hash {training['data_sha256'][:16]}), "
        f"{training['date']}; every file's hash is in {TRAINING_FILES}.",
        "",
        "## Figures",
        "",
        "| protocol | score | value | 95 % |",
        "|---|---|---|---|",
    ]
    spread = manifest.metrics.get(INTERVALS, {})
    lines += [
        f"| {protocol} | {name} | {value:.4g} | {_span(spread.get(protocol, {}).get(name))} |"
        for protocol, scores in manifest.metrics.items()
        if protocol not in (NOTES, INTERVALS)
        for name, value in scores.items()
        if isinstance(value, int | float)
    ]
    lines += ["", *(f"- {note}" for note in manifest.metrics.get(NOTES, [])), ""]
    return "\n".join(lines)


def _span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _shares(output: NDArray[np.float32], task: str, temperature: float) -> NDArray[np.float64]:
    if task == "mixture":
        return output.astype(np.float64)
    scaled = np.exp((output - output.max()) / temperature)
    shares: NDArray[np.float64] = scaled / scaled.sum()
    return shares


def _descriptors(fitted: TrainedNetwork) -> tuple[str, ...]:
    table = fitted.tables.descriptors
    return table.names if table and "descriptors" in fitted.network.output_names else ()


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _npz(arrays: dict[str, NDArray[np.floating]]) -> bytes:
    import io  # noqa: PLC0415

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # stub wants a bool
    return buffer.getvalue()


def _versions() -> dict[str, str]:
    import torch  # noqa: PLC0415

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
