"""training/: what the folds' networks said of recordings they had not seen, kept in one file.

numpy only. The decision constants, the report and the model card are made from this file, so
that none of them needs a network to be run, or trained, again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from models.substance_decision import EvidenceShare
from training.evaluation.evaluate import Answers
from training.evaluation.streaming import NOVELTIES, Streams, joined

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HELD_OUT = "held_out.npz"

_ANSWERS = ("embedding", "logits", "proportions", "presence", "descriptors")
_NOVELTY = "stream_novelty_"


class HeldOutError(ScentdError):
    """The held-out answers are missing or were written by another scentd."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Answers on held-out recordings.

    Attributes
    ----------
    names: of the recordings.
    groups: per recording, what it must not be split from.
    fold: int[recordings], the fold that held each out.
    target: float32[recordings, labels].
    answers: on the protocol's windows; `owner` counts these recordings.
    streams: of the same recordings (substances), None for mixtures.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    fold: NDArray[np.int64]
    target: NDArray[np.float32]
    answers: Answers
    streams: Streams | None = None

    @property
    def window_target(self) -> NDArray[np.float32]:
        """float32[windows, labels]."""
        return self.target[self.answers.owner]

    def save(self, path: Path) -> None:
        """Write everything to one file, whole or not at all."""
        arrays: dict[str, NDArray[np.generic]] = {
            "names": np.array(self.names),
            "groups": np.array(self.groups),
            "fold": self.fold,
            "target": self.target,
            "owner": self.answers.owner,
        }
        for name in _ANSWERS:
            values = getattr(self.answers, name)
            if values is not None:
                arrays[name] = values
        if self.streams is not None:
            arrays["stream_logits"] = self.streams.logits
            for name, told in self.streams.novelty.items():
                arrays[_NOVELTY + name] = told
            arrays["stream_ends_s"] = self.streams.ends_s
            arrays["stream_shares"] = np.array(
                [(share.elapsed_s, share.filled, share.fresh) for share in self.streams.shares]
            )
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # stub wants a bool
        partial.replace(path)


def read_held_out(path: Path) -> HeldOut:
    """Read what `HeldOut.save` wrote.

    Raises
    ------
    HeldOutError: there is no such file, or it lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return _from_arrays({name: stored[name] for name in stored.files})
    except FileNotFoundError as error:
        raise HeldOutError(
            f"Expected the held-out answers of a cross-validation in {path}, which does not "
            "exist. Run `scent-train crossval` first."
        ) from error
    except (KeyError, ValueError, OSError) as error:
        raise HeldOutError(
            f"{path} is damaged or was written by another version ({error}). Run `scent-train "
            "crossval` again: finished folds are not trained again."
        ) from error


def together(parts: Sequence[HeldOut]) -> HeldOut:
    """Put the folds together."""
    before = np.cumsum([0, *(len(part.names) for part in parts[:-1])])

    def stacked(name: str) -> NDArray[np.float32] | None:
        values = [getattr(part.answers, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    owner = np.concatenate(
        [part.answers.owner + start for part, start in zip(parts, before, strict=True)]
    )
    embedding = np.concatenate([part.answers.embedding for part in parts])
    streams = [part.streams for part in parts if part.streams is not None]
    return HeldOut(
        tuple(name for part in parts for name in part.names),
        tuple(group for part in parts for group in part.groups),
        np.concatenate([part.fold for part in parts]),
        np.concatenate([part.target for part in parts]),
        Answers(owner, embedding, *(stacked(name) for name in _ANSWERS[1:])),
        joined(streams) if streams else None,
    )


def _from_arrays(arrays: dict[str, NDArray[np.generic]]) -> HeldOut:
    target = arrays["target"].astype(np.float32)
    optional = {
        name: arrays[name].astype(np.float32) if name in arrays else None for name in _ANSWERS[1:]
    }
    streams = None
    if "stream_logits" in arrays:
        shares = tuple(
            EvidenceShare(*row) for row in arrays["stream_shares"].astype(float).tolist()
        )
        streams = Streams(
            arrays["stream_logits"].astype(np.float32),
            shares,
            arrays["stream_ends_s"].astype(np.float64),
            target.argmax(axis=1),
            novelty={
                name: arrays[_NOVELTY + name].astype(np.float64)
                for name in NOVELTIES
                if _NOVELTY + name in arrays
            },
        )
    return HeldOut(
        tuple(arrays["names"].tolist()),
        tuple(arrays["groups"].tolist()),
        arrays["fold"].astype(np.int64),
        target,
        Answers(
            arrays["owner"].astype(np.int64), arrays["embedding"].astype(np.float32), **optional
        ),
        streams,
    )
