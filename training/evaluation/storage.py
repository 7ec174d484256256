"""training/: files of experiments: arrays that a later run may read again, and JSON reports.

numpy and the standard library only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

CROSSVAL_REPORT, SESSIONS_REPORT = "crossval.json", "sessions.json"
"""Reports of `crossval` and of `crossval --sessions` in a run folder."""

_IDENTITY = "identity"


def save_arrays(path: Path, arrays: Mapping[str, ArrayLike], identity: str = "") -> None:
    """Write arrays to one .npz, whole or not at all.

    `identity` is that of the inputs they follow from; entries that are None are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    stored = {name: np.asarray(values) for name, values in arrays.items() if values is not None}
    np.savez_compressed(partial, **{_IDENTITY: np.array(identity)}, **stored)  # type: ignore[arg-type]  # stub wants a bool
    partial.replace(path)


def load_arrays(path: Path, identity: str | None = None) -> dict[str, NDArray[Any]] | None:
    """Read the arrays of `save_arrays`; None without a file or with the result of something else.

    `identity` None accepts any.
    """
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if identity is not None and str(stored.get(_IDENTITY)) != identity:
            return None
        return {name: stored[name] for name in stored.files if name != _IDENTITY}


def write_json(path: Path, report: Mapping[str, Any]) -> Path:
    """Write a report to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
