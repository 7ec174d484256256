"""training/: what comparisons leave on disk: answers that another run may take up, and reports.

Files only; numpy. What an answer or a report says is its owner's business.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray


def keep(path: Path, key: str, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays to one .npz, whole or not at all; `key` tells what they are answers to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    stored = {name: np.asarray(values) for name, values in arrays.items()}
    np.savez_compressed(partial, key=np.array(key), **stored)  # type: ignore[arg-type]  # stub wants a bool
    partial.replace(path)


def kept(path: Path, key: str | None) -> dict[str, NDArray[Any]] | None:
    """Read what `keep` wrote; None where there is nothing, or answers to something else.

    `key` None takes whatever is there.
    """
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if key is not None and str(stored["key"]) != key:
            return None
        return {name: stored[name] for name in stored.files if name != "key"}


def write_json(path: Path, report: Mapping[str, Any]) -> Path:
    """Write a report to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
