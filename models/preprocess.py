"""Models: from board readings to the standardised windows that a network reads.

May import the channel table and numpy. Pure and deterministic: no ports, clocks, ONNX or torch.
One implementation serves the stream on the Pi and the batch in the trainer: the batch functions
run a `FeatureStream` over the whole recording.

The steps: choose the model's channels, linearise (log-conductance), take lag differences,
standardise. The response of a metal-oxide sensor is a power law of concentration, G = G0 * c^beta
(Clifford & Tuma, Sensors and Actuators 3, 1982), so the difference of log-conductances over a lag
cancels the baseline G0 and the gain; no absolute value reaches the network.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hardware.channels import (
    CHANNELS,
    GROVE_FULL_SCALE,
    MQ_FLOOR_PPM,
    N_CHANNELS,
    Part,
    channel_index,
)
from hardware.errors import ScentdError
from models.ring import RingBuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 256
"""Samples processed at once; bounds the history ring, no result depends on it."""


class PreprocessError(ScentdError):
    """A manifest describes impossible preprocessing."""


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a model's inputs are computed, with every constant; part of its manifest.

    Attributes
    ----------
    channels: names from the channel table, in the network's order.
    rate_hz: samples per second that the network was trained on.
    linearise: "log" (log-conductance) or "raw" (the number as sent).
    lags: lag differences in samples, ascending; features are lag-major, channel-minor. A lag of 0
        stands for the level itself, the linearised reading less its mean in training.
    first_step: samples before the first feature row. A lag longer than the history uses the
        oldest sample, so that features begin before the longest lag has passed.
    window: feature rows in a full window.
    stride: feature rows between windows in the published protocol.
    min_steps: feature rows needed before the first live prediction.
    max_hold: consecutive lost samples that are held (and masked); more reset.
    round_readings: round to integers first, as boards send them, so that the decimals of a data
        set's export cannot reveal its sessions.
    center, scale: of each feature before standardising; empty tuples mean 0 and 1.
    clip: standardised features are limited to +-clip.
    """

    channels: tuple[str, ...]
    rate_hz: float
    linearise: Literal["log", "raw"] = "log"
    lags: tuple[int, ...] = (25,)
    first_step: int = 25
    window: int = 100
    stride: int = 50
    min_steps: int = 20
    max_hold: int = 3
    round_readings: bool = False
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    clip: float = 8.0

    def __post_init__(self) -> None:
        problems = [*self._channel_problems(), *self._number_problems()]
        if problems:
            raise PreprocessError("The preprocessing cannot be done: " + "; ".join(problems) + ".")

    def _channel_problems(self) -> list[str]:
        names = {channel.name: channel for channel in CHANNELS}
        unknown = [name for name in self.channels if name not in names]
        if not self.channels or unknown:
            return [f"channels must be names of the channel table, got {list(self.channels)}"]
        if len(set(self.channels)) != len(self.channels):
            return ["a channel is named twice"]
        linear_only = (
            [name for name in self.channels if names[name].part is Part.ENVIRONMENT]
            if self.linearise == "log"
            else []
        )
        return [f"{name} has no log-conductance" for name in linear_only]

    def _number_problems(self) -> list[str]:
        problems = []
        if self.linearise not in ("log", "raw"):
            problems.append(f"linearise must be 'log' or 'raw', got {self.linearise!r}")
        if not self.lags or self.lags[0] < 0 or list(self.lags) != sorted(set(self.lags)):
            problems.append(f"lags must be ascending and 0 or more, got {list(self.lags)}")
        elif not 1 <= self.first_step <= self.lags[-1]:
            problems.append(f"first_step must lie in 1..{self.lags[-1]}, got {self.first_step}")
        if not 1 <= self.min_steps <= self.window:
            problems.append(
                f"min_steps must lie in 1..window ({self.window}), got {self.min_steps}"
            )
        if self.stride < 1 or self.max_hold < 0 or not self.rate_hz > 0 or not self.clip > 0:
            problems.append("stride, rate_hz and clip must be positive, max_hold not negative")
        for name, constants in (("center", self.center), ("scale", self.scale)):
            if constants and len(constants) != self.n_features:
                problems.append(f"{name} needs {self.n_features} numbers, got {len(constants)}")
        if not all(value > 0 for value in self.scale):
            problems.append("every scale must be positive")
        return problems

    @property
    def n_features(self) -> int:
        """Numbers in one feature row."""
        return len(self.channels) * len(self.lags)

    @property
    def n_levels(self) -> int:
        """Features, the first of a row, that are levels instead of differences."""
        return len(self.channels) * (self.lags[0] == 0)

    @property
    def channel_indices(self) -> NDArray[np.intp]:
        """Indices of `channels` in the board's channel table."""
        return np.array([channel_index(name) for name in self.channels], dtype=np.intp)


class Lineariser:
    """Board readings to log-conductance, per channel by its part.

    ln(c / (1023 - c)) for a Grove count c (its divider's conductance ratio), ln(max(ppm, 0.5))
    for an MQ part (ppm are a power of its resistance ratio), -ln(kOhm) for the BME680's heater
    plate. "raw" returns the numbers as they are.

    Parameters
    ----------
    spec: which channels, and whether to linearise and round.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        parts = [CHANNELS[index].part for index in spec.channel_indices]
        self._columns = spec.channel_indices
        self._round = spec.round_readings
        self._log = spec.linearise == "log"
        grove = np.array([part is Part.GROVE for part in parts])
        # One expression serves all parts: sign * ln(v / (span - slope * v)).
        self._low = np.array(
            [{Part.GROVE: 1.0, Part.MQ: MQ_FLOOR_PPM}.get(part, 1e-6) for part in parts]
        )
        self._high = np.where(grove, GROVE_FULL_SCALE - 1.0, np.inf)
        self._span = np.where(grove, GROVE_FULL_SCALE, 1.0)
        self._slope = np.where(grove, 1.0, 0.0)
        self._sign = np.where([part is Part.BME_GAS for part in parts], -1.0, 1.0)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Linearise `values` float32[n, 12] (NaN where unusable) to float32[n, channels]."""
        chosen = values[:, self._columns].astype(np.float64)
        if self._round:
            np.rint(chosen, out=chosen)
        if not self._log:
            return chosen.astype(np.float32)
        np.clip(chosen, self._low, self._high, out=chosen)
        return (self._sign * np.log(chosen / (self._span - self._slope * chosen))).astype(
            np.float32
        )


class FeatureStream:
    """Turns a stream of samples into feature rows and windows.

    Any chunking of the same samples gives bit-equal rows.

    Parameters
    ----------
    spec: the manifest's preprocessing.
    keep: feature rows kept for `window`; the spec's window by default.
    """

    def __init__(self, spec: PreprocessSpec, keep: int | None = None) -> None:
        self.spec = spec
        self._linearise = Lineariser(spec)
        self._history = RingBuffer(spec.lags[-1] + _BLOCK, len(spec.channels))
        self._rows = RingBuffer(keep or spec.window, spec.n_features)
        self._mask = RingBuffer(keep or spec.window, 1)
        self._center = np.array(spec.center or [0.0] * spec.n_features, dtype=np.float32)
        scale = np.array(spec.scale or [1.0] * spec.n_features, dtype=np.float32)
        self._inverse_scale = np.float32(1.0) / scale
        self._samples = 0
        self.resets = 0

    @property
    def samples(self) -> int:
        """Samples since the last reset, held ones included."""
        return self._samples

    @property
    def steps(self) -> int:
        """Feature rows since the last reset; `window` gives at most the newest `keep`."""
        return max(0, self._samples - self.spec.first_step)

    def reset(self) -> None:
        """Forget everything: the next sample does not continue the earlier ones."""
        self._history.clear()
        self._rows.clear()
        self._mask.clear()
        self._samples = 0
        self.resets += 1

    def extend(self, values: NDArray[np.float32], lost: NDArray[np.int64] | None = None) -> None:
        """Add samples in order.

        Parameters
        ----------
        values: float32[n, 12], the board's channels at the model's rate, NaN where unusable.
        lost: int[n], samples lost just before each; None for none at all.
        """
        if lost is None or not lost.any():
            self._extend_whole(self._linearise(values), held=False)
            return
        start = 0
        for gap in np.flatnonzero(lost):
            self._extend_whole(self._linearise(values[start:gap]), held=False)
            self._bridge(int(lost[gap]))
            start = int(gap)
        self._extend_whole(self._linearise(values[start:]), held=False)

    def window(self, steps: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return views of the newest rows, x float32[time, feature] and mask float32[time].

        The mask is 1 where measured, 0 where held. `time` is `steps`, by default all rows kept.
        The views are valid until the next `extend`.
        """
        count = len(self._rows) if steps is None else steps
        return self._rows.view(count), self._mask.view(count)[:, 0]

    def _bridge(self, lost: int) -> None:
        if self._samples == 0:
            return
        if lost > self.spec.max_hold:
            self.reset()
            return
        last = self._history.view(1).copy()
        self._extend_whole(np.repeat(last, lost, axis=0), held=True)

    def _extend_whole(self, signals: NDArray[np.float32], *, held: bool) -> None:
        for start in range(0, len(signals), _BLOCK):
            self._extend_block(signals[start : start + _BLOCK], held=held)

    def _extend_block(self, signals: NDArray[np.float32], *, held: bool) -> None:
        count = len(signals)
        self._history.append(signals)
        self._samples += count
        fresh = min(count, self._samples - self.spec.first_step)
        if fresh <= 0:
            return
        rows = self._differences(fresh, self._samples - fresh)
        rows -= self._center
        rows *= self._inverse_scale
        np.clip(rows, -self.spec.clip, self.spec.clip, out=rows)
        # An unusable channel contributes its mean change.
        rows[np.isnan(rows)] = 0.0
        self._rows.append(rows)
        self._mask.append(np.full((fresh, 1), 0.0 if held else 1.0, dtype=np.float32))

    def _differences(self, count: int, first: int) -> NDArray[np.float32]:
        """Lag differences of the newest `count` samples, the first of which is number `first`."""
        width = len(self.spec.channels)
        rows = np.empty((count, self.spec.n_features), dtype=np.float32)
        for number, lag in enumerate(self.spec.lags):
            reach = min(first, lag)
            past = self._history.view(count + reach)
            newest = past[reach:]
            block = rows[:, number * width : (number + 1) * width]
            if lag == 0:
                block[:] = newest
            elif reach == lag:
                np.subtract(newest, past[:count], out=block)
            else:
                # The history is shorter than the lag: difference to the oldest sample.
                np.subtract(newest, past[np.maximum(np.arange(count) + reach - lag, 0)], out=block)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSegment:
    """The feature rows of an unbroken stretch of a recording.

    Attributes
    ----------
    x: float32[steps, feature]; row j belongs to the stretch's sample `first_step + j`.
    mask: float32[steps], 1 where measured, 0 where held.
    """

    x: NDArray[np.float32]
    mask: NDArray[np.float32]


def batch_features(
    values: NDArray[np.float32], spec: PreprocessSpec, lost: NDArray[np.int64] | None = None
) -> list[FeatureSegment]:
    """Return the feature rows of a whole recording, one segment between any two resets.

    Parameters
    ----------
    values: float32[n, 12], NaN where unusable.
    spec: the preprocessing.
    lost: int[n], samples lost before each, or None.
    """
    if values.ndim != 2 or values.shape[1] != N_CHANNELS:  # noqa: PLR2004
        raise PreprocessError(
            f"Expected readings of shape [samples, {N_CHANNELS}], got {list(values.shape)}."
        )
    gaps = np.zeros(len(values), dtype=np.int64) if lost is None else lost
    breaks = [0, *np.flatnonzero(gaps > spec.max_hold).tolist(), len(values)]
    segments = []
    for start, end in itertools.pairwise(breaks):
        inner = gaps[start:end].copy()
        if end > start:
            inner[0] = 0
        stream = FeatureStream(spec, keep=max(1, end - start + int(inner.sum())))
        stream.extend(values[start:end], inner)
        x, mask = stream.window()
        segments.append(FeatureSegment(x=x, mask=mask))
    return segments


def protocol_windows(segment: FeatureSegment, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return the published protocol's windows: window k covers samples [50k, 50k + 100 + lag).

    Returns
    -------
    float32[windows, window, feature]; a stretch too short for one gives none.
    """
    first = spec.lags[-1] - spec.first_step
    starts = range(first, len(segment.x) - spec.window + 1, spec.stride)
    return (
        np.stack([segment.x[start : start + spec.window] for start in starts])
        if starts
        else (np.empty((0, spec.window, spec.n_features), dtype=np.float32))
    )
