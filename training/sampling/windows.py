"""training/: random training windows, augmented as sensors and rigs vary, in torch.

Windows are cut from linearised signals instead of ready-made features, so that a window can
start right after a reset (as live windows do), be replayed faster or slower, or lose a channel.
The unaugmented features equal those of `models.preprocess`; a test checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.preprocess import Lineariser, PreprocessSpec
from training.config import AugmentConfig
from training.data.clean_air import notice_onset
from training.data.dataset import DataError
from training.network.stem import Blend
from training.sampling.mixing import draw_exponents, power_law_mixture
from training.sampling.other_rigs import channel_parts, simulate_other_rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.data.dataset import Dataset

    Signal = Callable[[Tensor], Tensor]
    """Steps int[size, n] since each window's reset -> log-conductances float32[size, n, channel]"""

NO_AUGMENTATION = AugmentConfig(
    gain_common=0, gain_channel=0, channel_dropout=0, warp=0, partial=0, from_start=0
)
"""Windows as they were recorded, anywhere in the recordings."""


_DRIFT_SAMPLES = 50
"""Samples over which `AugmentConfig.drift` is stated."""


class _Places(NamedTuple):
    """Where the windows of a batch lie in their recordings; int64[size], but for `speed`."""

    restart: Tensor
    """Sample of the reset."""
    first: Tensor
    """First row, in steps since the reset."""
    length: Tensor
    """Measured rows."""
    speed: Tensor
    """float32[size], samples of the recording per step."""
    span: Tensor
    """Samples from the reset to the last row."""


class WindowSampler:
    """Draws batches of augmented windows.

    A recording is drawn so that every distinct target (substance, or composition of a mixture)
    is equally likely, then a place in the recording.

    Parameters
    ----------
    data: recordings at the model's rate.
    spec: the preprocessing, with center and scale filled in.
    augment: how windows are changed.
    seed: of the sampler's own random generator.
    max_samples: samples used of a recording, from its start; None uses all.
    device: where the signals and the batches live.

    Attributes
    ----------
    blend: how the network has to mix the windows of the last batch, where encodings are mixed;
        None otherwise.
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
            raise DataError(
                f"Expected recordings of at least {shortest / spec.rate_hz:.0f} s, the longest lag "
                f"and a window together; {short.name} lasts {lengths.min() / spec.rate_hz:.0f} s. "
                "Move it away, or make preprocessing.window or the longest of preprocessing.lags "
                "shorter."
            )
        self._signals = torch.from_numpy(np.concatenate(signals)).to(device)
        self._lengths = torch.from_numpy(lengths)
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        self._targets = torch.from_numpy(data.targets).to(device)
        _, kind, counts = np.unique(
            data.targets.round(3), axis=0, return_inverse=True, return_counts=True
        )
        in_order = np.array([sample.in_order for sample in data.samples])
        weight = np.where(in_order, 1.0, augment.out_of_order)
        self._odds = torch.from_numpy(weight / counts[kind.reshape(-1)])
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
        onsets = [notice_onset(sample) if augment.from_onset else None for sample in data.samples]
        self._onsets = torch.tensor([-1 if onset is None else onset for onset in onsets])
        self.generator = torch.Generator().manual_seed(seed)
        self.blend: Blend | None = None

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw x [size, window, feature], mask [size, window] and targets [size, labels]."""
        self.blend = None
        chosen = self._draw_recordings(size)
        places = self._draw_places(chosen)
        signal = self._signal(chosen, places.restart, places.speed)
        target = self._targets[chosen]
        if self._augment.mix and self._augment.mix_kind == "power_law":
            signal, target = self._mix_signals(signal, target, chosen, places)
        if self._augment.session:
            signal = self._from_other_rigs(signal, size)
        x = self._shift_day(self._features(signal, places.first))
        x = self._distort(self._replace_fickle(x))
        x = x.to(self._device)
        mask = (torch.arange(self._spec.window)[None] < places.length[:, None]).float()
        mask = mask.to(self._device)
        if self._augment.mix and self._augment.mix_kind == "average":
            x, mask, target = self._mix_features(x, mask, target)
        return x.clamp(-self._spec.clip, self._spec.clip), mask, target

    def _draw_recordings(self, size: int) -> Tensor:
        """Draw recordings int[size], first those that `mix_of: singles` mixes."""
        chosen = torch.multinomial(self._odds, size, replacement=True, generator=self.generator)
        singles = self._n_singles(size)
        if singles:
            chosen[:singles] = torch.multinomial(
                self._single_odds, singles, replacement=True, generator=self.generator
            )
        return chosen

    def _n_singles(self, size: int) -> int:
        """Return how many windows, the first of a batch, are mixed from single substances only."""
        return round(self._augment.mix * size) if self._augment.mix_of == "singles" else 0

    def _draw_places(self, chosen: Tensor) -> _Places:
        spec, size = self._spec, len(chosen)
        partial = self._uniform(size) < self._augment.partial
        some = spec.min_steps + (self._uniform(size) * (spec.window - spec.min_steps + 1)).long()
        length = torch.where(partial, some, spec.window)
        first = torch.where(partial, spec.first_step, spec.lags[-1])
        room = self._lengths[chosen] - 1
        at_onset = self._draw_at_onset(chosen, room - some)
        speed = 1 + self._augment.warp * (2 * self._uniform(size) - 1)
        onset = (self._onsets[chosen] / speed).ceil().long().clamp(min=spec.first_step)
        length = torch.where(at_onset, some, length)
        first = torch.where(at_onset, onset, first)
        # A recording too short for a faster replay is replayed as fast as it allows.
        steps = first + length - 1
        speed = torch.where(steps * speed > room, room / steps, speed)
        span = (steps * speed).floor().long()
        restart = (self._uniform(size) * (room - span + 1)).long()
        restart[(self._uniform(size) < self._augment.from_start) | at_onset] = 0
        return _Places(restart, first, length, speed, span)

    def _draw_at_onset(self, chosen: Tensor, latest: Tensor) -> Tensor:
        """Draw bool[size], which windows begin at the onset, by int[size], where they may begin."""
        if not self._augment.from_onset:
            return torch.zeros(len(chosen), dtype=torch.bool)
        onset = self._onsets[chosen]
        drawn = self._uniform(len(chosen)) < self._augment.from_onset
        return drawn & (onset >= 0) & (onset.clamp(min=self._spec.first_step) <= latest)

    def _signal(self, chosen: Tensor, restart: Tensor, speed: Tensor) -> Signal:
        """Return how to read the chosen recordings int[size]."""
        base = (self._starts[chosen] + restart)[:, None]
        last = (self._starts[chosen] + self._lengths[chosen] - 1)[:, None]

        def signal(step: Tensor) -> Tensor:
            place = base + (step.clamp(min=0) * speed[:, None]).round().long()
            return self._signals[place.minimum(last).to(self._device)]

        return signal

    def _from_other_rigs(self, own: Signal, size: int) -> Signal:
        """Change a share of the windows into those of other rigs."""
        augment, channels = self._augment, len(self._spec.channels)
        moved = (self._uniform(size, 1) < augment.session).float()
        gain = (augment.session_gain * moved * self._normal(size, channels)).to(self._device)
        offset = (augment.session_offset * moved * self._normal(size, channels)).to(self._device)
        chosen = moved[:, :, None].to(self._device) > 0
        level = own(torch.zeros(size, 1, dtype=torch.long))[:, 0]

        def signal(step: Tensor) -> Tensor:
            here = own(step)
            there = simulate_other_rig(here, self._parts, gain, offset, level)
            return torch.where(chosen, there, here)

        return signal

    def _mix_signals(
        self, own: Signal, target: Tensor, chosen: Tensor, places: _Places
    ) -> tuple[Signal, Tensor]:
        """Mix some windows with other recordings by the power law, before any difference.

        The others start at random places of their own; their span and speed are the window's.
        """
        blend = self._draw_blend(len(chosen))
        signals = [own]
        for other in blend.others[1:].cpu():
            room = (self._lengths[chosen[other]] - places.span).clamp(min=1)
            restart = (self._uniform(len(chosen)) * room).long()
            signals.append(self._signal(chosen[other], restart, places.speed))
        channels = len(self._spec.channels)
        exponents = draw_exponents(len(chosen), channels, self.generator).to(self._device)

        def signal(step: Tensor) -> Tensor:
            parts = torch.stack([part(step) for part in signals])
            return power_law_mixture(parts, blend.weights, exponents)

        return signal, blend.mean(target)

    def _features(self, signal: Signal, first: Tensor) -> Tensor:
        """Return the windows' standardised features float32[size, window, feature]."""
        step = first[:, None] + torch.arange(self._spec.window)[None]
        now = signal(step)
        rows = torch.cat(
            [now - signal(step - lag) if lag else now for lag in self._spec.lags], dim=2
        )
        return ((rows - self._center) / self._scale).nan_to_num(nan=0.0)

    def _shift_day(self, x: Tensor) -> Tensor:
        """Shift the levels, and let the signals drift, as on another day; lost channels stay 0."""
        augment, size, channels = self._augment, len(x), len(self._spec.channels)
        if not (augment.level_common or augment.level_channel or augment.drift):
            return x
        level = augment.level_common * self._normal(size, 1) + augment.level_channel * self._normal(
            size, channels
        )
        drift = augment.drift * self._normal(size, channels)
        shifts = [drift * lag / _DRIFT_SAMPLES if lag else level for lag in self._spec.lags]
        shift = (torch.cat(shifts, dim=1)[:, None]).to(self._device) / self._scale
        there = (x != 0).any(dim=1, keepdim=True)
        return x + shift * there

    def _replace_fickle(self, x: Tensor) -> Tensor:
        """Give windows without a fickle channel another window's, then drop it from some windows.

        Otherwise a dead channel would identify the labels recorded without it, and a live one
        would exclude them. The replacement is drawn over all labels, so it favours none.
        """
        spec = self._spec
        for name in self._augment.fickle:
            if name not in spec.channels:
                continue
            columns = slice(spec.channels.index(name), None, len(spec.channels))
            alive = (x[:, :, columns] != 0).flatten(1).any(dim=1)
            donors = torch.nonzero(alive)[:, 0].cpu()
            x = x.clone()
            if len(donors):
                donor = donors[(self._uniform(len(x)) * len(donors)).long()]
                x[:, :, columns] = torch.where(
                    alive[:, None, None], x[:, :, columns], x[donor][:, :, columns]
                )
            kept = (self._uniform(len(x)) >= self._augment.fickle_dropout).to(x.device)
            x[:, :, columns] *= kept[:, None, None]
        return x

    def _distort(self, x: Tensor) -> Tensor:
        """Apply gains, lost channels and noise."""
        augment, size, channels = self._augment, len(x), len(self._spec.channels)
        gain = augment.gain_common * self._normal(size, 1) + augment.gain_channel * self._normal(
            size, channels
        )
        kept = self._uniform(size, channels) >= augment.channel_dropout
        survivor = (self._uniform(size) * channels).long()
        kept[torch.arange(size), survivor] = True
        changes = (gain.exp() * kept).repeat(1, len(self._spec.lags))
        # A gain of the response does not scale the level.
        changes[:, : self._spec.n_levels] = kept[:, : self._spec.n_levels]
        factor = changes[:, None].to(self._device)
        x = x * factor
        if augment.noise:
            x = x + augment.noise * self._normal(*x.shape).to(self._device) * (factor > 0)
        return x

    def _mix_features(
        self, x: Tensor, mask: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Average some windows with others of the batch, or leave that to the network (`blend`)."""
        blend = self._draw_blend(len(x))
        mixed = blend.mean(target)
        if self._augment.mix_where == "encoding":
            self.blend = blend
            return x, mask, mixed
        # Only rows measured in all parts count.
        masks = [
            mask[other].where(blend.weights[:, part, None] > 0, 1.0)
            for part, other in enumerate(blend.others)
        ]
        return blend.mean(x), torch.stack(masks).amin(dim=0), mixed

    def _draw_blend(self, size: int) -> Blend:
        augment, parts = self._augment, self._augment.mix_parts
        rng = np.random.default_rng(int(self._uniform(1).item() * 2**31))
        draws = torch.from_numpy(rng.dirichlet([augment.mix_alpha] * parts, size)).float()
        weights = draws.sort(dim=1, descending=True).values
        number = torch.arange(size)
        singles = self._n_singles(size)
        alone = number >= singles if singles else self._uniform(size) >= augment.mix
        weights[alone] = torch.tensor([1.0, *[0.0] * (parts - 1)])
        others = [number]
        for _ in range(parts - 1):
            shuffled = torch.randperm(singles or size, generator=self.generator)
            others.append(torch.cat([shuffled, number[len(shuffled) :]]))
        return Blend(torch.stack(others).to(self._device), weights.to(self._device))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)
