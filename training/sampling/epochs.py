"""training/: epochs over the published protocol's windows, in torch.

The published way to train: every window (100 rows, stride 50) once per epoch, unchanged, in
random order. `training.sampling.windows` is the other way: random augmented windows. Knows data
sets and preprocessing; nothing of networks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.data.protocol_windows import cut_windows

if TYPE_CHECKING:
    from torch import Tensor

    from models.preprocess import PreprocessSpec
    from training.data.dataset import Dataset
    from training.network.stem import Blend


class EpochSampler:
    """Gives the protocol's windows, batch after batch, epoch after epoch.

    The order of an epoch follows from the seed and the epoch's number alone, so that `seek`
    reaches any step directly.

    Parameters
    ----------
    data: recordings; those too short for one window give one partial window.
    spec: the preprocessing, with center and scale filled in.
    batch: windows in one batch; an epoch's last may be smaller.
    seed: of the orders.
    max_samples: samples used of a recording, from its start; None uses all.
    device: where the windows live.
    """

    def __init__(
        self,
        data: Dataset,
        spec: PreprocessSpec,
        *,
        batch: int,
        seed: int,
        max_samples: int | None = None,
        device: str = "cpu",
    ) -> None:
        windows = cut_windows(data.samples, spec, max_samples)
        self._x = torch.from_numpy(windows.x).to(device)
        self._mask = torch.from_numpy(windows.mask).to(device)
        self._target = torch.from_numpy(data.targets[windows.owner]).to(device)
        self._batch, self._seed = batch, seed
        self._step = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self.generator = torch.Generator()
        self.blend: Blend | None = None

    def __len__(self) -> int:
        """Windows in an epoch."""
        return len(self._x)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self) / self._batch)

    def seek(self, step: int) -> None:
        """Continue as after `step` batches."""
        self._step = step

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x [size, window, feature], mask [size, window] and targets [size, labels].

        `size` must be that of construction; it is an argument for the sake of `WindowSampler`.
        """
        if size != self._batch:
            raise ValueError(f"this sampler gives batches of {self._batch}, not {size}")
        epoch, number = divmod(self._step, self.batches)
        if epoch != self._epoch:
            # A seed from both numbers: runs with neighbouring seeds share no epoch's order.
            mixed = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
            self._order = torch.randperm(len(self), generator=self.generator.manual_seed(mixed))
            self._epoch = epoch
        chosen = self._order[number * size : (number + 1) * size].to(self._x.device)
        self._step += 1
        return self._x[chosen], self._mask[chosen], self._target[chosen]
