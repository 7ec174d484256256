"""training/: `scent-train bench`: what int8 gains in time and costs in accuracy."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import UsageError
from training.commands._shared import add_option, config_path, load_training
from training.config import load_train_config
from training.data.dataset import N_FOLDS

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Time one window through the network of a configuration (with random "
        "weights: time does not depend on them) in torch, ONNX Runtime float32 and int8, each on "
        "one thread, interleaved so that a noisy machine disturbs all three alike. With "
        "--accuracy, quantise the networks of a finished cross-validation both ways and score "
        "float32, dynamic and static int8 on the recordings that each fold held out."
    )
    parser.epilog = (
        "Examples: scent-train bench --config substances-50\n"
        "          scent-train bench --accuracy --config substances-50 --data data/smellnet/base"
    )
    add_option(parser, "--config", default="substances-50")
    parser.add_argument("--labels", type=int, default=50, help="outputs of the head (times only)")
    parser.add_argument("--runs", type=int, default=200, help="timed windows each")
    parser.add_argument("--accuracy", action="store_true", help="score a cross-validation's folds")
    add_option(parser, "--data", required=False, help="--accuracy: the recordings")
    add_option(
        parser, "--run", help="--accuracy: folder of the cross-validation (default: runs/NAME)"
    )
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time or score; with --accuracy fail if the configured int8 loses more than it may."""
    if not args.accuracy:
        return _times(args)
    if args.data is None:
        raise UsageError("--accuracy scores held-out recordings: name their folder with --data.")
    return _accuracy(args)


def _accuracy(args: argparse.Namespace) -> int:
    from training.data.dataset import folds_of  # noqa: PLC0415
    from training.export import precision  # noqa: PLC0415

    config, data, folder = load_training(args)
    compared = precision.compare_precisions(
        folder,
        data,
        folds_of(data),
        range(N_FOLDS),
        max_samples=config.max_samples,
        timed=args.runs,
        on_fold=lambda fold: print(f"Quantising and scoring fold {fold}", file=sys.stderr),
    )
    rows = precision.precision_report(compared, config.task)
    chosen = precision.choose_precision(rows)
    result = {"model": config.name, "kinds": rows, "choice": chosen, "set": config.quantisation}
    headline = precision.HEADLINE[config.task]
    fine = rows[config.quantisation]["loss"] <= precision.LARGEST_LOSS
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{config.name}, recordings held out by {N_FOLDS} folds, one thread:")
        for line in _table(rows, headline):
            print(f"  {line}")
        print(
            f"Fastest int8 that loses at most {precision.LARGEST_LOSS * 100:g} points: {chosen}; "
            f"the configuration says quantisation: {config.quantisation}."
        )
    if not fine:
        print(
            f"quantisation: {config.quantisation} loses "
            f"{rows[config.quantisation]['loss'] * 100:.1f} points of {headline}.",
            file=sys.stderr,
        )
    return 0 if fine else 1


def _table(rows: dict[str, dict[str, Any]], headline: str) -> list[str]:
    lines = [f"{'':<8} {headline:>9}  {'lost, points':<22} {'MB':>6} {'p50 ms':>8} {'p99 ms':>8}"]
    for kind, row in rows.items():
        low, high = (100 * bound for bound in row["loss_interval"])
        lost = "" if kind == "fp32" else f"{100 * row['loss']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"{kind:<8} {row[headline]:>9.4f}  {lost:<22} {row['mb']:>6.2f} {row['p50_ms']:>8.3f} "
            f"{row['p99_ms']:>8.3f}"
        )
    return lines


def _times(args: argparse.Namespace) -> int:
    import torch  # noqa: PLC0415

    from models.bundle import open_session  # noqa: PLC0415
    from training.export.onnx import quantise, to_onnx  # noqa: PLC0415
    from training.export.precision import time_interleaved  # noqa: PLC0415
    from training.network.scentformer import build_network  # noqa: PLC0415

    config = load_train_config(config_path(args.config))
    spec = config.preprocessing
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)
    network = build_network(config.task, config.network, spec, args.labels).eval()
    model = to_onnx(network, spec)
    small = quantise(model)
    x = np.random.default_rng(0).standard_normal((1, spec.window, spec.n_features), np.float32)
    mask = np.ones((1, spec.window), dtype=np.float32)
    inputs = {"x": x, "mask": mask}
    tensors = [torch.from_numpy(value) for value in inputs.values()]

    def in_torch() -> None:
        with torch.inference_mode():
            network(*tensors)

    times = time_interleaved(
        {
            "torch_fp32": in_torch,
            "fp32": partial(open_session(model).run, None, inputs),
            "int8": partial(open_session(small).run, None, inputs),
        },
        args.runs,
    )
    result = {
        "model": config.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "mb": {"fp32": round(len(model) / 1e6, 2), "int8": round(len(small) / 1e6, 2)},
        "inference_ms": {name: {"p50": p50, "p99": p99} for name, (p50, p99) in times.items()},
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{config.name}: {result['parameters']:,} parameters, one window, one thread")
    for name, (p50, p99) in times.items():
        print(f"  {name:<11} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms")
    return 0
