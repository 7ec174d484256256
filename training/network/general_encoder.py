"""training/: a ScentFormer that embeds exposures of any rig, so that one exposure teaches a smell.

It is trained by episodes (prototypical networks: Snell, Swersky & Zemel, NeurIPS 2017): on one rig,
smells taught by one exposure each are to be told apart in exposures of another session, by the
distance to the embedding of what was taught. May import torch and models; knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from models.preprocess import PreprocessSpec
from models.response import LAGS_S, RECOGNISER_SIGNALS, ROW_S, SMALLEST_SIZE
from models.signals import GAS_NAMES
from training.config import NetworkConfig
from training.network.scentformer import ScentFormerTrunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from models.response import ResponseRows

    Rig = Mapping[str, Mapping[str, Sequence[NDArray[np.float32]]]]
    """Features float32[rows, feature] of a rig's exposures, by label and session."""

SPEC = PreprocessSpec(
    channels=tuple(GAS_NAMES[place] for place in RECOGNISER_SIGNALS),
    rate_hz=1.0 / ROW_S,
    lags=(0, *(round(lag / ROW_S) for lag in LAGS_S)),
    window=48,
    first_step=1,
)
"""A window is four minutes of rows: the response (lag 0) and its changes over the lags."""
NETWORK = NetworkConfig(d_model=64, layers=2, heads=4, ffn=2, dropout=0.1, patch=4)

SHORTEST = 4
"""Rows of the shortest window."""
FROM_ONSET = 0.7
"""Share of windows that begin with the onset."""
EPISODES = 4
"""Of a step, one rig each."""
SMELLS = 8
"""Most smells of an episode."""
VIEWS = 3
"""Windows of an exposure that is taught; its embedding is their mean."""
LEARNING_RATE = 1e-3
LOST_CHANNEL = 0.15
"""Share of episodes in which one channel is missing from everything."""


def exposure_features(rows: ResponseRows) -> NDArray[np.float32]:
    """Return float32[rows, feature]: response and changes over the response's size.

    The size itself is left out, since a weak smell is the same smell. A missing channel is 0.
    """
    signals = list(RECOGNISER_SIGNALS)
    changes = [rows.changes[:, lag, signals] for lag in range(len(LAGS_S))]
    values = np.concatenate([rows.response[:, signals], *changes], axis=1)
    size = np.maximum(rows.size, SMALLEST_SIZE)[:, np.newaxis]
    return np.nan_to_num(values / size).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class GeneralEncoder:
    """A trained encoder."""

    network: ScentFormerTrunk

    def embed(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return float64[windows, D] of windows float32[rows, feature], of which the last count."""
        with torch.no_grad():
            found: NDArray[np.float64] = self.network(*_pad(windows)).double().numpy()
        return found


def train_encoder(
    rigs: Sequence[Rig],
    odds: Sequence[float],
    *,
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> GeneralEncoder:
    """Train an encoder.

    Parameters
    ----------
    rigs: each with two labels or more that have two sessions; other labels are not used.
    odds: of each rig to be drawn for an episode.
    steps: number of batches.
    seed: of weights and episodes.
    on_step: called with step and loss.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = ScentFormerTrunk(NETWORK, SPEC)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    share = np.asarray(odds, dtype=float) / np.sum(odds)
    for step in range(1, steps + 1):
        drawn = [_draw_episode(rigs[rng.choice(len(rigs), p=share)], rng) for _ in range(EPISODES)]
        loss = _episode_loss(network, drawn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        on_step(step, float(loss.detach()))
    return GeneralEncoder(network.eval())


def _draw_episode(rig: Rig, rng: np.random.Generator) -> list[list[NDArray[np.float32]]]:
    """Return, by smell, `VIEWS` windows of the taught exposure and one of another session."""
    labels = [label for label, sessions in rig.items() if len(sessions) > 1]
    lost = rng.integers(len(SPEC.channels)) if rng.random() < LOST_CHANNEL else None
    episode = []
    for label in rng.permutation(labels)[:SMELLS]:
        taught, asked = (
            _one_of(rig[label][str(session)], rng)
            for session in rng.permutation(sorted(rig[label]))[:2]
        )
        windows = [_draw_window(one, rng) for one in (*[taught] * VIEWS, asked)]
        if lost is not None:
            windows = [_without(window, int(lost)) for window in windows]
        episode.append(windows)
    return episode


def _one_of(
    exposures: Sequence[NDArray[np.float32]], rng: np.random.Generator
) -> NDArray[np.float32]:
    return exposures[int(rng.integers(len(exposures)))]


def _draw_window(exposure: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    rows = len(exposure)
    length = int(rng.integers(min(SHORTEST, rows), min(SPEC.window, rows) + 1))
    start = 0 if rng.random() < FROM_ONSET else int(rng.integers(rows - length + 1))
    return exposure[start : start + length]


def _without(window: NDArray[np.float32], channel: int) -> NDArray[np.float32]:
    window = window.copy()
    window[:, channel :: len(SPEC.channels)] = 0.0
    return window


def _episode_loss(
    network: ScentFormerTrunk, episodes: Sequence[list[list[NDArray[np.float32]]]]
) -> Tensor:
    """Return the mean cross-entropy of the smells by the squared distance to what was taught."""
    every = [window for episode in episodes for smell in episode for window in smell]
    embedding = network(*_pad(every))
    losses, start = [], 0
    for episode in episodes:
        count = len(episode) * (VIEWS + 1)
        own = embedding[start : start + count].reshape(len(episode), VIEWS + 1, -1)
        start += count
        taught, asked = own[:, :VIEWS].mean(dim=1), own[:, VIEWS]
        logits = -((asked[:, None] - taught[None]) ** 2).sum(dim=2)
        losses.append(functional.cross_entropy(logits, torch.arange(len(episode))))
    return torch.stack(losses).mean()


def _pad(windows: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Return x float32[windows, SPEC.window, feature] and mask float32[windows, SPEC.window]."""
    x = np.zeros((len(windows), SPEC.window, SPEC.n_features), dtype=np.float32)
    mask = np.zeros(x.shape[:2], dtype=np.float32)
    for row, window in enumerate(windows):
        last = window[-SPEC.window :]
        x[row, : len(last)], mask[row, : len(last)] = last, 1.0
    return torch.from_numpy(x), torch.from_numpy(mask)
