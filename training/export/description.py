"""training/: the sentences that a bundle begins with. Without torch.

A shipped configuration describes the labels that it was written for; the same recipe with other
recordings makes another model, which must not borrow those sentences.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.counting import counted
from models.bundle import bundle_folder, shipped_bundles
from models.manifest import read_manifest
from training.config import load_train_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.config import TrainConfig

MOST_NAMED = 12
"""Labels that a description names at most."""


def describe_bundle(config: TrainConfig, labels: Sequence[str]) -> str:
    """Return the configuration's description, or another one where it describes other labels."""
    for name in shipped_bundles():
        if config.description == _description_of(name) and not _has_labels(name, labels):
            more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
            return (
                f"{counted(len(labels), 'label')}: {', '.join(labels[:MOST_NAMED])}{more}; trained "
                f"by the recipe of {name}."
            )
    return config.description


def borrowed_name(config: TrainConfig, labels: Sequence[str]) -> str | None:
    """Return a warning where the bundle has the name of a shipped one with other labels."""
    if config.name not in shipped_bundles() or _has_labels(config.name, labels):
        return None
    return (
        f"This bundle is called {config.name} as the shipped model is, which recognises other "
        "labels: a rig that installs it runs it in the place of that model. `scent-train init` "
        "writes a configuration with a name of its own."
    )


def _has_labels(shipped: str, labels: Sequence[str]) -> bool:
    return tuple(read_manifest(bundle_folder(shipped)).labels) == tuple(labels)


def _description_of(shipped: str) -> str:
    path = Path(str(resources.files("training.configs"))) / f"{shipped}.yaml"
    return load_train_config(path).description if path.is_file() else ""
