"""training/: random training windows, augmented as sensors and rigs vary, in torch.

Windows are cut from the linearised signals, not from ready-made features, so
that one draw can start right after a reset (as live windows do), be replayed
faster or slower, or lose a channel. The unaugmented features equal those of
`models.preprocess`: a test holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.preprocess import Lineariser, PreprocessSpec
from training.config import AugmentConfig
from training.data.dataset import DataError
from training.network.stem import Blend
from training.sampling.mixing import draw_exponents, power_law_mixture
from training.sampling.other_rigs import channel_parts, simulate_other_rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.data.dataset import Dataset

    Signal = Callable[[Tensor], Tensor]

NO_AUGMENTATION = AugmentConfig(
    gain_common=0, gain_channel=0, channel_dropout=0, warp=0, partial=0, from_start=0
)
"""Windows as they were recorded, anywhere in the recordings."""


class WindowSampler:
    """Draws batches of augmented windows.

    Recordings are drawn so that every distinct target (substance, or composition
    of a mixture) is equally likely, then a place in the recording.

    Parameters
    ----------
    data: recordings at the model's rate.
    spec: the preprocessing, with center and scale filled in.
    augment: what a window may suffer.
    seed: of the sampler's own random generator.
    max_samples: samples used of a recording, from its start; None uses all.
    device: where the signals and the batches live.

    Attributes
    ----------
    blend: how the network is to mix the windows of the last batch, where its encoding is what is
        mixed; None where nothing is left to mix.
    """

    def __init__(
        self,
        data: Dataset,
        spec: PreprocessSpec,
        augment: AugmentConfig,
        *,
        seed: int,
        max_samples: int | None = None,
        device: str = "cpu",
    ) -> None:
        self._spec, self._augment, self._device = spec, augment, device
        linearise = Lineariser(spec)
        signals = [linearise(sample.values[:max_samples]) for sample in data.samples]
        lengths = np.array([len(signal) for signal in signals])
        shortest = spec.lags[-1] + spec.window
        if lengths.min() < shortest:
            short = data.samples[int(lengths.argmin())]
            raise ValueError(
                f"{short.name} has {lengths.min()} samples; a full window needs {shortest}"
            )
        self._signals = torch.from_numpy(np.concatenate(signals)).to(device)
        self._lengths = torch.from_numpy(lengths)
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        self._targets = torch.from_numpy(data.targets).to(device)
        _, kind, counts = np.unique(
            data.targets.round(3), axis=0, return_inverse=True, return_counts=True
        )
        in_order = np.array([sample.in_order for sample in data.samples])
        rarity = np.where(in_order, 1.0, augment.out_of_order)
        self._odds = torch.from_numpy(rarity / counts[kind.reshape(-1)])
        single = torch.from_numpy((data.targets > 0).sum(axis=1) == 1)
        self._single_odds = self._odds * single
        if augment.mix_of == "singles" and not single.any():
            raise DataError(
                "augment.mix_of is `singles`, which mixes recordings of single substances; the "
                "training recordings hold none. Add some, or set it to `any`."
            )
        self._center = torch.tensor(spec.center or (0.0,) * spec.n_features, device=device)
        self._scale = torch.tensor(spec.scale or (1.0,) * spec.n_features, device=device)
        self._parts = channel_parts(spec.channels)
        self.generator = torch.Generator().manual_seed(seed)
        self.blend: Blend | None = None

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw x [size, window, feature], mask [size, window] and targets [size, labels]."""
        chosen = self._drawn_recordings(size)
        length, restart, first, speed = self._places(chosen)
        signal = self._signal(chosen, restart, speed)
        target = self._targets[chosen]
        if self._augment.mix_kind == "power_law":
            signal, target = self._mixed_signal(signal, target, chosen, first + length, speed)
        if self._augment.session:
            signal = self._elsewhere(signal, size)
        x = self._distort(self._stand_in(self._features(signal, first))).to(self._device)
        mask = (torch.arange(self._spec.window)[None] < length[:, None]).float().to(self._device)
        if self._augment.mix_kind == "average":
            x, mask, target = self._mix(x, mask, target)
        return x.clamp(-self._spec.clip, self._spec.clip), mask, target

    def _drawn_recordings(self, size: int) -> Tensor:
        """Draw recordings int[size]; those that are to be mixed from single substances first."""
        chosen = torch.multinomial(self._odds, size, replacement=True, generator=self.generator)
        blocks = self._n_blocks(size)
        if blocks:
            chosen[:blocks] = torch.multinomial(
                self._single_odds, blocks, replacement=True, generator=self.generator
            )
        return chosen

    def _n_blocks(self, size: int) -> int:
        """How many windows, the first of a batch, are mixed from single substances only."""
        return round(self._augment.mix * size) if self._augment.mix_of == "singles" else 0

    def _places(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where each window lies: its rows, the sample of its reset, its first row, its speed."""
        spec, size = self._spec, len(chosen)
        partial = self._uniform(size) < self._augment.partial
        some = spec.min_steps + (self._uniform(size) * (spec.window - spec.min_steps + 1)).long()
        length = torch.where(partial, some, spec.window)
        first = torch.where(partial, spec.first_step, spec.lags[-1])
        speed = 1 + self._augment.warp * (2 * self._uniform(size) - 1)
        span = (first + length - 1) * speed
        # A recording too short for a slow replay is replayed as it is.
        room = self._lengths[chosen] - 1
        speed = torch.where(span > room, room / (first + length - 1), speed)
        span = ((first + length - 1) * speed).floor().long()
        restart = (self._uniform(size) * (room - span + 1)).long()
        restart[self._uniform(size) < self._augment.from_start] = 0
        return length, restart, first, speed

    def _signal(self, chosen: Tensor, restart: Tensor, speed: Tensor) -> Signal:
        """How to read the chosen recordings: steps int[size, n] since the reset to signals."""
        base = (self._starts[chosen] + restart)[:, None]
        last = (self._starts[chosen] + self._lengths[chosen] - 1)[:, None]

        def signal(step: Tensor) -> Tensor:
            place = base + (step.clamp(min=0) * speed[:, None]).round().long()
            return self._signals[place.minimum(last).to(self._device)]

        return signal

    def _elsewhere(self, own: Signal, size: int) -> Signal:
        """Hear some windows as other rigs would have sent them."""
        augment, channels = self._augment, len(self._spec.channels)
        moved = (self._uniform(size, 1) < augment.session).float()
        gain = augment.session_gain * moved * self._normal(size, channels)
        offset = augment.session_offset * moved * self._normal(size, channels)
        gain, offset = gain.to(self._device), offset.to(self._device)
        chosen = moved[:, :, None].to(self._device) > 0
        level = own(torch.zeros(size, 1, dtype=torch.long))[:, 0]

        def elsewhere(step: Tensor) -> Tensor:
            signal = own(step)
            return torch.where(
                chosen, simulate_other_rig(signal, self._parts, gain, offset, level), signal
            )

        return elsewhere

    def _mixed_signal(
        self, own: Signal, target: Tensor, chosen: Tensor, steps: Tensor, speed: Tensor
    ) -> tuple[Signal, Tensor]:
        """Mix some windows with others' recordings by the power law, before any difference.

        The others are read from places of their own: what they share with the window is
        how many `steps` int[size] it takes and at what speed.
        """
        self.blend = None
        if not self._augment.mix:
            return own, target
        blend = self._drawn_blend(len(chosen))
        span = ((steps - 1) * speed).floor().long()
        signals = [own]
        for other in blend.others[1:].cpu():
            room = (self._lengths[chosen[other]] - span).clamp(min=1)
            restart = (self._uniform(len(chosen)) * room).long()
            signals.append(self._signal(chosen[other], restart, speed))
        beta = draw_exponents(len(chosen), len(self._spec.channels), self.generator).to(
            self._device
        )

        def mixed(step: Tensor) -> Tensor:
            parts = torch.stack([signal(step) for signal in signals])
            return power_law_mixture(parts, blend.weights, beta)

        return mixed, blend.mean(target)

    def _features(self, signal: Signal, first: Tensor) -> Tensor:
        """Lag differences of the windows, standardised: float32[size, window, feature]."""
        step = first[:, None] + torch.arange(self._spec.window)[None]
        now = signal(step)
        rows = torch.cat([now - signal(step - lag) for lag in self._spec.lags], dim=2)
        return ((rows - self._center) / self._scale).nan_to_num(nan=0.0)

    def _stand_in(self, x: Tensor) -> Tensor:
        """Give windows without a fickle channel another window's, then drop it from some of all.

        Otherwise "it is dead" would say the label, and "it lives" would exclude it. A stand-in
        drawn over all labels says nothing of its own.
        """
        spec = self._spec
        for name in self._augment.fickle:
            if name not in spec.channels:
                continue
            column = spec.channels.index(name)
            of_it = slice(column, None, len(spec.channels))
            lives = (x[:, :, of_it] != 0).flatten(1).any(dim=1)
            donors = torch.nonzero(lives)[:, 0].cpu()
            x = x.clone()
            if len(donors):
                drawn = donors[(self._uniform(len(x)) * len(donors)).long()]
                x[:, :, of_it] = torch.where(
                    lives[:, None, None], x[:, :, of_it], x[drawn][:, :, of_it]
                )
            kept = (self._uniform(len(x)) >= self._augment.fickle_dropout).to(x.device)
            x[:, :, of_it] *= kept[:, None, None]
        return x

    def _distort(self, x: Tensor) -> Tensor:
        """Scale, drop and roughen the channels of each window."""
        augment, size, channels = self._augment, len(x), len(self._spec.channels)
        gain = augment.gain_common * self._normal(size, 1) + augment.gain_channel * self._normal(
            size, channels
        )
        kept = self._uniform(size, channels) >= augment.channel_dropout
        survivor = (self._uniform(size) * channels).long()
        kept[torch.arange(size), survivor] = True
        factor = (gain.exp() * kept).repeat(1, len(self._spec.lags))[:, None].to(self._device)
        x = x * factor
        if augment.noise:
            x = x + augment.noise * self._normal(*x.shape).to(self._device) * (factor > 0)
        return x

    def _mix(self, x: Tensor, mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convexly mix some windows with others of the batch, or leave that to the network."""
        self.blend = None
        if not self._augment.mix:
            return x, mask, target
        blend = self._drawn_blend(len(x))
        mixed = blend.mean(target)
        if self._augment.mix_where == "encoding":
            self.blend = blend
            return x, mask, mixed
        # Only rows measured in all parts count.
        shared = torch.stack(
            [
                mask[other].where(blend.weights[:, k, None] > 0, 1.0)
                for k, other in enumerate(blend.others)
            ]
        ).amin(dim=0)
        return blend.mean(x), shared, mixed

    def _drawn_blend(self, size: int) -> Blend:
        augment, parts = self._augment, self._augment.mix_parts
        draws = torch.from_numpy(
            np.random.default_rng(int(self._uniform(1).item() * 2**31)).dirichlet(
                [augment.mix_alpha] * parts, size
            )
        ).float()
        weights = draws.sort(dim=1, descending=True).values
        number = torch.arange(size)
        blocks = self._n_blocks(size)
        alone = number >= blocks if blocks else self._uniform(size) >= augment.mix
        weights[alone] = torch.tensor([1.0, *[0.0] * (parts - 1)])
        others = [number]
        for _ in range(parts - 1):
            shuffled = torch.randperm(blocks or size, generator=self.generator)
            others.append(torch.cat([shuffled, number[len(shuffled) :]]))
        return Blend(torch.stack(others).to(self._device), weights.to(self._device))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)
