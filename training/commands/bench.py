"""training/: `scent-train bench`: time torch, ONNX float32 and int8 on one architecture."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from training.commands._shared import config_path
from training.config import load_config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from hardware.command_line import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "bench",
        help="time torch, float32 and int8 on one architecture",
        description="Time one window through the network of a configuration (with random "
        "weights: time does not depend on them) in torch, ONNX Runtime float32 and int8, each on "
        "one thread, interleaved so that a noisy machine disturbs all three alike.",
        epilog="Example: scent-train bench --config substances-50",
    )
    parser.add_argument("--config", default="substances-50", metavar="NAME|FILE")
    parser.add_argument("--labels", type=int, default=50, help="outputs of the head")
    parser.add_argument("--runs", type=int, default=200, help="timed windows each")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time the three and print p50 and p99 in milliseconds."""
    import torch  # noqa: PLC0415

    from training.network import build_network  # noqa: PLC0415
    from training.onnx_export import quantise, to_onnx  # noqa: PLC0415

    config = load_config(config_path(args.config))
    spec = config.preprocessing
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)
    network = build_network(
        config.task,
        config.network,
        window=spec.window,
        n_features=spec.n_features,
        n_lags=len(spec.lags),
        n_labels=args.labels,
    ).eval()
    model = to_onnx(network, spec)
    small = quantise(model)
    x = np.random.default_rng(0).standard_normal((1, spec.window, spec.n_features), np.float32)
    mask = np.ones((1, spec.window), dtype=np.float32)
    tensors = torch.from_numpy(x), torch.from_numpy(mask)

    def in_torch() -> None:
        with torch.inference_mode():
            network(*tensors)

    runners = {
        "torch_fp32": in_torch,
        "fp32": _runner(model, x, mask),
        "int8": _runner(small, x, mask),
    }
    result = {
        "model": config.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "mb": {"fp32": round(len(model) / 1e6, 2), "int8": round(len(small) / 1e6, 2)},
        "inference_ms": _time(runners, args.runs),
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{config.name}: {result['parameters']:,} parameters, one window, one thread")
    for name, row in result["inference_ms"].items():  # type: ignore[attr-defined]
        print(f"  {name:<11} p50 {row['p50']:7.3f} ms   p99 {row['p99']:7.3f} ms")
    return 0


def _runner(model: bytes, x: np.ndarray, mask: np.ndarray) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x, "mask": mask}) and None


def _time(runners: dict[str, Callable[[], None]], runs: int) -> dict[str, dict[str, float]]:
    durations: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(runs + 10):
        for name, call in runners.items():
            started_s = time.perf_counter()
            call()
            if number >= 10:  # noqa: PLR2004 - warm-up
                durations[name].append((time.perf_counter() - started_s) * 1e3)
    return {
        name: {
            "p50": round(statistics.median(values), 3),
            "p99": round(float(np.quantile(values, 0.99)), 3),
        }
        for name, values in durations.items()
    }
