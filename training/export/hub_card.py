"""training/: what the Hugging Face hub shows of a bundle: the front matter of its card.

Pure; adds no figure that the manifest, and so the card, does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware.hub import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.manifest import Manifest

TAGS = ("electronic-nose", "gas-sensor", "olfaction", "onnx")

PIPELINES = {"substance": "tabular-classification", "mixture": "tabular-regression"}
"""The hub has no task for smells; these two are those of tables of numbers."""

METRICS = {
    "top1": ("accuracy", "windows, likeliest label right"),
    "recording_top1": ("accuracy", "recordings, likeliest label right"),
    "macro_f1": ("f1", "windows, macro F1"),
    "presence_f1": ("f1", "windows, F1 of the components' presence"),
    "strong_balanced": ("balanced_accuracy", "strong component there or not"),
    "mae": ("mae", "windows, mean absolute error of the proportions"),
}
"""Scores of a manifest that the hub has a metric for: its name there, and what it is of."""

PROTOCOLS = {"sessions": "whole sessions held out", "crossval": "recordings held out"}
"""The protocols that judge what a model never saw; the others are of parts of it."""


def front_matter(
    manifest: Manifest, licence: str | None, datasets: Sequence[str]
) -> dict[str, Any]:
    """Return the front matter of a bundle's card.

    Parameters
    ----------
    manifest: of the bundle.
    licence: its identifier on the hub ("mit"); None for none.
    datasets: names on the hub of the data sets that the model was trained on.
    """
    results = list(_results(manifest, datasets))
    held = dict.fromkeys(metric["type"] for result in results for metric in result["metrics"])
    content: dict[str, Any] = {
        "license": licence,
        "library_name": LIBRARY,
        "pipeline_tag": PIPELINES[manifest.task],
        "tags": [*TAGS, LIBRARY],
        "datasets": list(datasets),
        "metrics": list(held),
    }
    if results:
        content["model-index"] = [{"name": manifest.name, "results": results}]
    return {key: value for key, value in content.items() if value}


def _results(manifest: Manifest, datasets: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the figures of every protocol, as the hub's `model-index` has them."""
    for protocol, words in PROTOCOLS.items():
        scores = manifest.metrics.get(protocol, {})
        metrics = [
            {"type": kind, "name": name, "value": round(float(scores[score]), 4)}
            for score, (kind, name) in METRICS.items()
            if isinstance(scores.get(score), int | float)
        ]
        if metrics:
            yield {
                "task": {"type": PIPELINES[manifest.task]},
                "dataset": {
                    "name": f"{words} (`{protocol}` in the card)",
                    "type": datasets[0] if datasets else "unpublished",
                },
                "metrics": metrics,
            }
