"""training/: the outputs of a cross-validation's networks for held-out recordings, in one file.

numpy only. The decision constants, the report and the model card are made from this file
without running a network again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import ScentdError
from training.evaluation.network_outputs import WindowOutputs
from training.evaluation.storage import load_arrays, save_arrays
from training.evaluation.streaming import Streams, concatenate_streams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HELD_OUT = "held_out.npz"


class HeldOutError(ScentdError):
    """The held-out predictions are missing or were written by another scentd."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Outputs for held-out recordings.

    Attributes
    ----------
    names: of the recordings.
    groups: per recording, the group that must stay together.
    fold: int[recordings], the fold that held each out.
    target: float32[recordings, labels].
    outputs: for the protocol's windows; `owner` counts these recordings.
    streams: of the same recordings (substances), None for mixtures.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    fold: NDArray[np.int64]
    target: NDArray[np.float32]
    outputs: WindowOutputs
    streams: Streams | None = None

    @property
    def window_target(self) -> NDArray[np.float32]:
        """float32[windows, labels]."""
        return self.target[self.outputs.owner]

    def subset(self, chosen: NDArray[np.bool_]) -> HeldOut:
        """Return the outputs for the recordings where `chosen` bool[recordings] is true."""
        windows = chosen[self.outputs.owner]
        number = np.cumsum(chosen) - 1
        arrays = {name: values[windows] for name, values in self.outputs.to_arrays().items()}
        arrays["owner"] = number[arrays["owner"]]
        return HeldOut(
            tuple(np.array(self.names)[chosen].tolist()),
            tuple(np.array(self.groups)[chosen].tolist()),
            self.fold[chosen],
            self.target[chosen],
            WindowOutputs(**arrays),
            self.streams.select(chosen) if self.streams else None,
        )

    def save(self, path: Path) -> None:
        """Write everything to one file, whole or not at all."""
        arrays: dict[str, Any] = {
            name: getattr(self, name) for name in ("names", "groups", "fold", "target")
        }
        arrays |= self.outputs.to_arrays()
        save_arrays(path, arrays | (self.streams.to_arrays() if self.streams else {}))


def read_held_out(path: Path) -> HeldOut:
    """Read the file of `HeldOut.save`.

    Raises
    ------
    HeldOutError: there is no such file, or it lacks an array.
    """
    try:
        arrays = load_arrays(path)
        if arrays is None:
            raise HeldOutError(
                f"Expected the held-out predictions of a cross-validation in {path}, which does "
                "not exist. Run `scent-train crossval` first."
            )
        target = arrays["target"]
        return HeldOut(
            tuple(arrays["names"].tolist()),
            tuple(arrays["groups"].tolist()),
            arrays["fold"],
            target,
            WindowOutputs.from_arrays(arrays),
            Streams.from_arrays(arrays, target.argmax(axis=1))
            if "stream_logits" in arrays
            else None,
        )
    except (KeyError, ValueError, OSError) as error:
        raise HeldOutError(
            f"{path} is damaged or was written by another version ({error}). Run `scent-train "
            "crossval` again: finished folds are not trained again."
        ) from error


def concatenate_held_out(parts: Sequence[HeldOut]) -> HeldOut:
    """Put the folds together."""
    starts = np.cumsum([0, *(len(part.names) for part in parts[:-1])])
    arrays = [part.outputs.to_arrays() for part in parts]
    outputs = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    outputs["owner"] = np.concatenate(
        [part.outputs.owner + start for part, start in zip(parts, starts, strict=True)]
    )
    streams = [part.streams for part in parts if part.streams is not None]
    return HeldOut(
        tuple(name for part in parts for name in part.names),
        tuple(group for part in parts for group in part.groups),
        np.concatenate([part.fold for part in parts]),
        np.concatenate([part.target for part in parts]),
        WindowOutputs(**outputs),
        concatenate_streams(streams) if streams else None,
    )
